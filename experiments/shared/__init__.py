"""What the experiments' command lines share: checked options, runs that resume, exit codes.

An experiment that trains with `fit` keeps its runs in directories, and goes on with `--resume RUN`
after Ctrl-C, SIGTERM or a crash: bitwise identical to an uninterrupted run. One whose training is a
single compiled program keeps nothing before the end; Ctrl-C ends it immediately.
"""

import json
import os
import signal
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from fnn.checkpoint import RunDir, new_runs
from fnn.train import FitResult, exit_code, resume_command

Options = Any  # a frozen dataclass
AnOptions = TypeVar("AnOptions")

_RECORD = "config.json"
_FREE = {"out", "resume", "root", "seeds"}  # what they say does not change a run


def unset(help: str, means: str, read: type = int) -> Any:
    """An annotation for an option whose default is None.

    Args:
      help: what --help says of it.
      means: what None stands for.
      read: the type that its value is read as.
    """
    word = "INT" if read is int else "DIR"
    hint = f"(default: {means})"
    return tyro.conf.arg(constructor=read, metavar=word, help=help, help_behavior_hint=hint)


def warmup(most: int) -> Any:
    """The annotation of `warmup_steps`, whose default is that of `scaled`."""
    means = f"a tenth of --steps, at most {most}"
    return unset("steps up to the peak of the learning rate", means)


Root = Annotated[
    str | None,
    unset(
        "folder that holds the data set's folder", "FNN_DATA, the user's cache, or a download", str
    ),
]
Resume = Annotated[
    Path | None, unset("directory of an interrupted run to go on with", "none", Path)
]


def expect(options: Options, name: str, fine: bool, expected: str) -> None:
    """Raise ValueError, which names the option, unless its value is fine."""
    if not fine:
        raise ValueError(f"{flag(name)}: expected {expected}, got {_word(getattr(options, name))}")


def expect_above_0(options: Options, *names: str) -> None:
    """Raise for an option that is not a finite number above 0."""
    for name in names:
        expect(options, name, 0 < getattr(options, name) < float("inf"), "a number above 0")


def expect_0_or_more(options: Options, *names: str) -> None:
    """Raise for an option that is not a finite number, 0 or more."""
    for name in names:
        expect(options, name, 0 <= getattr(options, name) < float("inf"), "0 or more")


def expect_fraction(options: Options, *names: str) -> None:
    """Raise for an option that is not in [0, 1)."""
    for name in names:
        expect(options, name, 0 <= getattr(options, name) < 1, "a fraction in [0, 1)")


def expect_seeds(options: Options) -> None:
    """Raise for seeds of which JAX makes no key of its own."""
    last = options.seed + getattr(options, "seeds", 1) - 1
    expect(options, "seed", 0 <= options.seed <= last < 2**32, "a whole number from 0 to 2^32 - 1")


def expect_warmup(options: Options, steps: int) -> None:
    """Raise for a warm-up that does not end before the last step; None is the default."""
    warmup = options.warmup_steps
    expect(
        options, "warmup_steps", warmup is None or 0 <= warmup < steps, "from 0 to below --steps"
    )


