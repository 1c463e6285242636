"""Parameters as safetensors files, the format that checkpoints on the web have.

The names in the file are the paths of the leaves, with '.' for '/', as torch's are. A run's own
checkpoints, with checksums, are `fnn.checkpoint`'s.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.expect import expect_alike


def write(path: str | Path, values: PyTree, meta: Mapping[str, str] | None = None) -> None:
    """Write a tree of arrays: parameters, or a dict by torch's names.

    Args:
      meta: strings by name, in the head of the file.

    Raises: ValueError for two leaves of one name, as {'a': {'b': ...}, 'a.b': ...} has them.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'model.safetensors'
    >>> write(path, {'layers': [{'bias': jnp.arange(2.0)}]})
    >>> {name: array.tolist() for name, array in read(path).items()}
    {'layers.0.bias': [0.0, 1.0]}
    """
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    for name, leaf in zip(_names(values), jax.tree.leaves(values), strict=True):
        if name in arrays:
            raise ValueError(
                f"safetensors.write: expected every leaf to have a name of its own, got two "
                f"{name!r}; rename the one whose key holds a '.'"
            )
        arrays[name] = np.ascontiguousarray(leaf).reshape(np.shape(leaf))  # not (1,) for ()
    save_file(arrays, path, metadata=dict(meta) if meta else None)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file, by name; what a conversion's `to_fnn` takes.

    Raises: ValueError for a file that is damaged, or of another format.

    >>> read(__file__)
    Traceback (most recent call last):
        ...
    ValueError: safetensors.read: expected a safetensors file at ...
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"safetensors.read: expected a safetensors file at {path}, got one that is damaged or "
            f"of another format ({error}); fetch it again"
        ) from error


def load(path: str | Path, like: PyTree) -> PyTree:
    """Read what `write` wrote, into the structure of `like`.

    Args:
      like: a tree of arrays or ShapeDtypeStructs; shapes and dtypes must be those in the file.

    Raises: ValueError that lists every missing, extra and differing leaf.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'model.safetensors'
    >>> write(path, {'w': jnp.ones(2)})
    >>> load(path, {'w': jax.ShapeDtypeStruct((2,), jnp.float32)})['w'].tolist()
    [1.0, 1.0]
    """
    arrays: dict[str, Any] = read(path)
    wanted = dict(zip(_names(like), jax.tree.leaves(like), strict=True))
    expect_alike(f"safetensors.load: the model and {path}", wanted, arrays, dtypes=True)
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _names(values: PyTree) -> list[str]:
    return [path.replace("/", ".") for path in tree.paths(values)]
