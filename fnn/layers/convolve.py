"""Convolution as an operation on arrays, quick in value and gradient on every platform."""

import functools
from collections.abc import Callable

import jax
from jax import lax
from jaxtyping import Array

from fnn.layers.convolve_cpu import convolve_on_cpu
from fnn.layers.window import Pairs, Window


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
    return _by_platform(window, zeros, groups)(x, kernel)


# Made once for each geometry: JAX finds what it has compiled by the identity of the function, so a
# new function at every call would compile at every call.
@functools.cache
def _by_platform(window: Window, zeros: Pairs, groups: int) -> Callable[[Array, Array], Array]:
    on_cpu = functools.partial(convolve_on_cpu, window, zeros, groups)
    elsewhere = functools.partial(_by_xla, window, zeros, groups)

    # The choice falls when the program is lowered for its platform. Both ways are differentiated
    # before that, and the checkpoint has them share what they keep: x and the kernel, no more.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def by_platform(x, kernel):
        return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)

    return by_platform


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
