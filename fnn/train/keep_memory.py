"""Memory that stays with the process: a step finds the pages that the last one left."""

import ctypes

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
