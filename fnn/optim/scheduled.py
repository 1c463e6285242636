"""Learning rates that follow a schedule of their own or a plateau of the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, schedules
from fnn.expect import within
from fnn.optim._base import expect_objective, expect_unscaled
from fnn.optim._wrap import tree_where, wrap
from fnn.schedules import PlateauState
from fnn.schedules.plateau import INTERVALS
from fnn.types import Objective, Optimizer, Params, Scalar, Schedule


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ScheduledState:
    """The number of steps, and the state of the optimizer."""

    step: Int[Array, ""]  # steps so far, int32
    inner: Any


def scheduled(make: Callable[..., Optimizer], **schedules: Schedule) -> Optimizer:
    """An optimizer whose hyperparameters change with the step.

    Args:
      make: called at each update as `make(name=schedule(step), ...)`.
      schedules: by the name of the argument. The lr has its own schedule, in the recipe.

    State: ScheduledState. The optimizer's own must have the same shapes at every step.
    Raises: ValueError for an optimizer with a loss scale; put the loss scale around this one.

    >>> from fnn.optim import sgd
    >>> opt = scheduled(sgd, momentum=lambda step: jnp.where(step < 1, 0.5, 0.0))
    >>> params, one = {'w': jnp.zeros(1)}, {'w': jnp.ones(1)}
    >>> state = opt.init(params)
    >>> for _ in range(3):
    ...     updates, state = opt.update(one, state, params, 1.0)
    >>> updates['w'].tolist()   # momentum is 0 in the third step
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
        # The state is that of step - 1, and its averages used the values of that step.
        last = jnp.maximum(state.step - 1, 0) // first.steps_per_update
        return at(last).weights(state.inner, params)

    first = at(jnp.int32(0))
    return first._replace(init=init, update=update, weights=weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ReduceOnPlateauState:
    """The state of the plateau rule, the current mean loss, and the state of the optimizer."""

    plateau: PlateauState
    total: Float[Array, ""]  # of the losses since the last mean
    seen: Int[Array, ""]  # number of these losses, int32
    inner: Any


@within(every_steps="[1, inf)", **INTERVALS)
def reduce_on_plateau(
    optimizer: Optimizer,
    *,
    every_steps: Scalar,
    factor: Scalar = 0.1,
    patience: Scalar = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: Scalar = 0,
    least: Scalar = 0.0,
) -> Optimizer:
    """Reduces the lr of an optimizer when the training loss stops falling.

    `schedules.reduce_on_plateau` reads the mean losses of `every_steps` steps each. The step that
    completes a mean already uses the new factor.

    Args:
      every_steps: steps per mean, at least 1: an epoch, or enough for the noise of the mean to be
        smaller than the progress. `patience` and `cooldown` count means.
      factor, patience, rtol, atol, cooldown, least: as in `schedules.reduce_on_plateau`.

    State: ReduceOnPlateauState.
    Raises: ValueError, in update, without an objective, which has the loss.
    Compat: Optax's contrib.reduce_on_plateau, last in a chain, does the same by scaling the
      updates, with accumulation_size for every_steps, and patience + 1 for patience.

    >>> from fnn.optim import sgd
    >>> from fnn.types import Objective
    >>> opt = reduce_on_plateau(sgd(), every_steps=1, factor=0.5, patience=1)
    >>> params = {'w': jnp.ones(1)}
    >>> state, same = opt.init(params), Objective(jnp.float32(3), lambda params: (3, params))
    >>> for _ in range(3):
    ...     updates, state = opt.update(params, state, params, 1.0, same)
    >>> updates['w'].tolist()
    [-0.5]
    """
    plateau = schedules.reduce_on_plateau(
        factor=factor, patience=patience, rtol=rtol, atol=atol, cooldown=cooldown, least=least
    )

    def init(params: Params) -> ReduceOnPlateauState:
        state = plateau.init()
        none = jnp.zeros_like(state.best)
        inner = optimizer.init(params)
        return ReduceOnPlateauState(plateau=state, total=none, seen=jnp.int32(0), inner=inner)

    def update(
        grads: Params,
        state: ReduceOnPlateauState,
        params: Params,
        lr: Any,
        objective: Objective | None,
    ) -> tuple[Params, ReduceOnPlateauState]:
        objective = expect_objective("reduce_on_plateau", objective, "the loss")
        total = state.total + objective.value.astype(state.total.dtype)
        seen = state.seen + 1
        full = seen >= jnp.asarray(every_steps, seen.dtype)
        after = plateau.update(total / seen.astype(total.dtype), state.plateau)
        new = tree_where(full, after, state.plateau)
        wide = dtypes.at_least_float32(lr)
        lr = jnp.asarray(lr, wide) * new.factor.astype(wide)
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        total, seen = jnp.where(full, 0, total), jnp.where(full, 0, seen)
        return updates, ReduceOnPlateauState(plateau=new, total=total, seen=seen, inner=inner)

    return wrap("reduce_on_plateau", optimizer, init, update)
