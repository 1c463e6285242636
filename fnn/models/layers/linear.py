"""Linear layers as models."""

from fnn import layers
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.models.layers.shape import features_of
from fnn.types import Model


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
            features_of("dense", x),
            features,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.linear(params, x), model_state

    return Model(init=init, apply=apply)
