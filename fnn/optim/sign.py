"""Optimizers that step by the sign of a running mean."""

import jax
import jax.numpy as jnp

from fnn import tree
from fnn.optim.base import decay_weights, from_direction, moving_average
from fnn.tree import Mask
from fnn.types import Optimizer, Scalar


def lion(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Lion: the sign of a mean of gradient and momentum. Wants a third to a tenth of Adam's lr.

        update = -lr (sign(b1 m + (1 - b1) g) + weight_decay p)
        m <- b2 m + (1 - b2) g

    Args:
      b1: share of the momentum in the step, in [0, 1).
      b2: share of the momentum that a step keeps, in [0, 1).
      weight_decay: decoupled, per unit of lr (three to ten times AdamW's).
      mask: which leaves decay; None is all of them.

    State: m like params, in at least float32.
    Source: Chen et al. 2023, arXiv:2302.06675, Algorithm 2.

    >>> opt, params = lion(), {'w': jnp.zeros(2)}
    >>> opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-0.5, 0.5]
    """

    def direction(grads, m, params):
        step = jax.tree.map(lambda m, g: jnp.sign(moving_average(b1, m, g)), m, grads)
        m = jax.tree.map(lambda m, g: moving_average(b2, m, g), m, grads)
        return decay_weights(step, params, weight_decay, mask), m

    return from_direction("lion", tree.zeros_like, direction)
