"""Normalisation layers as models."""

from fnn import layers
from fnn.models.layers.shape import features_of
from fnn.types import Model, Scalar


def layer_norm(*, eps: Scalar = 1e-6) -> Model:
    """Layer normalisation over the last axis, as a model; see `layers.layer_norm`.

    >>> params, _ = layer_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['bias', 'scale']
    """

    def init(key, x):
        return layers.layer_norm_init(features_of("layer_norm", x)), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.layer_norm(params, x, eps=eps), model_state

    return Model(init=init, apply=apply)


def batch_norm(*, decay: Scalar = 0.99, eps: Scalar = 1e-5) -> Model:
    """Batch normalisation of the last axis, as a model; see `layers.batch_norm`.

    >>> _, state = batch_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(state)
    ['mean', 'var']
    """

    def init(key, x):
        return layers.batch_norm_init(features_of("batch_norm", x))

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.batch_norm(params, model_state, x, train=train, decay=decay, eps=eps)

    return Model(init=init, apply=apply)
