"""The perceptron criterion, whose gradient descent is Rosenblatt's rule."""

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
    """max(0, -s y), for labels y of -1 and 1: only misclassified examples have a gradient.

    For a linear score w.x + b the gradient is that of the perceptron rule: 0 for a correct
    prediction, else -y x. A score of 0 counts as wrong, so that learning starts from weights of 0.

    Args:
      scores: s, positive for the positive class.
      targets: the same shape; positive above 0: bools, 0 and 1, or -1 and 1.
      where: mask of the same shape; True counts.

    Returns: float of the same shape, at least 0; a Weighted with `where`.
    Raises: ValueError if the shapes differ.
    Source: Rosenblatt 1958, The perceptron, Psychological Review 65(6); the criterion: Bishop 2006,
      Pattern Recognition and Machine Learning, equation 4.54.

    >>> perceptron(jnp.array([0.25, -2.0, 3.0]), jnp.array([1, 1, 0])).tolist()
    [0.0, 2.0, 3.0]
    >>> jax.grad(lambda s: perceptron(s, jnp.array(True)))(0.0).item()
    -1.0
    """
    s, y = aligned("perceptron", scores, targets, where)
    margin = jnp.where(y > 0, s, -s)
    return masked(jnp.where(margin <= 0, -margin, 0), where)
