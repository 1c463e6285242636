"""Rosenblatt's perceptron: one linear threshold unit, or several side by side."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn.arguments import check_exports
from fnn.initializers import zeros
from fnn.nn import linear
from fnn.types import Model

__all__ = ["perceptron", "says_yes"]


def perceptron(units: int = 1) -> Model:
    """Scores w.x + b, from weights of 0; positive is a yes.

    It learns by `losses.perceptron` and `optim.sgd()` with lr 1, one example a step: that is the
    rule of 1958. Where a hyperplane separates the examples it ends without a mistake, after at
    most (R / margin)^2 corrections, R being the length of the longest input with a 1 for the bias
    (Novikoff 1962); where none does, as for XOR, it never rests.

    Args:
      units: how many yes-or-no questions are answered, each by a unit of its own.

    Apply takes x (batch, features) and returns scores (batch,), or (batch, units) for several.
    Parameters: {'kernel': (features, units), 'bias': (units,)}, zeros.
    Source: Rosenblatt 1958, The perceptron, Psychological Review 65(6).

    >>> model = perceptron()
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    >>> model.apply(params, (), jnp.ones((3, 2)))[0].tolist()
    [0.0, 0.0, 0.0]
    """
    layer = linear(units, kernel_init=zeros)

    def apply(params, model_state, x, *, key=None, train=False):
        scores, model_state = layer.apply(params, model_state, x, key=key, train=train)
        return (scores[..., 0] if units == 1 else scores), model_state

    return Model(init=layer.init, apply=apply)


def says_yes(scores: Float[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """The threshold: whether the score is positive.

    >>> says_yes(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [False, False, True]
    """
    return jnp.asarray(scores) > 0


check_exports(__name__)
