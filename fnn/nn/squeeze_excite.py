"""Squeeze and excite as a model."""

from collections.abc import Callable
from typing import Any

from fnn import layers
from fnn.activations import relu, sigmoid
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.nn._shape import features_of
from fnn.types import Model


def squeeze_excite(
    reduction: int = 16,
    *,
    activation: Callable[[Any], Any] = relu,
    gate: Callable[[Any], Any] = sigmoid,
    ndim: int | None = None,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """Features scaled by what the window holds, as a model; see `layers.squeeze_excite`.

    Args:
      reduction: features of x for each one of the bottleneck, which has at least one.
      ndim: how many window axes there are, 2 for images; None takes any number.

    >>> params, _ = squeeze_excite(4).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))
    >>> params['reduce']['kernel'].shape
    (8, 2)
    """

    def init(key, x):
        features = features_of("squeeze_excite", x)
        params = layers.squeeze_excite_init(
            key,
            features,
            max(1, features // reduction),
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        y = layers.squeeze_excite(params, x, activation=activation, gate=gate, ndim=ndim)
        return y, model_state

    return Model(init=init, apply=apply)
