"""Rosenblatt's perceptron: one linear threshold unit, or several."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn import nn
from fnn._arguments import check_exports
from fnn.initializers import zeros
from fnn.nn._base import stateless
from fnn.types import Model, Params

__all__ = ["fires", "perceptron"]


def perceptron(units: int = 1) -> Model:
    """Scores w.x + b, initialized to 0; a unit fires if its score is positive.

    `losses.perceptron` and `optim.sgd()` with lr 1 and batches of one example are the perceptron
    learning rule. On linearly separable data it converges after at most (R / margin)^2 corrections,
    where R is the largest norm of an input with a 1 appended (Novikoff 1962); on other data, such
    as XOR, it never does.

    Args:
      units: number of units; each learns a binary classification of its own.

    Apply takes x (batch, features) and returns scores (batch,), or (batch, units) for several.
    Parameters: {'kernel': (features, units), 'bias': (units,)}, zeros.
    Source: Rosenblatt 1958, The perceptron, Psychological Review 65(6).

    >>> model = perceptron()
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    >>> model.apply(params, (), jnp.ones((3, 2)))[0].tolist()
    [0.0, 0.0, 0.0]
    """
    layer = nn.linear(units, kernel_init=zeros)

    def forward(params: Params, x: Any) -> Array:
        scores, _ = layer.apply(params, (), x)
        return scores[..., 0] if units == 1 else scores

    return stateless(lambda key, x: layer.init(key, x)[0], forward)


def fires(scores: Float[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Whether each score is above the threshold of 0: the binary prediction.

    >>> fires(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [False, False, True]
    """
    return jnp.asarray(scores) > 0


check_exports(__name__)
