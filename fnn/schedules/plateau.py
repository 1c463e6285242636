"""Reduction of the learning rate on plateaus of the loss, as a state transition."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.dtypes import wide
from fnn.expect import within
from fnn.types import Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PlateauState:
    """State of `reduce_on_plateau`."""

    factor: Float[Array, ""]  # multiplies the lr
    best: Float[Array, ""]  # the best value so far; infinity at the start
    since_best: Int[Array, ""]  # number of values since the best, int32
    cooldown: Int[Array, ""]  # number of values that will not be counted, int32


class Plateau(NamedTuple):
    """A pure state transition: `init() -> state`, `update(value, state) -> state`."""

    init: Callable[[], PlateauState]
    update: Callable[[Scalar, PlateauState], PlateauState]


INTERVALS = {
    "factor": "(0, 1)",
    "patience": "[0, inf)",
    "rtol": "[0, inf)",
    "atol": "[0, inf)",
    "cooldown": "[0, inf)",
    "least": "[0, 1]",
}  # arguments of `reduce_on_plateau` here and in optim


@within(**INTERVALS)
def reduce_on_plateau(
    *,
    factor: Scalar = 0.1,
    patience: Scalar = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: Scalar = 0,
    least: Scalar = 0.0,
) -> Plateau:
    """Multiplies the lr by `factor` after more than `patience` values without improvement.

    A value improves if it is below best - rtol |best| - atol; NaN does not.

    Args:
      factor: in (0, 1).
      patience: number of values without improvement that are tolerated, at least 0.
      rtol, atol: relative and absolute improvement that is required.
      cooldown: number of values after a reduction that are not counted.
      least: lower bound of the product of all factors.

    Compat: PyTorch's ReduceLROnPlateau, except that it compares with best - rtol best, so that a
      negative value may improve by getting worse. Optax's patience is this one plus 1.

    >>> plateau = reduce_on_plateau(factor=0.5, patience=1)
    >>> state = plateau.init()
    >>> for loss in (1.0, 0.9, 0.95, 0.9, 0.8):
    ...     state = plateau.update(loss, state)
    >>> f"{state.factor:.3g} {state.best:.3g}"
    '0.5 0.8'
    """

    def init() -> PlateauState:
        return PlateauState(
            factor=jnp.ones_like(wide(factor)),
            best=jnp.full_like(wide(rtol), jnp.inf),
            since_best=jnp.int32(0),
            cooldown=jnp.int32(0),
        )

    def update(value: Scalar, state: PlateauState) -> PlateauState:
        value = jnp.asarray(value, state.best.dtype)
        better = _better(value, state.best, rtol, atol)
        since = jnp.where(better | (state.cooldown > 0), 0, state.since_best + 1)
        reduce = since > jnp.asarray(patience, since.dtype)
        dtype = state.factor.dtype
        lower = jnp.maximum(state.factor * jnp.asarray(factor, dtype), jnp.asarray(least, dtype))
        wait = jnp.asarray(cooldown, jnp.int32)
        return PlateauState(
            factor=jnp.where(reduce, lower, state.factor),
            best=jnp.where(better, value, state.best),
            since_best=jnp.where(reduce, 0, since),
            cooldown=jnp.where(reduce, wait, jnp.maximum(state.cooldown - 1, 0)),
        )

    return Plateau(init, update)


def _better(value: Array, best: Array, rtol: Scalar, atol: Scalar) -> Array:
    seen = jnp.isfinite(best)
    known = jnp.where(seen, best, 0)
    margin = jnp.asarray(rtol, best.dtype) * jnp.abs(known) + jnp.asarray(atol, best.dtype)
    return value < jnp.where(seen, known - margin, best)
