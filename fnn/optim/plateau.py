"""A learning rate that falls when the loss does not."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, schedules
from fnn.expect import within
from fnn.optim.base import expect_objective
from fnn.optim.wrap import choose, wrapping
from fnn.schedules import PlateauState
from fnn.schedules.plateau import INTERVALS
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ReduceOnPlateauState:
    """What the batches' losses have shown so far, beside the state of the optimizer."""

    plateau: PlateauState
    total: Float[Array, ""]  # of the losses since the last mean
    seen: Int[Array, ""]  # how many they are, int32
    inner: Any  # the optimizer's state


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
    """An optimizer whose lr is cut when the loss of the training batches stops falling.

    The losses of `every_steps` steps are averaged; `schedules.reduce_on_plateau` reads the means.
    The step that completes a mean already uses the new factor.

    Args:
      every_steps: steps to a mean, at least 1: an epoch, or as many as make the noise of the mean
        smaller than the progress. `patience` and `cooldown` count means.
      factor, patience, rtol, atol, cooldown, least: as in `schedules.reduce_on_plateau`.

    State: ReduceOnPlateauState.
    Raises: ValueError, in update, without an objective: it holds the loss.
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
        objective: Objective | None = None,
    ) -> tuple[Params, ReduceOnPlateauState]:
        objective = expect_objective("reduce_on_plateau", objective, "the loss")
        total = state.total + objective.value.astype(state.total.dtype)
        seen = state.seen + 1
        full = seen >= jnp.asarray(every_steps, seen.dtype)
        after = plateau.update(total / seen.astype(total.dtype), state.plateau)
        new = choose(full, after, state.plateau)
        wide = dtypes.at_least_float32(lr)
        lr = jnp.asarray(lr, wide) * new.factor.astype(wide)
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        total, seen = jnp.where(full, 0, total), jnp.where(full, 0, seen)
        return updates, ReduceOnPlateauState(plateau=new, total=total, seen=seen, inner=inner)

    return wrapping("reduce_on_plateau", optimizer, init, update)
