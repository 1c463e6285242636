"""Options of a command line: their types, which state and check the ranges, and base classes."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

try:
    import tyro
except ImportError:  # configurations are then made in Python, as `benchmarks/gpu.py` does
    tyro = None  # type: ignore[assignment]

T = TypeVar("T")
Static = Annotated[T, "static"]  # an option of type float that is no argument of the recipe


@dataclass(frozen=True)
class Check:
    """A condition that an option's value has to meet, as metadata of the option's type."""

    holds: Callable[[Any], bool]
    expected: str


def between(low: float, high: float) -> Check:
    """A number from `low` to `high`."""
    return Check(lambda value: low <= value <= high, f"from {low} to {high}")


_ABOVE_0 = Check(lambda value: 0 < value < float("inf"), "a number above 0")
_0_OR_MORE = Check(lambda value: 0 <= value < float("inf"), "0 or more")

Positive = Annotated[float, _ABOVE_0]
NonNegative = Annotated[float, _0_OR_MORE]
Fraction = Annotated[float, Check(lambda value: 0 <= value < 1, "a fraction in [0, 1)")]
OpenFraction = Annotated[float, Check(lambda value: 0 < value < 1, "a fraction in (0, 1)")]
Probability = Annotated[float, Check(lambda value: 0 <= value <= 1, "a fraction in [0, 1]")]
Count = Annotated[int, _ABOVE_0]
CountOrZero = Annotated[int, _0_OR_MORE]
Widths = Annotated[
    tuple[int, ...], Check(lambda value: min(value, default=0) > 0, "one or more, each above 0")
]
SeveralSeeds = Annotated[int, Check(lambda value: value > 1, "2 or more, to know the spread")]


def unset(help: str, means: str, read: type = int) -> Any:
    """The annotation of an option whose default is None.

    Args:
      help: the explanation in --help.
      means: the meaning of None.
      read: the type of other values.
    """
    word = "INT" if read is int else "DIR"
    if tyro is None:
        return help
    hint = f"(default: {means})"
    return tyro.conf.arg(constructor=read, metavar=word, help=help, help_behavior_hint=hint)


def warmup(longest: int) -> Any:
    """The annotation of `warmup_steps`, whose default is a tenth of all steps, bounded."""
    means = f"a tenth of --steps, at most {longest}"
    return unset("steps up to the peak of the learning rate", means)


Root = Annotated[
    str | None,
    unset("folder of the data sets", "FNN_DATA, the user's cache, or a download", str),
]
Resume = Annotated[Path | None, unset("directory of an interrupted run to resume", "none", Path)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The base of all configurations: every option is checked by its type.

    Options of type float are hyperparameters: the recipe takes them as arguments, which may be
    traced, so that other values need no new compilation. The others are compiled into the program.
    """

    longest_warmup: ClassVar[int]  # where there is an option `warmup_steps`

    @property
    def hyper(self) -> dict[str, Any]:
        """The arguments of the recipe: options of type float, and the warm-up steps."""
        hyper = {f.name: getattr(self, f.name) for f in fields(self) if _is_traced(f.type)}
        if hasattr(self, "warmup_steps"):
            default = min(self.longest_warmup, _least(self) // 10)
            hyper["warmup_steps"] = default if self.warmup_steps is None else self.warmup_steps
        return hyper

    def __post_init__(self) -> None:
        for field in fields(self):
            for check in getattr(field.type, "__metadata__", ()):
                if isinstance(check, Check):
                    fine = check.holds(getattr(self, field.name))
                    expect(self, field.name, fine, check.expected)
        if (steps := getattr(self, "warmup_steps", None)) is not None:
            expect(self, "warmup_steps", 0 <= steps < _least(self), "from 0 to below --steps")
        if hasattr(self, "seed"):
            last = self.seed + getattr(self, "seeds", 1) - 1
            fine = 0 <= self.seed <= last < 2**32  # a larger seed makes the key of a smaller one
            expect(self, "seed", fine, "a whole number from 0 to 2^32 - 1")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Options of an experiment that trains with `fit` in a directory."""

    seed: int = 0  # of the split, the initial weights, the order of the data and the noise
    out: Annotated[Path | None, unset("directory of the run", "a new one in runs/", Path)] = None
    resume: Resume = None


def _is_traced(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return getattr(annotation, "__origin__", annotation) is float and "static" not in metadata


def _least(options: Any) -> int:
    """The number of steps, or the smallest of several."""
    return min(options.steps) if isinstance(options.steps, tuple) else options.steps


def expect(options: Options, name: str, fine: bool, expected: str) -> None:
    """Raises a ValueError that names the option unless its value is fine."""
    if not fine:
        raise ValueError(f"{flag(name)}: expected {expected}, got {typed(getattr(options, name))}")


def flag(name: str) -> str:
    """The option as it is typed."""
    return "--" + name.replace("_", "-")


def typed(value: Any) -> str:
    """A value as it is typed after its option."""
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
