"""Gradient descent whose step is as long as the loss is high."""

import jax.numpy as jnp

from fnn import tree
from fnn.expect import within
from fnn.optim.base import expect_objective, from_update
from fnn.types import Optimizer, Scalar


@within(scale="(0, 2]", eps="[0, inf)")
def polyak_sgd(*, lower_bound: Scalar = 0.0, scale: Scalar = 1.0, eps: Scalar = 0.0) -> Optimizer:
    """Gradient descent with Polyak's step: as far as a linear loss would fall to its lower bound.

        step = min(scale max(loss - lower_bound, 0) / (||g||^2 + eps), lr)
        update = -step g

    lr is the longest step. The batch's loss comes from the objective.

    Args:
      lower_bound: of a batch's loss, with penalty; 0 where a model can fit its data.
      scale: 1 / c of the paper, at most 2.
      eps: added to the squared norm, at least 0.

    State: ().
    Raises: ValueError, in update, without an objective.
    Source: Loizou et al. 2021, arXiv:2002.10542, SPS_max; the positive part is that of SPS+,
      Garrigos et al. 2023, arXiv:2307.14528. Compat: `optax.polyak_sgd(variant='sps+')`. Optax
      takes the norm after its scaling s: here scale = 1 / s, lr = s max_learning_rate.

    >>> from fnn.types import Objective
    >>> params, grads = {'w': jnp.array([3.0])}, {'w': jnp.array([6.0])}   # of w^2
    >>> at_9 = Objective(jnp.float32(9), None)
    >>> polyak_sgd().update(grads, (), params, 1.0, at_9)[0]['w'].tolist()
    [-1.5]
    """

    def update(grads, state, params, lr, objective=None):
        objective = expect_objective("polyak_sgd", objective, "the loss")
        square = tree.squared_norms(grads)[0]
        eps_, low, rate, s = (jnp.asarray(x, square.dtype) for x in (eps, lower_bound, lr, scale))
        gap = s * jnp.maximum(objective.value.astype(square.dtype) - low, 0)
        step = capped_quotient(gap, square + eps_, rate)
        return tree.scale(-step, grads), state

    return from_update("polyak_sgd", lambda params: (), update)


def capped_quotient(a, b, cap):
    """min(a / b, cap) for a, b and cap of at least 0; the cap where b is 0.

    >>> capped_quotient(jnp.array([1.0, 1.0]), jnp.array([0.0, 4.0]), 2.0).tolist()
    [2.0, 0.25]
    """
    full = a >= cap * b
    return jnp.where(full, cap, a / jnp.where(full, 1, b))
