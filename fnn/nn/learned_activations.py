"""Activations with parameters as models. Those without need none: a function is a layer."""

from fnn import layers
from fnn.nn._shape import features_of
from fnn.types import Model, Scalar


def prelu(*, slope: Scalar = 0.25) -> Model:
    """A leaky relu with a learned slope for each feature, as a model; see `layers.prelu`.

    >>> params, _ = prelu().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['slope'].tolist()
    [0.25, 0.25, 0.25]
    """

    def init(key, x):
        return layers.prelu_init(features_of("prelu", x), slope=slope), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.prelu(params, x), model_state

    return Model(init=init, apply=apply)


def snake(*, frequency: Scalar = 1.0) -> Model:
    """x + sin^2(a x) / a with learned frequencies, as a model; see `layers.snake`.

    >>> params, _ = snake(frequency=0.5).init(jax.random.key(0), jnp.zeros((1, 2)))
    >>> params['frequency'].tolist()
    [0.5, 0.5]
    """

    def init(key, x):
        return layers.snake_init(features_of("snake", x), frequency=frequency), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.snake(params, x), model_state

    return Model(init=init, apply=apply)
