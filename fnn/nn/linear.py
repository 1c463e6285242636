"""Linear layers."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from fnn import layers
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.layers.linear_general import sizes_of_axes
from fnn.nn._base import InitParams, lift, stateless, takes_arguments_of
from fnn.types import Model, Params, PRNGKey


@takes_arguments_of(layers.linear_init)
def linear(init: InitParams) -> Model:
    """A linear layer over the last axis; see `layers.linear`.

    >>> params, state = linear(2).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['kernel'].shape
    (3, 2)
    """
    return stateless(init, layers.linear)


def linear_general(
    out_shape: Sequence[int],
    *,
    axes: int | Sequence[int] = -1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A linear map from several axes to several; see `layers.linear_general`.

    >>> model = linear_general((2, 4), axes=(1, 2))
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((5, 3, 6)))
    >>> params['kernel'].shape
    (3, 6, 2, 4)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        in_shape = [x.shape[axis] for axis in ((axes,) if isinstance(axes, int) else axes)]
        return layers.linear_general_init(
            key, in_shape, out_shape, bias=bias, kernel_init=kernel_init, bias_init=bias_init
        )

    return stateless(init, lambda params, x: layers.linear_general(params, x, axes=axes))


def einsum(
    equation: str,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
    **sizes: int,
) -> Model:
    """A linear map given by an equation; see `layers.einsum`.

    Args:
      equation: 'x,kernel->y'.
      sizes: of the kernel's axes that x does not have, by letter.

    Raises: ValueError, at init, for a size that x contradicts.

    >>> model = einsum('btd,dhk->bthk', h=2, k=3)
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 5, 6)))
    >>> params['kernel'].shape
    (6, 2, 3)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        known = sizes_of_axes(equation, x.shape)
        if wrong := {a: n for a, n in sizes.items() if known.get(a, n) != n}:
            raise ValueError(
                f"einsum: expected x to have the sizes {wrong} in {equation!r}, got shape "
                f"{tuple(x.shape)}; drop the sizes that x gives"
            )
        return layers.einsum_init(
            key, equation, known | sizes, bias=bias, kernel_init=kernel_init, bias_init=bias_init
        )

    return stateless(init, lambda params, x: layers.einsum(params, equation, x))


def bilinear(
    out_features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A bilinear map of x, a pair (left, right); see `layers.bilinear`.

    >>> params, _ = bilinear(4).init(jax.random.key(0), (jnp.zeros((1, 2)), jnp.zeros((1, 3))))
    >>> params['kernel'].shape
    (2, 3, 4)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        left, right = (part.shape[-1] for part in x)
        return layers.bilinear_init(
            key, left, right, out_features, bias=bias, kernel_init=kernel_init, bias_init=bias_init
        )

    return stateless(init, lambda params, x: layers.bilinear(params, *x))


def flatten() -> Model:
    """(batch, ...) to (batch, features).

    >>> flatten().apply({}, (), jnp.zeros((2, 3, 4)))[0].shape
    (2, 12)
    """
    return lift(lambda x: jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))))
