"""A learning rate that falls when the loss does not: a state, because it depends on the past."""

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
    """What has been seen so far."""

    factor: Float[Array, ""]  # what to multiply the lr by
    best: Float[Array, ""]  # the lowest value that counted as better; infinity at the start
    since_best: Int[Array, ""]  # values without a better one, int32
    cooldown: Int[Array, ""]  # values that will not be counted, int32


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
}  # of the arguments of `reduce_on_plateau`, also of the optimizer's


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
    """Multiply the lr by `factor` after more than `patience` values in a row without a better one.

    A value is better if it is below best - rtol |best| - atol. NaN never is.

    Args:
      factor: in (0, 1).
      patience: in values, at least 0; the value after them brings the cut.
      rtol, atol: how much better a value must be to count, relative and absolute.
      cooldown: how many values after a cut are not counted against it.
      least: the factor stops there.

    Compat: as PyTorch's ReduceLROnPlateau; but that takes best - rtol best, where a negative value
      may get worse and count as better. Optax cuts one value earlier: its patience is this one
      plus 1.

    >>> plateau = reduce_on_plateau(factor=0.5, patience=1)
    >>> state = plateau.init()
    >>> for loss in (1.0, 0.9, 0.95, 0.9, 0.8):
    ...     state = plateau.update(loss, state)
    >>> state.factor.item(), state.best.round(3).item()
    (0.5, 0.800000011920929)
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
        resting = state.cooldown > 0
        since = jnp.where(better | resting, 0, state.since_best + 1)
        cut = since > jnp.asarray(patience, since.dtype)
        lower = jnp.maximum(state.factor * wide(factor), wide(least))
        rest = jnp.asarray(cooldown, jnp.int32)
        return PlateauState(
            factor=jnp.where(cut, lower.astype(state.factor.dtype), state.factor),
            best=jnp.where(better, value, state.best),
            since_best=jnp.where(cut, 0, since),
            cooldown=jnp.where(cut, rest, jnp.maximum(state.cooldown - 1, 0)),
        )

    return Plateau(init, update)


def _better(value: Array, best: Array, rtol: Scalar, atol: Scalar) -> Array:
    seen = jnp.isfinite(best)
    known = jnp.where(seen, best, 0)
    margin = jnp.asarray(rtol, best.dtype) * jnp.abs(known) + jnp.asarray(atol, best.dtype)
    return value < jnp.where(seen, known - margin, best)
