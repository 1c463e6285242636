"""Compiled programs on disk, so that the second start of a script compiles nothing."""

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
