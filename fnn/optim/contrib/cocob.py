"""COCOB: parameter-free optimization by coin betting."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes, tree
from fnn.expect import within
from fnn.optim._base import from_update
from fnn.optim._wrap import wide_copy
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CocobState:
    """The first parameters, and sums over the gradients of each of them."""

    start: Params  # in at least float32, as all of them
    largest: Params  # |c| so far
    total: Params  # sum of |c|
    sum: Params  # sum of -c
    reward: Params  # sum of -c (p - start), at least 0


@within(alpha="(0, inf)", eps="(0, inf)")
def cocob(*, alpha: Scalar = 100.0, eps: Scalar = 1e-8) -> Optimizer:
    """COCOB: parameter-free coin betting; each parameter is a bet from the wealth won so far.

        c = lr g
        l <- max(l, |c|)        s <- s + |c|        r <- max(r - c (p - p_0), 0)
        x <- x - c              for each parameter
        p + update = p_0 + x / max(s + l, alpha l) (1 + r / l)

    A constant lr has no effect: use 1. A decreasing one reduces the weight of later gradients.

    Args:
      alpha: the first bets are at most 1 / alpha of the wealth, which is the size of the first step
        in the unit of p; above 0.
      eps: initial l, in the unit of c, above 0; it is also the initial wealth.

    State: CocobState, five trees like params.
    Source: Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2. Deviates: eps, as in Optax, for
      zero gradients. Compat: `optax.contrib.cocob`; its weight_decay is
      `chain(add_l2(...), cocob())`.

    >>> opt, params = cocob(alpha=10.0), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([300.0, -2.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """

    def init(params: Params) -> CocobState:
        def zeros() -> Params:
            return tree.zeros_like(params)

        largest = jax.tree.map(lambda z: z + jnp.asarray(eps, z.dtype), zeros())
        return CocobState(
            start=wide_copy(params), largest=largest, total=zeros(), sum=zeros(), reward=zeros()
        )

    def update(
        grads: Params, state: CocobState, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, CocobState]:
        c, params = tree.scale(lr, grads), dtypes.wide(params)
        moved = jax.tree.map(jnp.subtract, params, state.start)
        largest = jax.tree.map(lambda old, c: jnp.maximum(old, jnp.abs(c)), state.largest, c)
        total = jax.tree.map(lambda s, c: s + jnp.abs(c), state.total, c)
        reward = jax.tree.map(lambda r, c, x: jnp.maximum(r - c * x, 0), state.reward, c, moved)
        signed = jax.tree.map(jnp.subtract, state.sum, c)

        def leaf(moved: Array, most: Array, s: Array, x: Array, r: Array) -> Array:
            bet = x / jnp.maximum(s + most, jnp.asarray(alpha, most.dtype) * most)
            return bet * (1 + r / most) - moved

        updates = jax.tree.map(leaf, moved, largest, total, signed, reward)
        return updates, CocobState(
            start=state.start, largest=largest, total=total, sum=signed, reward=reward
        )

    return from_update("cocob", init, update)
