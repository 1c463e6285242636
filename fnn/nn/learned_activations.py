"""Activations with parameters. Those without need no constructor: a function is a layer."""

from fnn import layers
from fnn.nn._base import features_of, stateless
from fnn.types import Model, Scalar


def prelu(*, slope: Scalar = 0.25) -> Model:
    """A leaky relu with a learned slope for each feature; see `layers.prelu`.

    >>> params, _ = prelu().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['slope'].tolist()
    [0.25, 0.25, 0.25]
    """
    return stateless(
        lambda key, x: layers.prelu_init(features_of("prelu", x), slope=slope), layers.prelu
    )


def snake(*, frequency: Scalar = 1.0) -> Model:
    """x + sin^2(a x) / a with a learned frequency for each feature; see `layers.snake`.

    >>> params, _ = snake(frequency=0.5).init(jax.random.key(0), jnp.zeros((1, 2)))
    >>> params['frequency'].tolist()
    [0.5, 0.5]
    """
    return stateless(
        lambda key, x: layers.snake_init(features_of("snake", x), frequency=frequency),
        layers.snake,
    )
