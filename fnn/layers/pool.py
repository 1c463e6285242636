"""Pooling over windows, over all positions, and to a given output size."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.layers._axes import Size, Sizes, between, sizes_over
from fnn.layers._window import Padding, Pairs, Window, extend, make_window, views
from fnn.layers.resize import map_axes


def max_pool(
    x: Float[Array, "batch *sizes features"],
    window: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Float[Array, "batch *places features"]:
    """The largest entry of each window, for each feature.

    Args:
      window: its size along each window axis; (2, 2) for images.
      stride: distance between neighboring windows; None means the window's size.
      padding: a `Padding` or explicit pairs, each below the window; what is added counts as minus
        infinity.

    Returns: (batch, *places, features). Of equal entries the first in row-major order has the
      gradient, as in PyTorch; NaN wins over every number.
    Raises: ValueError if the window or the padding does not fit x.

    >>> max_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), (2,)).ravel().tolist()
    [3.0, 2.0]
    """
    sliding = make_window("max_pool", x, window, window if stride is None else stride, 1)
    x, _ = _padded("max_pool", x, sliding, padding, -jnp.inf)
    return _slide(first_maximum, x, sliding)


def sum_pool(
    x: Float[Array, "batch *sizes features"],
    window: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Float[Array, "batch *places features"]:
    """The sum of each window, for each feature, taken in at least float32.

    Args:
      window, stride, padding: as in `max_pool`; what SAME, CAUSAL and pairs add counts as 0.

    Returns: (batch, *places, features) in the dtype of x.
    Raises: ValueError if the window or the padding does not fit x.

    >>> sum_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), (3,), stride=1).ravel().tolist()
    [6.0, 5.0]
    """
    sliding = make_window("sum_pool", x, window, window if stride is None else stride, 1)
    wide, _ = _padded("sum_pool", x.astype(at_least_float32(x)), sliding, padding, 0)
    return _slide(jnp.add, wide, sliding).astype(x.dtype)


def average_pool(
    x: Float[Array, "batch *sizes features"],
    window: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Float[Array, "batch *places features"]:
    """The average of each window, for each feature, taken in at least float32.

    Args:
      window, stride, padding: as in `max_pool`. Zeros that the padding adds are not counted: a
        window over the edge is the average of what it has inside. CIRCULAR and REFLECT add
        entries of x, which count.

    Returns: (batch, *places, features) in the dtype of x. PyTorch's count_include_pad=False;
      its default, True, divides by the window's size everywhere, as `sum_pool` would.
    Raises: ValueError if the window or the padding does not fit x.

    >>> x = jnp.array([2.0, 4.0]).reshape(1, 2, 1)
    >>> average_pool(x, (3,), stride=1, padding=Padding.SAME).ravel().tolist()
    [3.0, 3.0]
    """
    sliding = make_window("average_pool", x, window, window if stride is None else stride, 1)
    wide, pairs = _padded("average_pool", x.astype(at_least_float32(x)), sliding, padding, 0)
    total = _slide(jnp.add, wide, sliding)
    return (total / jnp.asarray(_counts(wide.shape[1:-1], sliding, pairs), wide.dtype)).astype(
        x.dtype
    )


def global_max_pool(
    x: Float[Array, "batch *sizes features"], *, ndim: int | None = None
) -> Float[Array, "batch features"]:
    """The largest entry of each feature; equal ones share the gradient.

    Args:
      ndim: how many axes there are to pool over, 2 for images; None takes any number.

    Raises: ValueError for another number of axes, or none.

    >>> global_max_pool(jnp.array([[[1.0], [3.0]]])).tolist()
    [[3.0]]
    """
    return x.max(axis=between("global_max_pool", x, ndim))


def global_average_pool(
    x: Float[Array, "batch *sizes features"], *, ndim: int | None = None
) -> Float[Array, "batch features"]:
    """The average of each feature, taken in at least float32.

    Args:
      ndim: how many axes there are to pool over, 2 for images; None takes any number.

    Raises: ValueError for another number of axes, or none.
    Source: Lin, Chen & Yan 2014, arXiv:1312.4400, section 3.2.

    >>> global_average_pool(jnp.array([[[1.0], [3.0]]])).tolist()
    [[2.0]]
    """
    axes = between("global_average_pool", x, ndim)
    return x.astype(at_least_float32(x)).mean(axis=axes).astype(x.dtype)


def first_maximum(a: Array, b: Array) -> Array:
    """The larger of the two, a if they are equal; its gradient goes to one of them, whole.

    >>> first_maximum(jnp.array([1.0, 2.0]), jnp.array([3.0, jnp.nan])).tolist()
    [3.0, nan]
    """
    return jnp.where((b > a) | (b != b), b, a)


def _padded(
    where: str,
    x: Array,
    window: Window,
    padding: Padding | Sequence[tuple[int, int]],
    fill: float,
) -> tuple[Array, Pairs]:
    x, pairs = extend(where, x, window, padding)
    if any(max(pair) >= n for pair, n in zip(pairs, window.shape, strict=True)):
        raise ValueError(
            f"{where}: expected padding below the window {window.shape}, got {pairs}; a window "
            "that lies outside altogether has nothing to pool"
        )
    edges = [(0, 0, 0), *((before, after, 0) for before, after in pairs), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), edges), pairs


def _slide(pair: Callable[[Array, Array], Array], x: Array, window: Window) -> Array:
    for step in _passes(window):
        x = functools.reduce(pair, views(x, step))
    return x


def _passes(window: Window) -> Iterator[Window]:
    # Maxima and sums may be taken one axis after another, which is less work; for small windows a
    # single pass is quicker (measured on a CPU). The last axis comes first: of equal entries, the
    # first in row-major order is then kept either way.
    axes = len(window.shape)
    if math.prod(window.shape) <= 4:
        yield window
        return
    ones = (1,) * axes
    for axis in reversed(range(axes)):
        size, stride = list(ones), list(ones)
        size[axis], stride[axis] = window.shape[axis], window.stride[axis]
        yield Window(shape=tuple(size), stride=tuple(stride), dilation=ones)


def _counts(sizes: Sequence[int], window: Window, pairs: Pairs) -> np.ndarray:
    """How many entries each window has that are not padding; (1, *places, 1)."""
    counts = np.ones((1,) * (len(sizes) + 2))
    for axis, (size, n, stride, (before, after)) in enumerate(
        zip(sizes, window.shape, window.stride, pairs, strict=True), start=1
    ):
        starts = np.arange(0, size - n + 1, stride)
        inside = np.minimum(starts + n, size - max(after, 0)) - np.maximum(starts, max(before, 0))
        counts = counts * np.expand_dims(inside, [a for a in range(counts.ndim) if a != axis])
    return counts


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
