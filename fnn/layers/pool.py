"""Pooling over windows, over all positions, and to a given output size."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fnn.autodiff import linear_call
from fnn.dtypes import at_least_float32
from fnn.layers._axes import Size, Sizes, sizes_for, window_axes
from fnn.layers._window import (
    Padding,
    Pairs,
    Window,
    make_window,
    pad_copies,
    pad_with,
    window_slices,
)
from fnn.layers.resize import map_axes


def max_pool(
    x: Float[Array, "batch *sizes features"],
    kernel_size: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "batch *out_sizes features"]:
    """The maximum of each window, for each feature.

    Args:
      kernel_size: of the window, along each window axis; (2, 2) for images.
      stride: distance between neighboring windows; kernel_size if None.
      padding: as in `conv`, pairs below kernel_size; padded entries count as minus infinity.

    Returns: (batch, *out_sizes, features). Of equal entries the first in row-major order has the
      gradient, as in PyTorch; NaN propagates.
    Raises: ValueError if the window or the padding does not fit x.

    >>> max_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), (2,)).ravel().tolist()
    [3.0, 2.0]
    """
    window, x, pairs = _window_of("max_pool", x, kernel_size, stride, padding)
    return _maxima(x, window, pairs)


def sum_pool(
    x: Float[Array, "batch *sizes features"],
    kernel_size: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "batch *out_sizes features"]:
    """The sum of each window, for each feature, taken in at least float32.

    Args:
      kernel_size, stride, padding: as in `max_pool`; zeros that the padding adds count as 0.

    Returns: (batch, *out_sizes, features) in the dtype of x.
    Raises: ValueError if the window or the padding does not fit x.

    >>> sum_pool(jnp.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 4, 1), (3,), stride=1).ravel().tolist()
    [6.0, 5.0]
    """
    wide = x.astype(at_least_float32(x))
    window, wide, _ = _padded("sum_pool", wide, kernel_size, stride, padding)
    return _reduce_windows(jnp.add, wide, window).astype(x.dtype)


def average_pool(
    x: Float[Array, "batch *sizes features"],
    kernel_size: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "batch *out_sizes features"]:
    """The average of each window, for each feature, taken in at least float32.

    Args:
      kernel_size, stride, padding: as in `max_pool`. Zeros that the padding adds are not counted:
        a window over the edge is averaged over its entries of x. 'CIRCULAR' and 'REFLECT' add
        entries of x, which count.

    Returns: (batch, *out_sizes, features) in the dtype of x. PyTorch's count_include_pad=False;
      its default, True, divides by the size of the window everywhere.
    Raises: ValueError if the window or the padding does not fit x.

    >>> x = jnp.array([2.0, 4.0]).reshape(1, 2, 1)
    >>> average_pool(x, (3,), stride=1, padding='SAME').ravel().tolist()
    [3.0, 3.0]
    """
    wide = x.astype(at_least_float32(x))
    window, wide, pairs = _padded("average_pool", wide, kernel_size, stride, padding)
    counts = jnp.asarray(_counts(wide.shape[1:-1], window, pairs), wide.dtype)
    return (_reduce_windows(jnp.add, wide, window) / counts).astype(x.dtype)


def global_max_pool(
    x: Float[Array, "batch *sizes features"], *, ndim: int | None = None
) -> Float[Array, "batch features"]:
    """The maximum of each feature over all window axes; equal entries share the gradient.

    Args:
      ndim: number of axes to pool over, 2 for images; None takes any number.

    Raises: ValueError for another number of axes, or none.

    >>> global_max_pool(jnp.array([[[1.0], [3.0]]])).tolist()
    [[3.0]]
    """
    return x.max(axis=window_axes("global_max_pool", x, ndim))


def global_average_pool(
    x: Float[Array, "batch *sizes features"], *, ndim: int | None = None
) -> Float[Array, "batch features"]:
    """The average of each feature over all window axes, taken in at least float32.

    Args:
      ndim: number of axes to pool over, 2 for images; None takes any number.

    Raises: ValueError for another number of axes, or none.
    Source: Lin, Chen & Yan 2014, arXiv:1312.4400, section 3.2.

    >>> global_average_pool(jnp.array([[[1.0], [3.0]]])).tolist()
    [[2.0]]
    """
    axes = window_axes("global_average_pool", x, ndim)
    return x.astype(at_least_float32(x)).mean(axis=axes).astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _maxima(x: Array, window: Window, pairs: Pairs) -> Array:
    return _reduce_windows(_first_maximum, pad_with(x, pairs, -jnp.inf), window)


@_maxima.defjvp
def _maxima_jvp(window: Window, pairs: Pairs, primals: Any, tangents: Any) -> tuple[Array, Array]:
    # From x, which the layer before saves anyway, rather than from a mask for each comparison.
    there, back = _linear_maxima(window, pairs)
    return _maxima(*primals, window, pairs), linear_call(there, back, *primals, *tangents)


@functools.cache  # because JAX's compilation cache is keyed by the identity of the functions
def _linear_maxima(window: Window, pairs: Pairs) -> tuple[Callable[..., Array], ...]:
    """The derivative of `_maxima` at x, and its transpose."""

    def maxima(x: Array) -> Array:
        return _reduce_windows(_first_maximum, pad_with(x, pairs, -jnp.inf), window)

    def there(x: Array, dx: Array) -> Array:
        return jax.jvp(maxima, (x,), (dx,))[1]

    def back(x: Array, dy: Array) -> Array:
        # Behind a barrier, or XLA would find the comparisons of the forward pass and keep those.
        x, dy = lax.optimization_barrier((x, dy))
        return jax.vjp(maxima, x)[1](dy)[0]

    return there, back


def _first_maximum(a: Array, b: Array) -> Array:
    """The larger of the two, a if they are equal; the whole gradient goes to one of them."""
    return jnp.where((b > a) | (b != b), b, a)


def _padded(
    where: str,
    x: Array,
    kernel_size: Sizes,
    stride: Size | None,
    padding: Padding,
) -> tuple[Window, Array, Pairs]:
    """The window, x padded for it with zeros, and their number before and after."""
    window, x, pairs = _window_of(where, x, kernel_size, stride, padding)
    return window, pad_with(x, pairs), pairs


def _window_of(
    where: str, x: Array, kernel_size: Sizes, stride: Size | None, padding: Padding
) -> tuple[Window, Array, Pairs]:
    """The window, x padded with copies of its entries, and the fills still to add."""
    window = make_window(where, x, kernel_size, kernel_size if stride is None else stride, 1)
    x, pairs = pad_copies(where, x, window, padding)
    if any(max(pair) >= n for pair, n in zip(pairs, window.shape, strict=True)):
        raise ValueError(
            f"{where}: expected padding below the window {window.shape}, got {pairs}; a window "
            "of padding alone has nothing to pool"
        )
    return window, x, pairs


def _reduce_windows(pair: Callable[[Array, Array], Array], x: Array, window: Window) -> Array:
    for step in _passes(window):
        x = functools.reduce(pair, window_slices(x, step))
    return x


def _passes(window: Window) -> Iterator[Window]:
    # Maxima and sums separate over axes, which is less work; for small windows a single pass is
    # faster on a CPU. The last axis comes first, so that of equal entries the first in row-major
    # order is kept either way.
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
    """The number of entries of each window that are not padding; (1, *out_sizes, 1)."""
    counts = np.ones((1,) * (len(sizes) + 2))
    for axis, (size, n, stride, (before, after)) in enumerate(
        zip(sizes, window.shape, window.stride, pairs, strict=True), start=1
    ):
        starts = np.arange(0, size - n + 1, stride)
        inside = np.minimum(starts + n, size - max(after, 0)) - np.maximum(starts, max(before, 0))
        counts = counts * np.expand_dims(inside, [a for a in range(counts.ndim) if a != axis])
    return counts


def adaptive_average_pool(
    x: Float[Array, "batch *sizes features"], output_size: Sizes
) -> Float[Array, "batch *out_sizes features"]:
    """Averages over `output_size` windows along each axis, which cover it evenly.

    Window i of m over n entries reaches from floor(i n / m) to ceil((i + 1) n / m).

    Args:
      output_size: along each window axis; (7, 7) for images.

    Returns: (batch, *out_sizes, features) in the dtype of x.
    Raises: ValueError if `output_size` does not fit the axes of x.
    Source: as PyTorch's AdaptiveAvgPool; the idea of He et al. 2014, arXiv:1406.4729.

    >>> adaptive_average_pool(jnp.arange(5.0).reshape(1, 5, 1), (2,)).ravel().tolist()
    [1.0, 3.0]
    """
    sizes = sizes_for("adaptive_average_pool", output_size, x)
    return map_axes(x, [_averages(n, m) for n, m in zip(x.shape[1:-1], sizes, strict=True)])


def adaptive_max_pool(
    x: Float[Array, "batch *sizes features"], output_size: Sizes
) -> Float[Array, "batch *out_sizes features"]:
    """Maxima over the windows of `adaptive_average_pool`.

    Args:
      output_size: along each window axis; (7, 7) for images.

    Returns: (batch, *output_size, features); of equal entries the first has the gradient.
    Raises: ValueError if `output_size` does not fit the axes of x.

    >>> adaptive_max_pool(jnp.arange(5.0).reshape(1, 5, 1), (2,)).ravel().tolist()
    [2.0, 4.0]
    """
    sizes = sizes_for("adaptive_max_pool", output_size, x)
    # The last axis first, as in `_passes`.
    for axis in reversed(range(1, x.ndim - 1)):
        first, last = _bounds(x.shape[axis], sizes[axis - 1])
        # Windows shorter than the longest repeat their last entry, which changes no maximum.
        offsets = np.arange((last - first).max())[:, None]
        entries = jnp.take(x, np.minimum(first + offsets, last - 1), axis=axis)
        x = functools.reduce(_first_maximum, jnp.unstack(entries, axis=axis))
    return x


def _bounds(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(m)
    return i * n // m, -(-(i + 1) * n // m)


def _averages(n: int, m: int) -> np.ndarray:
    """The (n, m) matrix of the m averages over n entries."""
    first, last = _bounds(n, m)
    entry = np.arange(n)[:, None]
    inside = (entry >= first) & (entry < last)
    return inside / (last - first)
