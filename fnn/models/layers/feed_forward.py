"""The feed-forward part of a transformer as a model."""

from collections.abc import Callable
from typing import Any

from fnn import layers
from fnn.activations import gelu
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.models.layers.shape import features_of
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
