"""The perceptron's criterion, whose gradient descent is Rosenblatt's rule."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from fnn.losses._elements import Mask, aligned, masked
from fnn.types import Weighted


def perceptron(
    scores: Float[Array, "*batch"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """max(0, -s) with s the score of the right side: only mistakes cost, and teach.

    With a linear score w.x + b, its gradient is the rule of 1958: nothing for what is right, and
    -x or +x, the input itself, for what is wrong. A score of 0 counts as wrong, so that learning
    begins from weights of 0.

    Args:
      scores: positive for a yes.
      targets: a yes is above 0, a no is not: bools, 0 and 1, or -1 and 1; of the same shape.
      where: which elements count, of the same shape.

    Returns: float of the shape of the scores, at least 0; with `where`, a Weighted.
    Raises: ValueError if the shapes differ.
    Source: Rosenblatt 1958, The perceptron, Psychological Review 65(6); the criterion: Bishop 2006,
      Pattern Recognition and Machine Learning, equation 4.54.

    >>> perceptron(jnp.array([0.25, -2.0, 3.0]), jnp.array([1, 1, 0])).tolist()
    [0.0, 2.0, 3.0]
    >>> jax.grad(lambda s: perceptron(s, jnp.array(True)))(0.0).item()
    -1.0
    """
    s, y = aligned("perceptron", scores, targets, where)
    right = jnp.where(y > 0, s, -s)
    return masked(jnp.where(right <= 0, -right, 0), where)
