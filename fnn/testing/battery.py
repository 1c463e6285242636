"""Laws as a battery: all of them run, and all that are broken are reported together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fnn.expect import did_you_mean

Skip = Mapping[str, str]  # name of a law -> the reason why it does not apply


class LawError(AssertionError):
    """A broken law: what was expected where, what was found, and what to look for.

    >>> error = LawError('is_pure: two calls differ; look for a global', law='is_pure')
    >>> error.law
    'is_pure'
    """

    def __init__(
        self,
        message: str,
        *,
        law: str = "",
        leaf: str | None = None,
        expected: Any = None,
        got: Any = None,
        hint: str = "",
    ):
        super().__init__(message)
        self.law, self.leaf, self.hint = law, leaf, hint
        self.expected, self.got = expected, got


class BrokenLaws(ExceptionGroup, AssertionError):
    """All broken laws of a check; `exceptions` has a `LawError` for each.

    >>> raise BrokenLaws('check_model: 1 of 9 laws is broken', [LawError('is_pure: ...')])
    Traceback (most recent call last):
        ...
    fnn.testing.battery.BrokenLaws: check_model: 1 of 9 laws is broken (1 sub-exception)
    """

    def derive(self, excs: Any) -> Any:
        """A group of some of the errors, as `except*` makes it."""
        return BrokenLaws(self.message, excs)


@dataclass(frozen=True)
class Law:
    """A named statement that raises `LawError` where it does not hold; calling it runs it."""

    name: str
    statement: Callable[[], None]
    skipped: str = ""  # the reason

    def __call__(self) -> None:
        """Runs the law. Any error of the function under test breaks it as well."""
        __tracebackhide__ = True
        try:
            self.statement()
        except LawError as error:
            error.law = self.name
            raise
        except AssertionError as error:
            raise LawError(str(error), law=self.name) from error
        except Exception as error:
            raise LawError(
                f"{self.name}: {type(error).__name__}: {error}", law=self.name, got=error
            ) from error

    def __repr__(self) -> str:
        return self.name


class Battery:
    """The laws of one thing, in the order in which they are added."""

    def __init__(self, where: str, skip: Skip = {}):  # noqa: B006
        self.where, self._skip = where, dict(skip)
        self.laws: list[Law] = []

    def add(self, statement: Callable[..., None], *args: Any, **options: Any) -> None:
        """Adds a law, called with these arguments and named for the function."""
        name = statement.__name__
        run = lambda: statement(*args, **options)  # noqa: E731
        self.laws.append(Law(name, run, self._skip.get(name, "")))

    def extend(self, laws: Sequence[Law], part: str) -> None:
        """Adds laws of a part, whose names get its name in front."""
        for law in laws:
            name = f"{part}.{law.name}"
            reason = law.skipped or self._skip.get(name, "")
            self.laws.append(Law(name, law.statement, reason))

    def done(self) -> list[Law]:
        """The laws. Raises: ValueError for a skipped name that no law has, or without a reason."""
        names = [law.name for law in self.laws]
        for name, reason in self._skip.items():
            if name not in names:
                raise ValueError(
                    f"{self.where}: expected in skip names of laws, got {name!r}; "
                    f"{did_you_mean(name, names, 'the laws are ' + ', '.join(names))}"
                )
            if not reason:
                raise ValueError(f"{self.where}: expected a reason to skip {name}, got none")
        return self.laws


def check(where: str, laws: Sequence[Law]) -> None:
    """Runs all laws. Raises: `BrokenLaws` with an error for each that is broken.

    >>> check('check_sine', [Law('is_zero', lambda: None)])
    """
    broken: list[Exception] = []
    running = [law for law in laws if not law.skipped]
    for law in running:
        try:
            law()
        except LawError as error:
            broken.append(error)
    if broken:
        count = f"{len(broken)} of {len(running)} laws {'is' if len(broken) == 1 else 'are'} broken"
        lines = "".join(f"\n  {error}" for error in broken)
        raise BrokenLaws(f"{where}: {count}:{lines}\n", broken)
