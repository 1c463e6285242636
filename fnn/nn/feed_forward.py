"""Feed-forward blocks, plain and gated."""

from collections.abc import Callable
from typing import Any

from fnn import layers
from fnn.activations import gelu, silu
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.nn._shape import features_of
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
    """Two linear layers with an activation between, as a model; see `layers.feed_forward`.

    Args:
      out_features: as many as the input has if None.

    >>> params, _ = feed_forward(8).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['down']['kernel'].shape
    (8, 3)
    """

    def init(key, x):
        params = layers.feed_forward_init(
            key,
            features_of("feed_forward", x),
            hidden_features,
            out_features=out_features,
            bias=bias,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.feed_forward(params, x, activation), model_state

    return Model(init=init, apply=apply)


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
    """A gated MLP over the last axis, as a model; see `layers.gated_mlp`.

    Args:
      out_features: as many as the input has if None.

    >>> params, _ = gated_mlp(8, jax.nn.sigmoid).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['down', 'gate', 'up']
    """

    def init(key, x):
        params = layers.gated_mlp_init(
            key,
            features_of("gated_mlp", x),
            hidden_features,
            out_features=out_features,
            bias=bias,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.gated_mlp(params, x, activation), model_state

    return Model(init=init, apply=apply)


def swiglu(
    hidden_features: int,
    *,
    out_features: int | None = None,
    bias: bool = False,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """A gated MLP with a silu, as a model; see `layers.swiglu`.

    >>> params, _ = swiglu(8).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['down']['kernel'].shape
    (8, 3)
    """
    return gated_mlp(
        hidden_features,
        silu,
        out_features=out_features,
        bias=bias,
        kernel_init=kernel_init,
        out_kernel_init=out_kernel_init,
        bias_init=bias_init,
    )


def geglu(
    hidden_features: int,
    *,
    out_features: int | None = None,
    bias: bool = False,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """A gated MLP with the exact gelu, as a model; see `layers.geglu`.

    >>> params, _ = geglu(8).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['down']['kernel'].shape
    (8, 3)
    """
    return gated_mlp(
        hidden_features,
        gelu,
        out_features=out_features,
        bias=bias,
        kernel_init=kernel_init,
        out_kernel_init=out_kernel_init,
        bias_init=bias_init,
    )
