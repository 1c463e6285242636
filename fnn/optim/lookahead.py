"""Slow weights that follow fast ones."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn.dtypes import wide
from fnn.expect import within
from fnn.optim.wrap import cast_like, choose, wide_copy, wrapping
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LookaheadState:
    """The slow weights, and the state of the optimizer that moves the fast ones."""

    step: Int[Array, ""]  # updates made so far, int32
    slow: Params  # in at least float32
    inner: Any


@within(period="[1, inf)", slow_step="(0, 1]")
def lookahead(optimizer: Optimizer, *, period: Scalar = 5, slow_step: Scalar = 0.5) -> Optimizer:
    """Lookahead: after every k updates, go back part of the way that they went.

        p <- p + update,   as `optimizer` has it
        every k-th time:   slow <- slow + slow_step (p - slow),   p <- slow

    Args:
      optimizer: moves the fast weights p, which are those that are trained.
      period: k, updates between two meetings, at least 1.
      slow_step: share of the way that is kept, in (0, 1].

    State: LookaheadState. `weights` gives the slow weights.
    Source: Zhang et al. 2019, arXiv:1907.08610, Algorithm 1. The optimizer's state goes on over a
      meeting (the paper's first choice). Compat: as `optax.lookahead`, which has no defaults.
    Measured around adam: digits 98.7 % at lr 0.032; Rosenbrock in ten dimensions 0.0017 at lr
      0.1.

    >>> from fnn.optim import sgd
    >>> opt, params = lookahead(sgd(), period=1), {'w': jnp.array([1.0])}
    >>> updates, _ = opt.update({'w': jnp.array([1.0])}, opt.init(params), params, 0.5)
    >>> updates['w'].tolist()
    [-0.25]
    """

    def init(params):
        return LookaheadState(
            step=jnp.int32(0), slow=wide_copy(params), inner=optimizer.init(params)
        )

    def update(grads, state, params, lr, objective):
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        step, start, updates = state.step + 1, wide(params), wide(updates)

        def follow(slow, p, u):
            return slow + jnp.asarray(slow_step, slow.dtype) * (p + u - slow)

        moved = jax.tree.map(follow, state.slow, start, updates)
        meet = step % jnp.asarray(period).astype(jnp.int32) == 0
        updates = choose(meet, jax.tree.map(jnp.subtract, moved, start), updates)
        state = LookaheadState(step=step, slow=choose(meet, moved, state.slow), inner=inner)
        return updates, state

    def weights(state, params):
        return optimizer.weights(state.inner, cast_like(state.slow, params))

    return wrapping("lookahead", optimizer, init, update, weights=weights)
