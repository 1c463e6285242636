"""The einsum layer: a linear map written as an equation of named axes."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.types import Params, PRNGKey


class _Axes(NamedTuple):
    """The names of the axes of an equation 'x,kernel->y'."""

    x: str
    kernel: str
    y: str


def einsum_init(
    key: PRNGKey,
    equation: str,
    sizes: Mapping[str, int],
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `einsum`.

    Args:
      equation: 'x,kernel->y' in Einstein's notation, as of `jnp.einsum`.
      sizes: of each axis of the kernel, by its letter.
      bias: whether there is a bias, over those axes of the kernel that y keeps.
      kernel_init, bias_init: initializers of the two. The kernel's sees a matrix of the axes that
        are summed over by those that only y has, drawn anew along the axes that x, kernel and y
        share.

    Returns: {'kernel', 'bias'}, each with the axes that the equation gives, float32.
    Raises: ValueError for an equation of another form, or a missing size.

    >>> params = einsum_init(jax.random.key(0), 'btd,dhk->bthk', {'d': 6, 'h': 2, 'k': 3})
    >>> params['kernel'].shape, params['bias'].shape
    ((6, 2, 3), (2, 3))
    """
    axes = _parse(equation)
    _expect_sizes(equation, axes, sizes)
    shared = [a for a in axes.kernel if a in axes.x and a in axes.y]
    summed = [a for a in axes.kernel if a not in axes.y]
    made = [a for a in axes.kernel if a not in axes.x]
    matrix = tuple(math.prod(sizes[a] for a in group) for group in (summed, made))
    keys = jax.random.split(fold_name(key, "kernel"), math.prod(sizes[a] for a in shared))
    kernel = jax.vmap(lambda key: kernel_init(key, matrix))(keys)
    drawn = [*shared, *summed, *made]
    kernel = kernel.reshape(*(sizes[a] for a in drawn))
    params = {"kernel": kernel.transpose(*(drawn.index(a) for a in axes.kernel))}
    if bias:
        kept = tuple(sizes[a] for a in axes.y if a in axes.kernel)
        params["bias"] = bias_init(fold_name(key, "bias"), kept)
    return params


def einsum(params: Params, equation: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The product of x and the kernel that the equation says, plus the bias.

    Args:
      equation: that the parameters were made for; '...' stands for any further axes of x and y.

    Returns: y, with the axes that the equation gives.
    Raises: ValueError if x or the kernel does not fit the equation.

    >>> params = {'kernel': jnp.ones((3, 2, 4)), 'bias': jnp.zeros((2, 4))}
    >>> einsum(params, '...d,dhk->...hk', jnp.ones((5, 3))).shape
    (5, 2, 4)
    """
    axes = _parse(equation)
    kernel = params["kernel"]
    _expect_shapes(equation, axes, x, kernel)
    y = jnp.einsum(equation, x, kernel)
    if "bias" not in params:
        return y
    trailing = axes.y.replace("...", "", 1) if "..." in axes.y else axes.y
    del trailing
    return y
