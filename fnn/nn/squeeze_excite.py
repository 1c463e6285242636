"""Squeeze-and-excitation."""

from collections.abc import Callable
from typing import Any

from fnn import layers
from fnn.activations import relu, sigmoid
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.nn._base import features_of, stateless
from fnn.types import Model, Params, PRNGKey


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
    """Features scaled by gates from their averages over the window; see `layers.squeeze_excite`.

    Args:
      reduction: the bottleneck has features / reduction features, and at least one.

    >>> params, _ = squeeze_excite(4).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))
    >>> params['reduce']['kernel'].shape
    (8, 2)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        features = features_of("squeeze_excite", x)
        hidden = max(1, features // reduction)
        return layers.squeeze_excite_init(
            key, features, hidden, bias=bias, kernel_init=kernel_init, bias_init=bias_init
        )

    return stateless(
        init,
        lambda params, x: layers.squeeze_excite(
            params, x, activation=activation, gate=gate, ndim=ndim
        ),
    )
