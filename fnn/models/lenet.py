"""LeNet-5, the convolutional network of 1998. B batch, C channels, O outputs."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import nn
from fnn._arguments import check_exports
from fnn.initializers import Initializer, lecun_normal
from fnn.models._common import with_check
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
    """Shapes and layers of a LeNet."""

    out_features: int = 10  # O
    activation: nn.Layer = scaled_tanh
    pool: nn.Layer = nn.average_pool((2, 2))
    kernel_init: Initializer = lecun_normal()


def lenet(config: LeNetConfig) -> Model:
    """LeNet-5: two convolutions, each followed by pooling, and three linear layers.

    Apply takes x (B, 28, 28, C), which is padded to 32 x 32 as in the paper, and returns (B, O).
    Parameters (61,706 for one channel and ten outputs): {'c1', 'c3', 'c5', 'f6', 'head'}, each
    {'kernel', 'bias'}, with the names of the paper.
    Raises: ValueError for x of another shape.
    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition, section
      II.B. Deviates, as is usual since: C3 is connected to all maps of S2; pooling has no weights
      and no activation; the head is linear, where the paper has radial basis functions; and
      kernels are initialized from a normal distribution, not a uniform one.

    >>> params, state = lenet(LeNetConfig()).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    convolution = partial(nn.conv, kernel_size=(5, 5), kernel_init=config.kernel_init)
    layer = partial(nn.linear, kernel_init=config.kernel_init)
    model = nn.sequential(
        c1=convolution(6, padding=((2, 2), (2, 2))),  # (B, 28, 28, C) -> (B, 28, 28, 6)
        a1=config.activation,
        s2=config.pool,  # -> (B, 14, 14, 6)
        c3=convolution(16, padding="VALID"),  # -> (B, 10, 10, 16)
        a3=config.activation,
        s4=config.pool,  # -> (B, 5, 5, 16)
        flatten=nn.flatten(),
        c5=layer(120),  # a convolution of 5 x 5 on an input of 5 x 5 is a linear layer
        a5=config.activation,
        f6=layer(84),
        a6=config.activation,
        head=layer(config.out_features),
    )
    return with_check(model, _expect_digits)


def _expect_digits(x: Any) -> None:
    if len(x.shape) != 4 or tuple(x.shape[1:3]) != (28, 28):
        raise ValueError(
            f"lenet: expected x of shape (batch, 28, 28, channels), got {tuple(x.shape)}; "
            "add a channel axis, x[..., None], if x lacks one; resize the images, or use cnn"
        )


check_exports(__name__)
