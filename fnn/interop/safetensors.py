"""Parameters as safetensors files, the usual format of published weights.

The names in the file are the paths of the leaves with '.' for '/', as in torch. For checkpoints of
a run, with checksums, see `fnn.checkpoint`.
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
    """Write a tree of arrays: parameters, or a state dict.

    Args:
      meta: strings by name, for the header.

    Raises: ValueError for two leaves of one name, as in {'a': {'b': ...}, 'a.b': ...}, and for a
      dtype that the format lacks, such as int4.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'model.safetensors'
    >>> write(path, {'layers': [{'bias': jnp.arange(2.0)}]})
    >>> {name: array.tolist() for name, array in read(path).items()}
    {'layers.0.bias': [0.0, 1.0]}
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    for name, leaf in zip(_names(values), jax.tree.leaves(values), strict=True):
        if name in arrays:
            raise ValueError(
                f"safetensors.write: expected a unique name for every leaf, got two "
                f"{name!r}; rename the one whose key has a '.'"
            )
        arrays[name] = np.ascontiguousarray(leaf).reshape(np.shape(leaf))  # not (1,) for ()
    try:
        save_file(arrays, path, metadata=dict(meta) if meta else None)
    except SafetensorError as error:
        raise ValueError(
            "safetensors.write: expected dtypes that the format supports, got "
            f"{sorted({array.dtype.name for array in arrays.values()})} ({error}); convert them, "
            "or use fnn.checkpoint"
        ) from error


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name: a state dict for a conversion's `to_fnn`.

    Raises: ValueError for a file that is damaged, of another format, or of a dtype that NumPy and
      JAX lack.

    >>> read(__file__)
    Traceback (most recent call last):
        ...
    ValueError: safetensors.read: expected a safetensors file at ...
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        try:
            return load_file(path)
        except AttributeError:  # a dtype that only JAX has
            return _narrow(Path(path).read_bytes())
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, OSError) as error:  # OSError: of a directory
        raise ValueError(
            f"safetensors.read: expected a safetensors file at {path}, got one that is damaged or "
            f"of another format ({error}); fetch it again"
        ) from error


_NARROW = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


def _narrow(content: bytes) -> dict[str, np.ndarray]:
    from safetensors import deserialize
    from safetensors.numpy import _TYPES

    dtypes: dict[str, Any] = {**_TYPES, **{name: jnp.dtype(ours) for name, ours in _NARROW.items()}}
    return {
        name: np.frombuffer(found["data"], dtypes[found["dtype"]]).reshape(found["shape"])
        for name, found in deserialize(content)
    }


def load(path: str | Path, like: PyTree) -> PyTree:
    """Read a file of `write` into the structure of `like`.

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
