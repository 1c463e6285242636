"""Convolution on a CPU, written so that XLA compiles its value and its gradients well.

XLA's quick convolution for CPUs takes its axes in one order. Outside loops the compiler brings
every convolution into that order; inside a loop, such as a scan of training steps, it does not
(jax-ml/jax#12868), and the derivatives that JAX makes of a convolution have other orders: there
they take up to a hundred times as long. So the two gradients are written here as convolutions in
the quick order. Where XLA has no quick convolution at all, products of matrices take its place.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.autodiff import apply_transpose, varying_like
from fnn.dtypes import at_least_float32
from fnn.layers._window import Pairs, Window, output_sizes, views
from fnn.layers._winograd import winograd, winograd_kernel_gradient
from fnn.xla import is_symbolic

# Measured: a larger buffer is fetched from the system anew at every step, which costs more than
# the product that it is made for; and narrower products than this are slow.
_BUFFER_BYTES = 16 * 2**20
_COLUMNS = 128

# Measured: the sums that make a kernel's gradient are two to four times as quick when they run
# over about so many entries at a time, but not over fewer examples than these.
_ENTRIES = 2048
_EXAMPLES = 8

_THREE = Window(shape=(3, 3), stride=(1, 1), dilation=(1, 1))
_WASTE, _TILES, _FEATURES = 1.4, 32, 32


def convolve_on_cpu(window: Window, zeros: Pairs, groups: int, x: Array, kernel: Array) -> Array:
    """`convolve` for a CPU.

    >>> window = Window(shape=(2,), stride=(1,), dilation=(1,))
    >>> x, kernel = jnp.arange(3.0).reshape(1, 3, 1), jnp.ones((2, 1, 1))
    >>> convolve_on_cpu(window, ((0, 0),), 1, x, kernel).ravel().tolist()
    [1.0, 3.0]
    """

    def dense(x: Array, kernel: Array) -> Array:
        quick = _xla_is_quick(window, zeros, x.shape[1:-1], *kernel.shape[-2:])
        return (_convolve if quick else _by_products)(window, zeros, x, kernel)

    if _is_depthwise(groups, kernel.shape[-2]):
        return _depthwise(window, zeros, x, kernel)
    return _in_groups(dense, groups, x, kernel)


def input_gradient_on_cpu(
    window: Window, zeros: Pairs, groups: int, sizes: tuple[int, ...], g: Array, kernel: Array
) -> Array:
    """The gradient of `convolve_on_cpu` by x of the given sizes, for the gradient g by its output.

    >>> window = Window(shape=(2,), stride=(1,), dilation=(1,))
    >>> g, kernel = jnp.ones((1, 2, 1)), jnp.ones((2, 1, 1))
    >>> input_gradient_on_cpu(window, ((0, 0),), 1, (3,), g, kernel).ravel().tolist()
    [1.0, 2.0, 1.0]
    """

    def dense(g: Array, kernel: Array) -> Array:
        if _xla_is_quick(window, zeros, sizes, *kernel.shape[-2:]):
            return _input_gradient(window, zeros, sizes, g, kernel)
        return transposed(_by_products, g, kernel)

    def transposed(convolution: Callable, g: Array, kernel: Array, groups: int = 1) -> Array:
        shape = (g.shape[0], *sizes, kernel.shape[-2] * groups)
        by_input = functools.partial(convolution, window, zeros, kernel=kernel)
        return apply_transpose(by_input, shape, g, kernel)

    if _is_depthwise(groups, kernel.shape[-2]):
        return transposed(_depthwise, g, kernel, groups)
    return _in_groups(dense, groups, g, kernel)


def kernel_gradient_on_cpu(window: Window, zeros: Pairs, groups: int, x: Array, g: Array) -> Array:
    """The gradient of `convolve_on_cpu` by the kernel, for the gradient g by its output.

    >>> window = Window(shape=(2,), stride=(1,), dilation=(1,))
    >>> x, g = jnp.arange(3.0).reshape(1, 3, 1), jnp.ones((1, 2, 1))
    >>> kernel_gradient_on_cpu(window, ((0, 0),), 1, x, g).ravel().tolist()
    [1.0, 3.0]
    """

    def dense(x: Array, g: Array) -> Array:
        if _xla_is_quick(window, zeros, x.shape[1:-1], x.shape[-1], g.shape[-1]):
            return _kernel_gradient(window, zeros, x, g)
        return transposed(_by_products, x, g)

    def transposed(convolution: Callable, x: Array, g: Array, groups: int = 1) -> Array:
        shape = (*window.shape, x.shape[-1] // groups, g.shape[-1])
        return apply_transpose(functools.partial(convolution, window, zeros, x), shape, g, x)

    if _is_depthwise(groups, x.shape[-1] // groups):
        return transposed(_depthwise, x, g, groups)
    return _in_groups(dense, groups, x, g)


def _is_depthwise(groups: int, in_features: int) -> bool:
    return groups > 1 and in_features == 1


def _in_groups(dense: Callable[[Array, Array], Array], groups: int, a: Array, b: Array) -> Array:
    """`dense` of each group of features, which come last in x, kernel and g."""
    if groups == 1:
        return dense(a, b)
    a, b = (x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups) for x in (a, b))
    y = jax.vmap(dense, in_axes=-2, out_axes=-2)(a, b)
    return lax.collapse(y, y.ndim - 2)


def _xla_is_quick(
    window: Window, zeros: Pairs, sizes: tuple[int, ...], in_features: int, out_features: int
) -> bool:
    # Measured, value and gradients together. With three window axes products are quicker by a
    # factor of 8; with few but oddly many features (the three colors) by 1.1 to 3; and where a
    # kernel does not fit in the unpadded input, its own or that of a gradient, by 20 to 100.
    places = output_sizes("convolve", sizes, window, zeros)
    fits = all(n <= p <= size for n, p, size in zip(window.shape, places, sizes, strict=True))
    odd = in_features in (3, 5, 7) and math.prod(window.shape) <= 64
    # Products are also quicker by 1.2 to 1.6 for strided windows over many features, and for
    # windows of one entry, where XLA's kernel gradient takes up to five times as long.
    strided = max(window.stride) > 1 and min(in_features, out_features) >= 64
    point = math.prod(window.shape) == 1
    return len(window.shape) <= 2 and fits and not (odd or strided or point)


def _suits_winograd(window: Window, zeros: Pairs, x: Array, features: int) -> bool:
    # Measured, value and gradients together: quicker by a third to a half, where there are
    # features and tiles enough for products of matrices and few tiles reach beyond the edge.
    batch = x.shape[0]
    if window != _THREE or x.dtype not in (jnp.float32, jnp.float64):
        return False
    if is_symbolic(batch):
        return False
    places = output_sizes("convolve", x.shape[1:-1], window, zeros)
    tiles = math.prod(-(-n // 2) for n in places)
    full = 4 * tiles <= _WASTE * math.prod(places)
    return full and batch * tiles >= _TILES and min(x.shape[-1], features) >= _FEATURES


def _convolve(window: Window, zeros: Pairs, x: Array, kernel: Array) -> Array:
    if _suits_winograd(window, zeros, x, kernel.shape[-1]):
        return winograd(zeros, x, kernel)
    return _in_quick_order(window, zeros, _ones(window))(x, kernel)


def _input_gradient(
    window: Window, zeros: Pairs, sizes: tuple[int, ...], g: Array, kernel: Array
) -> Array:
    """The convolution of g, spread by the stride, with the mirrored kernel."""
    before = [reach - 1 - first for reach, (first, _) in zip(window.reach, zeros, strict=True)]
    after = [
        size + reach - 2 - (n - 1) * stride - first
        for size, reach, n, stride, first in zip(
            sizes, window.reach, g.shape[1:-1], window.stride, before, strict=True
        )
    ]
    sliding = Window(shape=window.shape, stride=_ones(window), dilation=window.dilation)
    pairs = tuple(zip(before, after, strict=True))
    if _suits_winograd(window, pairs, g, kernel.shape[-2]):
        return winograd(pairs, g, kernel, mirrored=True)
    mirrored = jnp.swapaxes(jnp.flip(kernel, range(len(sizes))), -1, -2)
    return _in_quick_order(sliding, pairs, window.stride)(g, mirrored)


def _kernel_gradient(window: Window, zeros: Pairs, x: Array, g: Array) -> Array:
    if _suits_winograd(window, zeros, x, g.shape[-1]):
        return winograd_kernel_gradient(zeros, x, g)
    batch, places = x.shape[0], g.shape[1:-1]
    some = max(_EXAMPLES, _ENTRIES // math.prod(places))
    if is_symbolic(batch) or batch <= some:
        return _kernel_gradient_of_some(window, zeros, x, g)
    parts = -(-batch // some)
    some = -(-batch // parts)

    def split(a: Array) -> Array:
        padded = jnp.pad(a, [(0, parts * some - batch)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(parts, some, *a.shape[1:])

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _kernel_gradient_of_some(window, zeros, *part).astype(total.dtype), None

    start = jnp.zeros((*window.shape, x.shape[-1], g.shape[-1]), at_least_float32(x))
    start = varying_like(start, x, g)
    total, _ = lax.scan(add, start, (split(x), split(g)))
    return total.astype(x.dtype)


def _kernel_gradient_of_some(window: Window, zeros: Pairs, x: Array, g: Array) -> Array:
    """The convolution of x with g as its kernel, the batch taking the part of the features."""
    places = g.shape[1:-1]
    after = [
        (n - 1) * stride + reach - size - first
        for n, stride, reach, size, (first, _) in zip(
            places, window.stride, window.reach, x.shape[1:-1], zeros, strict=True
        )
    ]
    pairs = tuple((first, last) for (first, _), last in zip(zeros, after, strict=True))
    sliding = Window(shape=places, stride=window.dilation, dilation=window.stride)
    by_feature, kernel = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(g, 0, -2)
    return jnp.moveaxis(_in_quick_order(sliding, pairs, _ones(window))(by_feature, kernel), 0, -2)


def _ones(window: Window) -> tuple[int, ...]:
    return (1,) * len(window.shape)


@functools.cache  # as in convolve.py
def _in_quick_order(
    window: Window, zeros: Pairs, spread: tuple[int, ...]
) -> Callable[[Array, Array], Array]:
    @jax.custom_batching.custom_vmap
    def convolution(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            window.stride,
            zeros,
            lhs_dilation=spread,
            rhs_dilation=window.dilation,
            dimension_numbers=window.dimension_numbers,
        )

    @convolution.def_vmap
    def batched(axis_size, in_batched, x, kernel):
        # A batch of inputs with a batch of kernels, as in a sweep over seeds, becomes one grouped
        # convolution in JAX, which takes four times as long as one convolution after another.
        if all(in_batched):
            return lax.map(lambda each: convolution(*each), (x, kernel)), True
        in_axes = tuple(0 if batched else None for batched in in_batched)
        return jax.vmap(convolution.fun, in_axes)(x, kernel), True

    return convolution


def _by_products(window: Window, zeros: Pairs, x: Array, kernel: Array) -> Array:
    taps, wide = _taps(window, zeros, x)
    weights = kernel.astype(wide).reshape(len(taps), *kernel.shape[-2:])
    count = _taps_per_product(taps[0])
    starts = range(0, len(taps), count)
    products = (_product(taps[i : i + count], weights[i : i + count]) for i in starts)
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _taps(window: Window, zeros: Pairs, x: Array) -> tuple[list[Array], jnp.dtype]:
    wide = at_least_float32(x)
    edges = [(0, 0, 0), *((before, after, 0) for before, after in zeros), (0, 0, 0)]
    padded = lax.pad(x.astype(wide), jnp.zeros((), wide), edges)
    return list(views(padded, window)), wide


def _taps_per_product(tap: Array) -> int:
    wide_enough = -(-_COLUMNS // max(tap.shape[-1], 1))
    if is_symbolic(tap.size):
        return wide_enough
    small_enough = _BUFFER_BYTES // max(tap.size * tap.dtype.itemsize, 1)
    return max(wide_enough, small_enough)


def _product(taps: list[Array], weights: Array) -> Array:
    columns = jnp.concatenate(taps, axis=-1)
    rows = lax.collapse(columns, 0, columns.ndim - 1)
    y = rows @ lax.collapse(weights, 0, weights.ndim - 1)
    return y.reshape(*columns.shape[:-1], y.shape[-1])


def _depthwise(window: Window, zeros: Pairs, x: Array, kernel: Array) -> Array:
    # With one feature to a group no product of matrices is left: XLA fuses the sum to one loop.
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    taps, wide = _taps(window, zeros, x)
    weights = kernel.astype(wide).reshape(len(taps), *(1,) * (x.ndim - 1), kernel.shape[-1])
    scaled = (tap * weight for tap, weight in zip(taps, weights, strict=True))
    return functools.reduce(jnp.add, scaled).astype(x.dtype)
