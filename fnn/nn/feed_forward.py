"""Feed-forward blocks, plain and gated."""

from collections.abc import Callable
from typing import Any

from fnn import layers
from fnn.activations import gelu
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.nn._base import InitParams, features_of, stateless, takes_arguments_of
from fnn.types import Model


def feed_forward(
    hidden_features: int,
    activation: Callable[[Any], Any] = gelu,
    *,
    out_features: int | None = None,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """Two linear layers with an activation in between; see `layers.feed_forward`.

    >>> params, _ = feed_forward(8).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['down']['kernel'].shape
    (8, 3)
    """
    return stateless(
        lambda key, x: layers.feed_forward_init(
            key,
            features_of("feed_forward", x),
            hidden_features,
            out_features=out_features,
            bias=bias,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        ),
        lambda params, x: layers.feed_forward(params, x, activation),
    )


def gated_mlp(
    hidden_features: int,
    activation: Callable[[Any], Any],
    *,
    out_features: int | None = None,
    bias: bool = False,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """A gated MLP over the last axis; see `layers.gated_mlp`.

    >>> params, _ = gated_mlp(8, jax.nn.sigmoid).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['down', 'gate', 'up']
    """
    return stateless(
        lambda key, x: layers.gated_mlp_init(
            key,
            features_of("gated_mlp", x),
            hidden_features,
            out_features=out_features,
            bias=bias,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        ),
        lambda params, x: layers.gated_mlp(params, x, activation),
    )


@takes_arguments_of(layers.gated_mlp_init)
def swiglu(init: InitParams) -> Model:
    """A gated MLP with a silu; see `layers.swiglu`.

    >>> params, _ = swiglu(8).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['down']['kernel'].shape
    (8, 3)
    """
    return stateless(init, layers.swiglu)


@takes_arguments_of(layers.gated_mlp_init)
def geglu(init: InitParams) -> Model:
    """A gated MLP with the exact gelu; see `layers.geglu`.

    >>> params, _ = geglu(8).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['down']['kernel'].shape
    (8, 3)
    """
    return stateless(init, layers.geglu)
