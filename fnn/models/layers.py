"""The layers as models, for those who compose: their sizes come from the input at init."""

from typing import Any

import jax.numpy as jnp

from fnn import layers
from fnn.combinators import lift
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.types import Model, Scalar


def _features(where: str, x: Any) -> int:
    if len(x.shape) < 2:
        raise ValueError(
            f"{where}: expected x of shape (batch, ..., features), got {x.shape}; "
            "put the batch first, and add an axis if each example is a single number"
        )
    return x.shape[-1]


def dense(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A linear layer over the last axis, as a model; see `layers.linear`.

    >>> params, state = dense(2).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['kernel'].shape
    (3, 2)
    """

    def init(key, x):
        params = layers.linear_init(
            key,
            _features("dense", x),
            features,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.linear(params, x), model_state

    return Model(init=init, apply=apply)


def layer_norm(*, eps: Scalar = 1e-6) -> Model:
    """Layer normalisation over the last axis, as a model; see `layers.layer_norm`.

    >>> params, _ = layer_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['bias', 'scale']
    """

    def init(key, x):
        return layers.layer_norm_init(_features("layer_norm", x)), ()

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
        return layers.batch_norm_init(_features("batch_norm", x))

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.batch_norm(params, model_state, x, train=train, decay=decay, eps=eps)

    return Model(init=init, apply=apply)


def dropout(rate: Scalar) -> Model:
    """Dropout as a model: active for train=True only, where it needs a key.

    Args:
      rate: drop probability in [0, 1]; may be traced. A plain 0 leaves the layer out.

    Raises: ValueError for train=True without a key.

    >>> dropout(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """

    def apply(params, model_state, x, *, key=None, train=False):
        if not train or (isinstance(rate, (int, float)) and rate == 0):
            return x, model_state
        if key is None:
            raise ValueError(
                "dropout: expected a key with train=True, got None; pass key= to the model's apply"
            )
        return layers.dropout(key, x, rate), model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)


def flatten() -> Model:
    """(batch, ...) to (batch, features).

    >>> flatten().apply({}, (), jnp.zeros((2, 3, 4)))[0].shape
    (2, 12)
    """
    return lift(lambda x: jnp.reshape(x, (x.shape[0], -1)))
