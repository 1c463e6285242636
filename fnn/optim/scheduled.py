"""Hyperparameters that follow schedules of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn.optim.base import expect_unscaled
from fnn.types import Objective, Optimizer, Params, Schedule


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ScheduledState:
    """What a schedule needs, beside the state of the optimizer."""

    step: Int[Array, ""]  # steps so far, int32
    inner: Any  # the optimizer's state


def scheduled(make: Callable[..., Optimizer], **schedules: Schedule) -> Optimizer:
    """An optimizer whose hyperparameters change with the step.

    Args:
      make: called at each update as `make(name=schedule(step), ...)`.
      schedules: by the name of the argument. The lr has its own, in the recipe.

    State: ScheduledState. The optimizer's own must have the same shapes at every step.

    Raises: ValueError for an optimizer with a loss scale; put the loss scale around this one.

    >>> from fnn.optim import momentum
    >>> opt = scheduled(momentum, momentum=lambda step: jnp.where(step < 1, 0.5, 0.0))
    >>> params, one = {'w': jnp.zeros(1)}, {'w': jnp.ones(1)}
    >>> state = opt.init(params)
    >>> for _ in range(3):
    ...     updates, state = opt.update(one, state, params, 1.0)
    >>> updates['w'].tolist()   # the velocity is forgotten
    [-1.0]
    """

    def at(step: Int[Array, ""]) -> Optimizer:
        optimizer = make(**{name: schedule(step) for name, schedule in schedules.items()})
        expect_unscaled("scheduled", optimizer)
        return optimizer

    def init(params: Params) -> ScheduledState:
        start = jnp.int32(0)
        return ScheduledState(step=start, inner=at(start).init(params))

    def update(
        grads: Params,
        state: ScheduledState,
        params: Params,
        lr: Any,
        objective: Objective | None = None,
    ) -> tuple[Params, ScheduledState]:
        now = state.step // first.steps_per_update
        updates, inner = at(now).update(grads, state.inner, params, lr, objective)
        return updates, ScheduledState(step=state.step + 1, inner=inner)

    def weights(state: ScheduledState, params: Params) -> Params:
        # The state has seen step - 1 last, and what it averages was made with that step's values.
        last = jnp.maximum(state.step - 1, 0) // first.steps_per_update
        return at(last).weights(state.inner, params)

    first = at(jnp.int32(0))
    return first._replace(init=init, update=update, weights=weights)
