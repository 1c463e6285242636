"""Runs in directories, which resume after an interrupt, and the exit codes of commands.

An experiment that trains with `fit` keeps its runs in directories, and `--resume RUN` continues
after Ctrl-C, SIGTERM or a crash, bitwise identical to an uninterrupted run. An experiment that is
a single compiled program keeps nothing before the end; Ctrl-C ends it immediately.
"""

import json
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from experiments.shared.options import Options, RunOptions, flag, typed
from fnn.checkpoint import RunDir, new_runs
from fnn.train import FitResult, compile_cache, exit_code, resume_command

AnOptions = TypeVar("AnOptions", bound=Options)

_CONFIG = "config.json"
_FREE = {"out", "resume", "root", "seeds"}  # may differ in a resumed run


@contextmanager
def ends_with_message(script: str) -> Iterator[None]:
    """Turns errors of the options or the files into the last line of the command `script`."""
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"{Path(script).name}: {error}")


def open_runs(options: Any, name: str) -> list[RunDir]:
    """The directory of each seed: new ones, or those of the run to resume.

    Args:
      name: of the experiment; new directories are in `runs/<name>`.

    Raises: ValueError for a directory that is not new, is no run, or is a run with other options.
    """
    seeds = range(options.seed, options.seed + getattr(options, "seeds", 1))
    out = options.out if isinstance(options, RunOptions) else None
    if options.resume is None:
        return new_runs(out, name, seeds)
    if out is not None:
        raise ValueError(
            f"--out: expected none beside --resume, got {str(out)!r}; "
            "a resumed run stays in its directory"
        )
    run: Path = options.resume
    files = {seed: (run / f"seed_{seed}" if len(seeds) > 1 else run) / _CONFIG for seed in seeds}
    if not any(file.is_file() for file in files.values()):
        raise ValueError(
            f"--resume: expected the directory of a run, got {str(run)!r}, where there is no "
            f"{next(iter(files.values())).relative_to(run)}; give the one that the run printed"
        )
    for seed, file in files.items():
        _expect_same(replace(options, seed=seed), file)
    return [RunDir(file.parent) for file in files.values()]


def _expect_same(options: Any, file: Path) -> None:
    """Raises a ValueError that names every option that differs from those of the run to resume."""
    if not file.exists():
        return  # of a seed whose run has not begun
    try:
        before = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"--resume: expected the options of the run in {file}, got a damaged file "
            f"({error}); start a new run"
        ) from error
    now = json.loads(json.dumps(asdict(options), default=str))  # with lists for tuples
    names = [n for n in before | now if n not in _FREE and before.get(n, ()) != now.get(n, ())]
    if names:
        raise ValueError(
            f"--resume: expected the options of the run in {str(file.parent)!r}, but these "
            "differ:\n"
            + "\n".join(
                f"  {flag(name)}: expected {typed(before.get(name, 'no such option'))}, "
                f"got {typed(now.get(name, 'no such option'))}"
                for name in names
            )
            + "\ngive the same options again, or start a new run without --resume"
        )


def over_seeds(
    options: AnOptions,
    runs: list[RunDir],
    train: Callable[[AnOptions, RunDir], tuple[float, FitResult]],
) -> int:
    """Trains once for each seed and prints the mean accuracy; returns the exit code.

    Args:
      runs: those of `open_runs`.
      train: trains, tests and reports one seed; returns the fraction of the test part that it
        classifies correctly, and the result of `fit`.
    """
    accuracies: list[float] = []

    def all_seeds() -> int:
        for seed, run in enumerate(runs, start=options.seed):  # type: ignore[attr-defined]
            one = replace(options, seed=seed, seeds=1, out=run.path)  # type: ignore[call-arg]
            run.write_config(asdict(one))
            accuracy, result = train(one, run)
            if code := exit_code(result):
                return code
            accuracies.append(100 * accuracy)
        return 0

    code = resumable(runs[0].path.parent if len(runs) > 1 else runs[0].path, all_seeds)
    if len(accuracies) > 1:
        mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
        print(f"test accuracy over {len(accuracies)} seeds: mean {mean:.2f} %, std {std:.2f} %")
    return code


def resumable(run: Path, train: Callable[[], int], **replaces: Any) -> int:
    """Returns the exit code of `train`; unless it is 0, prints the command that resumes the run.

    Also ends with an exit code after a Ctrl-C outside of `fit`, such as a second one.
    """
    try:
        code = train()
    except KeyboardInterrupt:
        print()  # the terminal has written ^C
        code = 128 + signal.SIGINT
    if code:
        print(f"to resume: {resume_command(run, **replaces)}", flush=True)
    return code


def command(
    main: Callable[[Any], int | None],
    config: type[Options] | dict[str, tuple[str, Any]],
    *,
    resumes: bool = False,
) -> None:
    """Runs `main` with the options of the command line, and exits with its code.

    Args:
      config: the options, or named configurations to start from, each with a description.
      resumes: False for an experiment without `--resume`, which Ctrl-C ends immediately, also
        within a compiled program.
    """
    compile_cache()
    import tyro

    read = tyro.extras.overridable_config_cli if isinstance(config, dict) else tyro.cli
    start(lambda: main(read(config)), resumes=resumes)  # type: ignore[arg-type]


def start(main: Callable[[], int | None], *, resumes: bool) -> None:
    """Runs `main` and exits with its code; no traceback after Ctrl-C. Arguments as in `command`."""
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
