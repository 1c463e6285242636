"""Gradient accumulation."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.dtypes import wide
from fnn.optim._wrap import wrap
from fnn.types import Objective, Optimizer, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AccumulateState:
    """The gradients since the last update, and the state of the optimizer."""

    step: Int[Array, ""]  # gradients seen so far, int32
    total: Params  # their sum since the last update, in at least float32
    inner: Any


def accumulate(optimizer: Optimizer, *, steps: int) -> Optimizer:
    """Gradient accumulation: one update for k small batches, in the memory of one.

        total <- total + g
        every k-th time:   update = optimizer's, with the gradient total / k;   total <- 0
        else:              update = 0

    k steps equal one step on the concatenated batch if the batches have equal sizes and the model
    has no batch statistics. The schedule counts updates: it advances by one in k steps.

    Args:
      steps: k, at least 1; static.

    State: AccumulateState.
    Raises: ValueError if `steps` is less than 1. The optimizer gets no objective, since the loss of
      all k batches is not available: wrap one that needs it around the accumulation instead, as in
      `sam(accumulate(adam(), steps=4))`.
    Compat: `optax.MultiSteps`.

    >>> from fnn.optim import sgd
    >>> opt, params = accumulate(sgd(), steps=2), {'w': jnp.zeros(1)}
    >>> first, state = opt.update({'w': jnp.array([1.0])}, opt.init(params), params, 1.0)
    >>> second, _ = opt.update({'w': jnp.array([3.0])}, state, params, 1.0)
    >>> first['w'].tolist(), second['w'].tolist()
    ([0.0], [-2.0])
    """

    def init(params: Params) -> AccumulateState:
        return AccumulateState(
            step=jnp.int32(0), total=tree.zeros_like(params), inner=optimizer.init(params)
        )

    def update(
        grads: Params, state: AccumulateState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, AccumulateState]:
        step = state.step + 1
        total = jax.tree.map(jnp.add, state.total, wide(grads))

        def apply(total: Params, inner: Any) -> tuple[Params, Params, Any]:
            mean = jax.tree.map(lambda t: t / steps, total)
            updates, inner = optimizer.update(mean, inner, params, lr)
            return wide(updates), jax.tree.map(jnp.zeros_like, total), inner

        def wait(total: Params, inner: Any) -> tuple[Params, Params, Any]:
            return jax.tree.map(jnp.zeros_like, total), total, inner

        # A cond, not a select: the optimizer's work may be as much as a gradient's.
        updates, total, inner = jax.lax.cond(step % steps == 0, apply, wait, total, state.inner)
        return updates, AccumulateState(step=step, total=total, inner=inner)

    accumulated = wrap("accumulate", optimizer, init, update)
    return accumulated._replace(steps_per_update=steps * optimizer.steps_per_update)
