"""Convolution on a CPU, in forms that XLA compiles well in value and gradients.

XLA's fast convolution for CPUs needs one order of the axes. Outside loops the compiler transposes
every convolution to that order; inside a loop, such as a scan of training steps, it does not
(jax-ml/jax#12868), and the derivatives that JAX derives have other orders, which are many times
slower. So both gradients are written here as convolutions in the fast order. Where XLA has no fast
convolution at all, matrix products replace it.
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
from fnn.layers._window import Pairs, Window, output_sizes, pad_with, window_slices
from fnn.layers._winograd import winograd, winograd_kernel_gradient
from fnn.xla import is_symbolic

# Larger buffers are allocated anew at every step, which costs more than the product that they are
# for; narrower products than this are slow.
_BUFFER_BYTES = 16 * 2**20
_COLUMNS = 128

# Chunks of the batch for the gradient of a kernel: the number of entries of an output feature, and
# the minimum number of examples.
_ENTRIES = 2048
_EXAMPLES = 8

_THREE = Window(shape=(3, 3), stride=(1, 1), dilation=(1, 1))
_WASTE, _TILES, _FEATURES = 1.4, 32, 32


def convolve_on_cpu(window: Window, zeros: Pairs, groups: int, x: Array, kernel: Array) -> Array:
    """`convolve` for a CPU."""

    def dense(x: Array, kernel: Array) -> Array:
        fast = _xla_is_fast(window, zeros, x.shape[1:-1], *kernel.shape[-2:])
        return (_convolve if fast else _by_products)(window, zeros, x, kernel)

    if _is_depthwise(groups, kernel.shape[-2]):
        return _depthwise(window, zeros, x, kernel)
    return _in_groups(dense, groups, x, kernel)


def input_gradient_on_cpu(
    window: Window, zeros: Pairs, groups: int, sizes: tuple[int, ...], g: Array, kernel: Array
) -> Array:
    """The gradient of `convolve_on_cpu` by x of the given sizes, for the gradient g."""

    def dense(g: Array, kernel: Array) -> Array:
        if _xla_is_fast(window, zeros, sizes, *kernel.shape[-2:]):
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
    """The gradient of `convolve_on_cpu` by the kernel, for the gradient g."""

    def dense(x: Array, g: Array) -> Array:
        if _xla_is_fast(window, zeros, x.shape[1:-1], x.shape[-1], g.shape[-1]):
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


def _xla_is_fast(
    window: Window, zeros: Pairs, sizes: tuple[int, ...], in_features: int, out_features: int
) -> bool:
    # Measured, value and gradients together: products are faster with three window axes, with a
    # small odd number of features (RGB), and by far where a kernel, its own or that of a gradient,
    # does not fit in the unpadded input.
    outputs = output_sizes("convolve", sizes, window, zeros)
    fits = all(n <= p <= size for n, p, size in zip(window.shape, outputs, sizes, strict=True))
    odd = in_features in (3, 5, 7) and math.prod(window.shape) <= 64
    # Also for strided windows over many features, and for windows of one entry, where XLA's kernel
    # gradient is slow.
    strided = max(window.stride) > 1 and min(in_features, out_features) >= 64
    point = math.prod(window.shape) == 1
    return len(window.shape) <= 2 and fits and not (odd or strided or point)


def _suits_winograd(window: Window, zeros: Pairs, x: Array, features: int) -> bool:
    # Measured, value and gradients together: faster with features and tiles enough for matrix
    # products, and few tiles that reach beyond the edge.
    batch = x.shape[0]
    if window != _THREE or x.dtype not in (jnp.float32, jnp.float64):
        return False
    if is_symbolic(batch):
        return False
    outputs = output_sizes("convolve", x.shape[1:-1], window, zeros)
    tiles = math.prod(-(-n // 2) for n in outputs)
    full = 4 * tiles <= _WASTE * math.prod(outputs)
    return full and batch * tiles >= _TILES and min(x.shape[-1], features) >= _FEATURES


def _convolve(window: Window, zeros: Pairs, x: Array, kernel: Array) -> Array:
    if _suits_winograd(window, zeros, x, kernel.shape[-1]):
        return winograd(zeros, x, kernel)
    return _in_fast_order(window, zeros, _ones(window))(x, kernel)


def _input_gradient(
    window: Window, zeros: Pairs, sizes: tuple[int, ...], g: Array, kernel: Array
) -> Array:
    """The convolution of g, dilated by the stride, with the mirrored kernel."""
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
    return _in_fast_order(sliding, pairs, window.stride)(g, mirrored)


def _kernel_gradient(window: Window, zeros: Pairs, x: Array, g: Array) -> Array:
    if _suits_winograd(window, zeros, x, g.shape[-1]):
        return winograd_kernel_gradient(zeros, x, g)
    batch, outputs = x.shape[0], g.shape[1:-1]
    chunk = max(_EXAMPLES, _ENTRIES // math.prod(outputs))
    if is_symbolic(batch) or batch <= chunk:
        return _kernel_gradient_of_chunk(window, zeros, x, g)
    parts = -(-batch // chunk)
    chunk = -(-batch // parts)

    def split(a: Array) -> Array:
        padded = jnp.pad(a, [(0, parts * chunk - batch)] + [(0, 0)] * (a.ndim - 1))
        return padded.reshape(parts, chunk, *a.shape[1:])

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _kernel_gradient_of_chunk(window, zeros, *part).astype(total.dtype), None

    start = jnp.zeros((*window.shape, x.shape[-1], g.shape[-1]), at_least_float32(x))
    start = varying_like(start, x, g)
    total, _ = lax.scan(add, start, (split(x), split(g)))
    return total.astype(x.dtype)


def _kernel_gradient_of_chunk(window: Window, zeros: Pairs, x: Array, g: Array) -> Array:
    """The convolution of x with the kernel g, with batch and features exchanged."""
    outputs = g.shape[1:-1]
    after = [
        (n - 1) * stride + reach - size - first
        for n, stride, reach, size, (first, _) in zip(
            outputs, window.stride, window.reach, x.shape[1:-1], zeros, strict=True
        )
    ]
    pairs = tuple((first, last) for (first, _), last in zip(zeros, after, strict=True))
    sliding = Window(shape=outputs, stride=window.dilation, dilation=window.stride)
    by_feature, kernel = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(g, 0, -2)
    return jnp.moveaxis(_in_fast_order(sliding, pairs, _ones(window))(by_feature, kernel), 0, -2)


def _ones(window: Window) -> tuple[int, ...]:
    return (1,) * len(window.shape)


@functools.cache  # as in _convolve.py
def _in_fast_order(
    window: Window, zeros: Pairs, spread: tuple[int, ...]
) -> Callable[[Array, Array], Array]:
    @jax.custom_batching.custom_vmap
    def convolution(x: Array, kernel: Array) -> Array:
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
    def batched(
        axis_size: int, in_batched: list[bool], x: Array, kernel: Array
    ) -> tuple[Array, bool]:
        # JAX batches inputs with kernels, as in a sweep over seeds, into one grouped convolution,
        # which is slower than one convolution after another.
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
    return list(window_slices(pad_with(x.astype(wide), zeros), window)), wide


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
    # With one feature per group there is no matrix product: XLA fuses the sum to one loop.
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    taps, wide = _taps(window, zeros, x)
    weights = kernel.astype(wide).reshape(len(taps), *(1,) * (x.ndim - 1), kernel.shape[-1])
    scaled = (tap * weight for tap, weight in zip(taps, weights, strict=True))
    return functools.reduce(jnp.add, scaled).astype(x.dtype)
