"""Dtypes of computations: float32 statistics, int32 indices, NaN for missing values."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree


def at_least_float32(leaf: Any) -> Any:
    """The dtype for sums, moments and statistics of `leaf`: its own, at least float32.

    Raises: ValueError for complex numbers: a cast would drop the imaginary part.

    >>> at_least_float32(jnp.zeros(2, jnp.bfloat16)).name
    'float32'
    """
    dtype = _result_type(leaf)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            f"fnn: expected real numbers, got {dtype.name}; give real and imaginary part as two "
            "arrays, or as two features"
        )
    wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return dtype if wide else jnp.dtype(jnp.float32)


def _result_type(leaf: Any) -> Any:
    """The dtype of a leaf; a weakly typed float, such as a Python number, counts as float32."""
    weak = isinstance(leaf, (int, float)) or getattr(leaf, "weak_type", False)
    dtype = jnp.result_type(leaf)
    return jnp.dtype(jnp.float32) if weak and jnp.issubdtype(dtype, jnp.floating) else dtype


def widest(tree: PyTree) -> Any:
    """The dtype of a scalar computed from all leaves: float64 if one has it, else float32.

    >>> widest({'w': jnp.ones(2, jnp.bfloat16)}).name
    'float32'
    """
    double = any(_result_type(leaf) == jnp.float64 for leaf in jax.tree.leaves(tree))
    return jnp.dtype(jnp.float64 if double else jnp.float32)


def wide(tree: PyTree) -> PyTree:
    """Casts every leaf to at least float32.

    >>> wide({'w': jnp.ones(2, jnp.bfloat16)})['w'].dtype.name
    'float32'
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(at_least_float32(leaf)), tree)


def is_float(leaf: Any) -> bool:
    """Whether a leaf is a floating-point number or array.

    >>> is_float(1.0), is_float(jnp.int32(1)), is_float(jax.random.key(0))
    (True, False, False)
    """
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    """Casts the floating-point leaves of `tree` to `dtype`; integers, bools and keys are kept.

    >>> cast_floats({'w': jnp.ones(1), 'n': jnp.int32(1)}, jnp.bfloat16)['w'].dtype.name
    'bfloat16'
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if is_float(leaf) else leaf, tree)


def indices(ids: Any) -> Int[Array, "..."]:
    """Casts ids, labels or lengths to int32, for index arithmetic that does not wrap around.

    Values outside int32 are clipped to its limits, so they stay out of range.

    >>> indices(jnp.array([3, 2**32 - 1], jnp.uint32)).tolist()
    [3, 2147483647]
    """
    ids = jnp.asarray(ids)
    if ids.dtype.itemsize >= 4 and ids.dtype != jnp.int32:
        own, limits = jnp.iinfo(ids.dtype), jnp.iinfo(jnp.int32)
        ids = jnp.clip(ids, max(own.min, limits.min), limits.max)
    return ids.astype(jnp.int32)


def missing() -> float:
    """The placeholder for a value that was not computed: NaN, or 0 under `jax_debug_nans`.

    The flag is read at trace time.

    >>> missing()
    nan
    """
    return 0.0 if jax.config.jax_debug_nans else math.nan  # type: ignore[attr-defined]
