"""Schedules that rise and fall: once, or for ever."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import within
from fnn.schedules._base import blend, periods, scalars
from fnn.schedules.piecewise import piecewise_cosine
from fnn.types import Scalar, Schedule


@within(
    total_steps="(0, inf)", warmup_share="(0, 1)", start_divisor="(0, inf)", end_divisor="(0, inf)"
)
def one_cycle(
    peak: Scalar,
    *,
    total_steps: Scalar,
    warmup_share: Scalar = 0.3,
    start_divisor: Scalar = 25.0,
    end_divisor: Scalar = 1e4,
) -> Schedule:
    """Half a cosine up to `peak`, and half a cosine down, far below where it began.

        peak / start_divisor -> peak -> peak / (start_divisor end_divisor)

    Args:
      peak: the highest lr, reached at step warmup_share * T exactly.
      total_steps: T, in steps, above 0.
      warmup_share: share of T on the way up, in (0, 1).
      start_divisor, end_divisor: what the lr rises by, and what it ends below its start by.

    Source: Smith & Topin 2018, arXiv:1708.07120; its momentum is `one_cycle_momentum`.
    Compat: Optax's cosine_onecycle_schedule rounds the step of the peak down. PyTorch's OneCycleLR
      is this with total_steps=T - 1 and warmup_share=(warmup_share T - 1) / (T - 1).

    >>> lr = one_cycle(1.0, total_steps=100)
    >>> [round(lr(step).item(), 6) for step in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.500002, 4e-06]
    """
    top, total, rise, up, down = scalars(
        peak, total_steps, warmup_share, start_divisor, end_divisor
    )
    values = [top / up, top, top / (up * down)]
    return piecewise_cosine(values, steps=[0, rise * total, total])


@within(total_steps="(0, inf)", warmup_share="(0, 1)")
def one_cycle_momentum(
    high: Scalar = 0.95,
    *,
    total_steps: Scalar,
    warmup_share: Scalar = 0.3,
    low: Scalar = 0.85,
) -> Schedule:
    """The momentum that goes with `one_cycle`: lowest where the lr is highest.

        high -> low -> high

    Args:
      high, low: momentum at both ends, and at the peak of the lr.
      total_steps, warmup_share: as for `one_cycle`.

    Source: Smith & Topin 2018, arXiv:1708.07120; Smith 2018, arXiv:1803.09820, section 4.3.
    Compat: PyTorch's OneCycleLR moves momentum (b1 for Adam) along, as this does with T - 1 for T.

    >>> from fnn import optim
    >>> momentum = one_cycle_momentum(total_steps=100)
    >>> [round(momentum(step).item(), 4) for step in (0, 30, 100)]
    [0.95, 0.85, 0.95]
    >>> optimizer = optim.scheduled(optim.nesterov, momentum=momentum)
    """
    total, rise = scalars(total_steps, warmup_share)
    return piecewise_cosine([high, low, high], steps=[0, rise * total, total])


@within(half_steps="(0, inf)")
def cyclic(low: Scalar, *, high: Scalar, half_steps: Scalar) -> Schedule:
    """A triangle from `low` to `high` and back, for ever.

    Args:
      low, high: lr at the ends and at the middle of each cycle.
      half_steps: length of the way up, and of the way down, in steps, above 0.

    Source: Smith 2017, arXiv:1506.01186, section 3.2 ("triangular").

    >>> lr = cyclic(0.0, high=1.0, half_steps=10)
    >>> [lr(step).item() for step in (0, 5, 10, 15, 20, 30)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 1.0]
    """
    return _triangles(low, high, half_steps, lambda cycle, t: jnp.ones_like(t))


@within(half_steps="(0, inf)")
def cyclic_halving(low: Scalar, *, high: Scalar, half_steps: Scalar) -> Schedule:
    """The triangles of `cyclic`, each half as high as the last.

    Source: Smith 2017, arXiv:1506.01186, section 3.2 ("triangular2").

    >>> lr = cyclic_halving(0.0, high=1.0, half_steps=10)
    >>> [lr(step).item() for step in (0, 10, 20, 30, 50)]
    [0.0, 1.0, 0.0, 0.5, 0.25]
    """
    return _triangles(low, high, half_steps, lambda cycle, t: 0.5**cycle)


@within(half_steps="(0, inf)", factor="(0, 1]")
def cyclic_exponential(
    low: Scalar, *, high: Scalar, half_steps: Scalar, factor: Scalar
) -> Schedule:
    """The triangles of `cyclic`, with a height that falls by `factor` at every step.

    Args:
      low, high, half_steps: as in `cyclic`.
      factor: in (0, 1], close to 1: height is multiplied by factor^step.

    Source: Smith 2017, arXiv:1506.01186, section 3.2 ("exp_range"). Deviates: the paper shrinks
      both bounds, this (and PyTorch) the distance between them.

    >>> lr = cyclic_exponential(0.0, high=1.0, half_steps=10, factor=0.9)
    >>> [round(lr(step).item(), 4) for step in (0, 10, 20, 30)]
    [0.0, 0.3487, 0.0, 0.0424]
    """

    def height(cycle: Array, t: Array) -> Array:
        return scalars(factor, t)[0] ** t

    return _triangles(low, high, half_steps, height)


def _triangles(
    low: Scalar, high: Scalar, half_steps: Scalar, height: Callable[[Array, Array], Array]
) -> Schedule:
    def schedule(step: Scalar) -> Float[Array, ""]:
        t, bottom, top, half = scalars(step, low, high, half_steps)
        cycle = periods(t, 2 * half)
        up = 1 - jnp.abs((t - cycle * 2 * half) / half - 1)
        return blend(bottom, top, jnp.clip(up, 0, 1) * height(cycle, t))

    return schedule
