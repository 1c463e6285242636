"""Penalties on the size of parameters, to be added to a mean loss."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.losses._elements import magnitude
from fnn.tree import matching
from fnn.types import Params


def l1_penalty(params: Params, *patterns: str) -> Float[Array, ""]:
    """sum |w|; its derivative at 0 is taken as 0.

    Args:
      patterns: paths of the leaves to count, as in `tree.matching`; every leaf if there are none.

    Returns: a scalar, in at least float32. Its gradient oscillates around 0; for exact zeros see
      `optim.proximal_l1`.
    Raises: ValueError for a pattern that matches no leaf.

    >>> params = {'bias': jnp.array([5.0]), 'kernel': jnp.array([[1.0, -2.0]])}
    >>> l1_penalty(params, '*kernel').item()
    3.0
    """
    return _sum(params, patterns, magnitude)


def l2_penalty(params: Params, *patterns: str) -> Float[Array, ""]:
    """sum w^2 / 2, whose gradient is w: under `sgd`, the same as a weight decay.

    Under an optimizer that scales its gradients (adam) it is not: there use the weight decay of
    `adamw`. Keras' L2 leaves out the half.

    Args:
      patterns: paths of the leaves to count, as in `tree.matching`; every leaf if there are none.

    Returns: a scalar, in at least float32.
    Raises: ValueError for a pattern that matches no leaf.
    Source: Krogh & Hertz 1991, A simple weight decay can improve generalization.

    >>> params = {'bias': jnp.array([5.0]), 'kernel': jnp.array([[1.0, -2.0]])}
    >>> l2_penalty(params, '*kernel').item()
    2.5
    """
    return _sum(params, patterns, lambda w: 0.5 * jnp.square(w))


def _sum(params, patterns, size):
    mask = matching(*patterns)(params) if patterns else jax.tree.map(lambda leaf: True, params)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
    sums = [size(leaf.astype(at_least_float32(leaf))).sum() for leaf, chosen in pairs if chosen]
    widest = np.result_type(np.float32, *(s.dtype for s in sums))
    return sum((s.astype(widest) for s in sums), start=jnp.zeros((), widest))
