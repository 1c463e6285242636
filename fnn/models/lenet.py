"""LeNet-5, the convolutional network of 1998. B batch, C channels, O outputs."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.arguments import check_exports
from fnn.initializers import Initializer, lecun_normal
from fnn.nn import Layer, average_pool, conv, flatten, linear, sequential
from fnn.types import Model

__all__ = ["LeNetConfig", "lenet", "scaled_tanh"]


def scaled_tanh(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1.7159 tanh(2 x / 3), which maps 1 to 1 and -1 to -1.

    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition, appendix A.

    >>> scaled_tanh(jnp.array([0.0, 1.0, -1.0])).round(3).tolist()
    [0.0, 1.0, -1.0]
    """
    slope, height = jnp.asarray(2 / 3, x.dtype), jnp.asarray(1.7159, x.dtype)
    return height * jnp.tanh(slope * x)


@dataclass(frozen=True, kw_only=True)
class LeNetConfig:
    """What fixes the shapes and the parts of a LeNet."""

    out_features: int = 10  # O
    activation: Layer = scaled_tanh
    pool: Layer = average_pool((2, 2))
    kernel_init: Initializer = lecun_normal()


def lenet(config: LeNetConfig) -> Model:
    """LeNet-5: two convolutions with pools behind them, and three linear maps.

        6 of 5 x 5, pool, 16 of 5 x 5, pool, 120, 84, O

    Apply takes x (B, 28, 28, C), around which it puts a border of 2 as the paper did, and returns
    (B, O). With one channel and ten outputs it has 61,706 parameters. Parameters:
    {'c1', 'c3', 'c5', 'f6', 'head'}, each {'kernel', 'bias'}, with the names of the paper.
    Raises: ValueError for x of other sizes.
    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition, section
      II.B. Deviates, as is usual since: every map of C3 sees all maps of S2, not a chosen few; the
      pools have no weights and no activation of their own; the head is linear, for a softmax, where
      the paper has distances to drawn figures; and the first weights are normal, not uniform.

    >>> params, state = lenet(LeNetConfig()).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """

    def convolution(features: int, border: int) -> Model:
        edges = ((border, border), (border, border))
        return conv(features, (5, 5), padding=edges, kernel_init=config.kernel_init)

    def layer(features: int) -> Model:
        return linear(features, kernel_init=config.kernel_init)

    model = sequential(
        c1=convolution(6, border=2),  # (B, 28, 28, C) -> (B, 28, 28, 6)
        a1=config.activation,
        s2=config.pool,  # -> (B, 14, 14, 6)
        c3=convolution(16, border=0),  # -> (B, 10, 10, 16)
        a3=config.activation,
        s4=config.pool,  # -> (B, 5, 5, 16)
        flatten=flatten(),
        c5=layer(120),  # on 5 x 5 places, a convolution of 5 x 5 is a linear map
        a5=config.activation,
        f6=layer(84),
        a6=config.activation,
        head=layer(config.out_features),
    )

    def init(key, x):
        if len(x.shape) != 4 or tuple(x.shape[1:3]) != (28, 28):
            raise ValueError(
                f"lenet: expected x of shape (batch, 28, 28, channels), got {tuple(x.shape)}; "
                "add a channel axis, x[..., None], if x lacks one; resize the images, or use cnn"
            )
        return model.init(key, x)

    return Model(init=init, apply=model.apply)


check_exports(__name__)
