"""Normalisation layers as models."""

from fnn import layers
from fnn.expect import within
from fnn.models.layers.shape import features_of
from fnn.types import Model, Scalar


@within(eps="[0, inf)")
def layer_norm(*, eps: Scalar = 1e-6, scale: bool = True, bias: bool = True) -> Model:
    """Layer normalisation over the last axis, as a model; see `layers.layer_norm`.

    >>> params, _ = layer_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['bias', 'scale']
    """

    def init(key, x):
        features = features_of("layer_norm", x)
        return layers.layer_norm_init(features, scale=scale, bias=bias), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.layer_norm(params, x, eps=eps), model_state

    return Model(init=init, apply=apply)


@within(decay="[0, 1]", eps="[0, inf)")
def batch_norm(
    *, decay: Scalar = 0.99, eps: Scalar = 1e-5, scale: bool = True, bias: bool = True
) -> Model:
    """Batch normalisation of the last axis, as a model; see `layers.batch_norm`.

    >>> _, state = batch_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(state)
    ['mean', 'var']
    """

    def init(key, x):
        features = features_of("batch_norm", x)
        return layers.batch_norm_init(features, scale=scale, bias=bias)

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.batch_norm(params, model_state, x, train=train, decay=decay, eps=eps)

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def group_norm(
    groups: int = 32,
    *,
    eps: Scalar = 1e-6,
    scale: bool = True,
    bias: bool = True,
    ndim: int | None = None,
) -> Model:
    """Normalisation of groups of features within each example; see `layers.group_norm`.

    Args:
      ndim: how many window axes there are, 2 for images; None takes any number.

    >>> params, _ = group_norm(2).init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> params['scale'].shape
    (4,)
    """

    def init(key, x):
        features = features_of("group_norm", x)
        return layers.group_norm_init(features, scale=scale, bias=bias), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.group_norm(params, x, groups, eps=eps, ndim=ndim), model_state

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def instance_norm(
    *, eps: Scalar = 1e-6, scale: bool = True, bias: bool = True, ndim: int | None = None
) -> Model:
    """Normalisation of each feature's map within each example; see `layers.instance_norm`.

    Args:
      ndim: how many axes of positions there are, 2 for images; None takes any number.

    >>> instance_norm(scale=False, bias=False).init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    ({}, ())
    """

    def init(key, x):
        features = features_of("instance_norm", x)
        return layers.instance_norm_init(features, scale=scale, bias=bias), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.instance_norm(params, x, eps=eps, ndim=ndim), model_state

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def rms_norm(*, eps: Scalar = 1e-6) -> Model:
    """Normalisation by the root mean square of the last axis; see `layers.rms_norm`.

    >>> params, _ = rms_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['scale']
    """

    def init(key, x):
        return layers.rms_norm_init(features_of("rms_norm", x)), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.rms_norm(params, x, eps=eps), model_state

    return Model(init=init, apply=apply)
