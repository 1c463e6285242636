"""Settings of the process: the compilation cache and the allocator."""

import ctypes
import os
from pathlib import Path

import jax


def compile_cache(path: str | Path | None = None) -> Path | None:
    """Keep all that JAX compiles from here on in a directory, and look there first.

    Call it before the first computation, in the `main` of a script. A program is found again if it,
    its shapes, JAX's version and flags, and the device are the same: other hyperparameters do not
    matter, where they are arguments.

    Args:
      path: the directory, made if it is not there. Without one it is that of the environment
        variable FNN_CACHE, else `fnn/compiled` in the user's cache. It grows without bound; to
        delete it costs nothing but time.

    Returns: the directory; None, and nothing is kept, if the user's cache cannot be written to.
    Raises: ValueError if another directory, which was asked for, cannot be written to.

    >>> compile_cache('/dev/null/nowhere')
    Traceback (most recent call last):
        ...
    ValueError: compile_cache: expected a directory that can be written to, got ...
    """
    asked = path or os.environ.get("FNN_CACHE")
    directory = Path(asked or _of_the_user())
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
    # JAX keeps only what took a second to compile; a small model is many programs that take less.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return directory


def _of_the_user() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fnn" / "compiled"


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of the parameters, from malloc.h of glibc


def keep_memory() -> bool:
    """Ask the C library to keep what this process frees, for its next allocation.

    A compiled program on a CPU takes one block for all its temporary arrays and gives it back when
    it ends. The C library hands a block of more than 32 MiB back to the system, which maps and
    clears every page of the next one anew: a quarter of the time of a step of 35 ms whose
    temporaries take 45 MiB. After this call such blocks stay. Call it once, in the `main` of a
    script, before the first computation; what other libraries free in the process stays as well.

    It is for loops over `make_step`: `fit`, `make_run` and `sweep` keep their temporaries from step
    to step, and gain a few percent. Blocks of more than 64 MiB, the most that the C library takes
    from a thread's own heap, are handed back as before. The price is memory that other processes
    cannot have until this one ends. Memory of an accelerator is not concerned.

    Returns: whether the C library took the settings; False, and nothing changes, where it is
      another than glibc (macOS, Windows, musl).
    Source: M_MMAP_MAX and M_TRIM_THRESHOLD in mallopt(3) of the Linux manual.

    >>> import subprocess, sys  # the setting is for a process; this one keeps its own
    >>> program = 'from fnn.train import keep_memory; print(keep_memory() in (True, False))'
    >>> subprocess.run([sys.executable, '-c', program], capture_output=True, text=True).stdout
    'True\\n'
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - what only glibc has
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    never = -1  # of trimming: the largest size there is
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, never))
