"""Convolution as an operation on arrays, fast in value and derivatives on every platform."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array

from fnn.autodiff import apply_transpose, linear_sum
from fnn.layers import _conv_cpu as cpu
from fnn.layers._window import Pairs, Window

Bilinear = Callable[[Array, Array], Array]


def convolve(x: Array, kernel: Array, window: Window, zeros: Pairs, groups: int) -> Array:
    """y[b, p, o] = sum over t, i of x[b, stride p + dilation t - before, i] kernel[t, i, o].

    A correlation: the kernel is not mirrored. With groups, each group of outputs sees only its own
    group of inputs.

    Args:
      x: (batch, *sizes, in). kernel: (*window, in / groups, out), of the same dtype.
      window: its shape is that of the kernel.
      zeros: number of zeros (before, after) along each window axis; negative numbers crop.

    Returns: (batch, *out_sizes, out) in the dtype of x.
    """
    return _maps(window, zeros, groups, x.shape[1:-1]).output(x, kernel)


def convolve_transposed(
    y: Array, kernel: Array, sizes: tuple[int, ...], window: Window, zeros: Pairs, groups: int
) -> Array:
    """The transpose of `convolve` as a linear map of x: the gradient by x, for the gradient y.

    Args:
      sizes: of x, which the windows need not cover.
    """
    return _maps(window, zeros, groups, sizes).by_input(y, kernel)


class _Maps(NamedTuple):
    """The derivatives of sum(g convolve(x, kernel)) by g, x and kernel.

    It is linear in each of the three, so the derivatives of one map consist of the other two.
    """

    output: Bilinear  # of x, kernel
    by_input: Bilinear  # of g, kernel
    by_kernel: Bilinear  # of x, g


# Cached because JAX's compilation cache is keyed by the identity of the function.
@functools.cache
def _maps(window: Window, zeros: Pairs, groups: int, sizes: tuple[int, ...]) -> _Maps:
    geometry = window, zeros, groups

    @jax.custom_jvp
    def output(x: Array, kernel: Array) -> Array:
        on_cpu = functools.partial(cpu.convolve_on_cpu, *geometry)
        elsewhere = functools.partial(_by_xla, *geometry)
        return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)

    @jax.custom_jvp
    def by_input(g: Array, kernel: Array) -> Array:
        on_cpu = functools.partial(cpu.input_gradient_on_cpu, *geometry, sizes)
        elsewhere = functools.partial(_input_gradient_by_xla, *geometry, sizes)
        return lax.platform_dependent(g, kernel, cpu=on_cpu, default=elsewhere)

    @jax.custom_jvp
    def by_kernel(x: Array, g: Array) -> Array:
        on_cpu = functools.partial(cpu.kernel_gradient_on_cpu, *geometry)
        elsewhere = functools.partial(_kernel_gradient_by_xla, *geometry)
        return lax.platform_dependent(x, g, cpu=on_cpu, default=elsewhere)

    x_to_g, kernel_to_g = _in_each(output)
    g_to_x, kernel_to_x = _in_each(by_input)
    x_to_kernel, g_to_kernel = _in_each(by_kernel)
    _derive(output, (x_to_g, g_to_x), (kernel_to_g, g_to_kernel))
    _derive(by_input, (g_to_x, x_to_g), (kernel_to_x, x_to_kernel))
    _derive(by_kernel, (x_to_kernel, kernel_to_x), (g_to_kernel, kernel_to_g))
    return _Maps(output, by_input, by_kernel)


def _in_each(f: Bilinear) -> tuple[Bilinear, Bilinear]:
    """f with its arguments swapped, and f: each as a linear map of its last argument."""
    return (lambda b, a: f(a, b)), (lambda a, b: f(a, b))


def _derive(f: Any, first: tuple[Bilinear, Bilinear], second: tuple[Bilinear, Bilinear]) -> None:
    """Give f(a, b) the derivative f(da, b) + f(a, db), each term with its transpose."""

    def jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
        (a, b), (da, db) = primals, tangents
        return f(a, b), linear_sum((*first, b, da), (*second, a, db))

    f.defjvp(jvp, symbolic_zeros=True)


def _by_xla(window: Window, zeros: Pairs, groups: int, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.stride,
        zeros,
        rhs_dilation=window.dilation,
        dimension_numbers=window.dimension_numbers,
        feature_group_count=groups,
    )


def _input_gradient_by_xla(
    window: Window, zeros: Pairs, groups: int, sizes: tuple[int, ...], g: Array, kernel: Array
) -> Array:
    shape = (g.shape[0], *sizes, kernel.shape[-2] * groups)
    by_input = functools.partial(_by_xla, window, zeros, groups, kernel=kernel)
    return apply_transpose(by_input, shape, g, kernel)


def _kernel_gradient_by_xla(window: Window, zeros: Pairs, groups: int, x: Array, g: Array) -> Array:
    shape = (*window.shape, x.shape[-1] // groups, g.shape[-1])
    return apply_transpose(functools.partial(_by_xla, window, zeros, groups, x), shape, g, x)
