"""Ctrl-C and SIGTERM as a flag that a loop reads, and how a script passes them on to its shell."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """A context that gives `interrupted() -> int`: the number of the signal received, else 0.

    The first signal sets the flag and restores the former handlers, so that a second one acts
    immediately. Outside the main thread, where Python allows no handlers, the flag is never set.
    """
    received = 0
    former: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in former.items():
            # None: a handler that was not installed by Python, which cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        former.clear()

    def handle(number, frame) -> None:
        nonlocal received
        received = number
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, handle)
    try:
        yield lambda: received
    finally:
        restore()


class Interruptible(Protocol):
    """A result that knows which signal arrived while it was computed: of `fit` or of `sweep`."""

    @property
    def signal(self) -> int:
        """The signal's number; 0 for none."""
        ...


def exit_code(result: Interruptible) -> int:
    """Exit code of a script by the shell's convention: 128 + signal if interrupted, else 0.

    130 after Ctrl-C (SIGINT) and 143 after SIGTERM, so that shells and schedulers can tell an
    interrupted run from a completed one. A script that takes `--resume RUN` ends with

        if result.signal:
            print("resume with:", resume_command(store.path))
        sys.exit(exit_code(result))

    Args:
      result: of `fit` or of `sweep`.

    >>> from types import SimpleNamespace
    >>> exit_code(SimpleNamespace(signal=0)), exit_code(SimpleNamespace(signal=signal.SIGINT))
    (0, 130)
    """
    return 128 + result.signal if result.signal else 0


def resume_command(
    run: str | Path,
    command: Sequence[str] | None = None,
    *,
    replaces: Sequence[str] = ("--out", "--resume"),
) -> str:
    """The command of this process with `--resume RUN` appended, quoted for a shell.

    All its options are repeated, except those of `replaces`.

    Args:
      run: directory of the interrupted run.
      command: the command to repeat, as a list of words; None for the one of this process.
      replaces: options, each with one value, that `--resume` stands for.

    >>> resume_command('runs/a b', ['python', 'digits.py', '--lr', '0.01', '--out', 'runs/a b'])
    "python digits.py --lr 0.01 --resume 'runs/a b'"
    """
    words = list(_own_command() if command is None else command)
    kept: list[str] = []
    while words:
        word = words.pop(0)
        if word in replaces:
            del words[:1]
        elif word.partition("=")[0] not in replaces:
            kept.append(word)
    return shlex.join([*kept, "--resume", str(run)])


def _own_command() -> list[str]:
    """The command as it was typed: with the interpreter and its options, or `-m`."""
    typed, own = sys.orig_argv, sys.argv[1:]
    if typed[len(typed) - len(own) :] == own:
        return typed
    return [sys.executable, *sys.argv]  # called from another program, which set sys.argv
