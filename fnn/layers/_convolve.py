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

    A correlation, as everywhere in machine learning: the kernel is not mirrored. With groups, the
    input and output features are cut into as many runs, and a run of outputs sees its own inputs.

    Args:
      x: (batch, *sizes, in). kernel: (*window, in / groups, out), of the same dtype.
      window: the kernel's; its shape is that of the kernel.
      zeros: how many to add (before, after) along each window axis; negative numbers cut.

    Returns: (batch, *places, out) in the dtype of x.

    >>> window = Window(shape=(2,), stride=(1,), dilation=(1,))
    >>> x, kernel = jnp.arange(3.0).reshape(1, 3, 1), jnp.ones((2, 1, 1))
    >>> convolve(x, kernel, window, ((0, 0),), 1).ravel().tolist()
    [1.0, 3.0]
    """
    return _maps(window, zeros, groups, x.shape[1:-1]).output(x, kernel)


def convolve_transposed(
    y: Array, kernel: Array, sizes: tuple[int, ...], window: Window, zeros: Pairs, groups: int
) -> Array:
    """The transpose of `convolve` as a linear map of x: its gradient by x, for the gradient y.

    Args:
      sizes: of x, which the windows need not cover.

    >>> window = Window(shape=(2,), stride=(1,), dilation=(1,))
    >>> y, kernel = jnp.array([1.0, 10.0]).reshape(1, 2, 1), jnp.array([1.0, 2.0]).reshape(2, 1, 1)
    >>> convolve_transposed(y, kernel, (3,), window, ((0, 0),), 1).ravel().tolist()
    [1.0, 12.0, 20.0]
    """
    return _maps(window, zeros, groups, sizes).by_input(y, kernel)


class _Maps(NamedTuple):
    """Of the form sum(g convolve(x, kernel)): its derivatives by g, x and kernel.

    The form is linear in each of the three, so the derivatives of a map are made of the other two.
    """

    output: Bilinear  # of x, kernel
    by_input: Bilinear  # of g, kernel
    by_kernel: Bilinear  # of x, g


# Made once for each geometry: JAX finds what it has compiled by the identity of the function, so a
# new function at every call would compile at every call.
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
    """f of (its second argument, its first) and of (its first, its second): linear in the last."""
    return (lambda b, a: f(a, b)), (lambda a, b: f(a, b))


def _derive(f: Any, first: tuple[Bilinear, Bilinear], second: tuple[Bilinear, Bilinear]) -> None:
    """Give f(a, b) its derivative f(da, b) + f(a, db), each part with its transpose."""

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
