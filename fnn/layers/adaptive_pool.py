"""Pooling to a given number of outputs, whatever the number of inputs."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn.layers.axes import Sizes, sizes_over
from fnn.layers.pool import first_maximum
from fnn.layers.resize import map_axes


def adaptive_average_pool(
    x: Float[Array, "batch *sizes features"], places: Sizes
) -> Float[Array, "batch *places features"]:
    """Averages over `places` windows along each axis, which cover it evenly.

    Window i of m over n entries reaches from floor(i n / m) to ceil((i + 1) n / m).

    Args:
      places: how many outputs along each window axis; (7, 7) for images.

    Returns: (batch, *places, features) in the dtype of x.
    Raises: ValueError if `places` does not fit the axes of x.
    Source: as PyTorch's AdaptiveAvgPool; the idea of He et al. 2014, arXiv:1406.4729.

    >>> adaptive_average_pool(jnp.arange(5.0).reshape(1, 5, 1), (2,)).ravel().tolist()
    [1.0, 3.0]
    """
    counts = sizes_over("adaptive_average_pool", "places", places, x)
    return map_axes(x, [_averages(n, m) for n, m in zip(x.shape[1:-1], counts, strict=True)])


def adaptive_max_pool(
    x: Float[Array, "batch *sizes features"], places: Sizes
) -> Float[Array, "batch *places features"]:
    """Maxima over the windows of `adaptive_average_pool`.

    Args:
      places: how many outputs along each window axis; (7, 7) for images.

    Returns: (batch, *places, features); of equal entries the first has the gradient.
    Raises: ValueError if `places` does not fit the axes of x.

    >>> adaptive_max_pool(jnp.arange(5.0).reshape(1, 5, 1), (2,)).ravel().tolist()
    [2.0, 4.0]
    """
    counts = sizes_over("adaptive_max_pool", "places", places, x)
    # The last axis first, as in `max_pool`: of equal entries, the first in row-major order wins.
    for axis in reversed(range(1, x.ndim - 1)):
        first, last = _bounds(x.shape[axis], counts[axis - 1])
        # Windows shorter than the longest repeat their last entry, which changes no maximum.
        offsets = np.arange((last - first).max())[:, None]
        entries = jnp.take(x, np.minimum(first + offsets, last - 1), axis=axis)
        x = functools.reduce(first_maximum, jnp.unstack(entries, axis=axis))
    return x


def _bounds(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(m)
    return i * n // m, -(-(i + 1) * n // m)


def _averages(n: int, m: int) -> np.ndarray:
    """The (n, m) matrix that takes n entries to their m averages."""
    first, last = _bounds(n, m)
    entry = np.arange(n)[:, None]
    inside = (entry >= first) & (entry < last)
    return inside / (last - first)
