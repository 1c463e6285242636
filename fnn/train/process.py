"""The process: interrupts and the exit code, the compilation cache, the allocator."""

import ctypes
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import jax


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """A context whose value is `interrupted() -> int`: the signal received, else 0.

    The first SIGINT or SIGTERM sets it and restores the former handlers, so that a second one acts
    immediately. Outside the main thread, where Python allows no handlers, it stays 0.
    """
    received = 0
    former: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in former.items():
            # None: a handler that was not installed from Python, which cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        former.clear()

    def handle(number: int, frame: FrameType | None) -> None:
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
    """A result that knows the signal received during its computation: of `fit` or `sweep`."""

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
      command: the command to repeat, as a list of words; None for that of this process.
      replaces: options, each with one value, that `--resume` replaces.

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
    """The command as typed: with the interpreter and its options, or `-m`."""
    typed, own = sys.orig_argv, sys.argv[1:]
    if typed[len(typed) - len(own) :] == own:
        return typed
    return [sys.executable, *sys.argv]  # called from another program, which set sys.argv


def compile_cache(path: str | Path | None = None) -> Path | None:
    """Caches in a directory all programs that JAX compiles from here on, across processes.

    Call it before the first computation, in the `main` of a script. The cache finds a program again
    if it, its shapes, JAX's version and flags, and the device are the same; values of arguments,
    such as hyperparameters, do not matter.

    Args:
      path: the directory, created if missing; None for the environment variable FNN_CACHE, else
        `fnn/compiled` in the user's cache. It grows without bound and can be deleted at any time.

    Returns: the directory; None, without a cache, if the user's cache is not writable.
    Raises: ValueError if another directory that was asked for is not writable.

    >>> compile_cache('/dev/null/nowhere')
    Traceback (most recent call last):
        ...
    ValueError: compile_cache: expected a directory that can be written to, got ...
    """
    asked = path or os.environ.get("FNN_CACHE")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = Path(asked or user_cache / "fnn" / "compiled")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK)
        reason = "no permission"
    except OSError as error:
        writable, reason = False, str(error.strerror)
    if not writable and not asked:
        return None
    if not writable:
        raise ValueError(
            f"compile_cache: expected a directory that can be written to, got {str(directory)!r} "
            f"({reason}); give another path, or set FNN_CACHE"
        )
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # JAX's default caches only programs that took a second to compile.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return directory


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameter numbers in glibc's malloc.h


def keep_memory() -> bool:
    """Makes the C library keep freed memory of this process for later allocations.

    A compiled program on a CPU allocates one block for all its temporary arrays and frees it when
    it ends. By default glibc returns a block above 32 MiB to the system, which must map and clear
    its pages again for the next call. Call `keep_memory` once, in the `main` of a script, before
    the first computation; it affects all libraries in the process.

    It helps loops over `make_step`: `fit`, `make_run` and `sweep` reuse their temporaries from step
    to step. Blocks above 64 MiB (glibc's limit for a thread's heap) are still returned. The price
    is memory that other processes cannot use until this one ends. Device memory is unaffected.

    Returns: whether the C library accepted the settings; False where it is not glibc (macOS,
      Windows, musl).
    Source: M_MMAP_MAX and M_TRIM_THRESHOLD in mallopt(3) of the Linux manual.

    >>> import subprocess, sys  # the setting is for a process; this one keeps its own
    >>> program = 'from fnn.train import keep_memory; print(keep_memory() in (True, False))'
    >>> subprocess.run([sys.executable, '-c', program], capture_output=True, text=True).stdout
    'True\\n'
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - glibc only
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    never = -1  # trim: the largest size_t
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, never))