def scaled(value: int | None, steps: int, most: int) -> int:
    """A number of warm-up steps that was given, or else a tenth of all steps, at most `most`."""
    return min(most, steps // 10) if value is None else value


def flag(name: str) -> str:
    """The option as it is typed."""
    return "--" + name.replace("_", "-")


def _word(value: Any) -> str:
    """A value as it is typed behind its option."""
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def open_runs(options: Options, name: str, out: Path | None) -> list[RunDir]:
    """The directory of each seed: new ones, or those of the run to resume.

    Args:
      name: of the experiment, by which new directories are named.
      out: the option --out, where it is a directory of runs.

    Raises: ValueError for a directory that is not new, that is no run, or whose run was made with
      other options.
    """
    seeds = range(options.seed, options.seed + getattr(options, "seeds", 1))
    if options.resume is None:
        return new_runs(out, name, seeds)
    if out is not None:
        raise ValueError(
            f"--out: expected none beside --resume, got {str(out)!r}; "
            "a resumed run stays in its directory"
        )
    run: Path = options.resume
    records = {seed: (run / f"seed_{seed}" if len(seeds) > 1 else run) / _RECORD for seed in seeds}
    if not any(record.is_file() for record in records.values()):
        raise ValueError(
            f"--resume: expected the directory of a run, got {str(run)!r}, where there is no "
            f"{next(iter(records.values())).relative_to(run)}; give the one that the run printed"
        )
    for seed, record in records.items():
        expect_same(replace(options, seed=seed), record)
    return [RunDir(record.parent) for record in records.values()]


def expect_same(options: Options, record: Path) -> None:
    """Raise ValueError, which names every option that is not as in the run to resume."""
    if not record.exists():
        return  # of a seed whose run has not begun
    try:
        before = json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(
            f"--resume: expected the options of the run in {record}, got a damaged file "
            f"({error}); start a new run"
        ) from error
    now = _as_json(options)
    names = [n for n in before | now if n not in _FREE and before.get(n, ()) != now.get(n, ())]
    if names:
        raise ValueError(
            f"--resume: expected the options of the run in {str(record.parent)!r}, but these "
            "differ:\n"
            + "\n".join(
                f"  {flag(name)}: expected {_word(before.get(name, 'no such option'))}, "
                f"got {_word(now.get(name, 'no such option'))}"
                for name in names
            )
            + "\ngive the same options again, or start a new run without --resume"
        )


def keep_options(options: Options, store: RunDir) -> None:
    """Write config.json, all or nothing, unless it is there already."""
    record = store.path / _RECORD
    if not record.exists():
        temporary = record.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(_as_json(options), indent=2) + "\n")
        temporary.replace(record)


def _as_json(options: Options) -> dict[str, Any]:
    """The options with lists for tuples and text for paths, as they come back from a file."""
    return json.loads(json.dumps(asdict(options), default=str))


def over_seeds(
    options: AnOptions,
    stores: list[RunDir],
    run: Callable[[AnOptions, RunDir], tuple[float, FitResult]],
) -> int:
    """One run for each seed, and the mean of their accuracies; returns the exit code.

    Args:
      stores: those of `open_runs`.
      run: trains, tests and reports one seed; returns the fraction of the test part that it
        classifies correctly, and what `fit` returned.
    """
    accuracies: list[float] = []

    def all_seeds() -> int:
        for seed, store in enumerate(stores, start=options.seed):  # type: ignore[attr-defined]
            one = replace(options, seed=seed, seeds=1, out=store.path)  # type: ignore[type-var]
            keep_options(one, store)
            accuracy, result = run(one, store)
            if code := exit_code(result):
                return code
            accuracies.append(100 * accuracy)
        return 0

    code = resumable(stores[0].path.parent if len(stores) > 1 else stores[0].path, all_seeds)
    if len(accuracies) > 1:
        mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
        print(f"test accuracy over {len(accuracies)} seeds: mean {mean:.2f} %, std {std:.2f} %")
    return code


def resumable(run: Path, train: Callable[[], int], **replaces: Any) -> int:
    """The exit code that `train` returns; one that is not 0 is printed with how to resume.

    Ctrl-C where `fit` does not listen, such as a second one or during the test, ends it as well.
    """
    try:
        code = train()
    except KeyboardInterrupt:
        print()  # the terminal has written ^C
        code = 128 + signal.SIGINT
    if code:
        print(f"to resume: {resume_command(run, **replaces)}", flush=True)
    return code


def start(main: Callable[[], int | None], *, resumes: bool) -> None:
    """Run an experiment's main function and exit with its code; no traceback on Ctrl-C.

    Args:
      resumes: False for an experiment without `--resume`, which Ctrl-C ends immediately, also
        within a compiled program.
    """
    former = signal.getsignal(signal.SIGINT)
    try:
        if not resumes:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = main()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, former)
    if code:
        sys.exit(code)
