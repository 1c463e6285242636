"""One-cycle and cyclic schedules."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import within
from fnn.schedules._base import blend, periods, scalars
from fnn.schedules.piecewise import piecewise_cosine
from fnn.types import Scalar, Schedule


@within(
    total_steps="(0, inf)",
    warmup_fraction="(0, 1)",
    start_divisor="(0, inf)",
    end_divisor="(0, inf)",
)
def one_cycle(
    peak: Scalar,
    *,
    total_steps: Scalar,
    warmup_fraction: Scalar = 0.3,
    start_divisor: Scalar = 25.0,
    end_divisor: Scalar = 1e4,
) -> Schedule:
    """Cosine warm-up to `peak`, then cosine decay to far below the initial lr.

        peak / start_divisor -> peak -> peak / (start_divisor end_divisor)

    Args:
      peak: the highest lr, reached at step warmup_fraction * T exactly.
      total_steps: T, in steps, above 0.
      warmup_fraction: of T, in (0, 1).
      start_divisor: peak / initial lr.
      end_divisor: initial lr / final lr.

    Source: Smith & Topin 2018, arXiv:1708.07120; its momentum is `one_cycle_momentum`.
    Compat: Optax's cosine_onecycle_schedule rounds the step of the peak down. PyTorch's OneCycleLR
      is this with total_steps=T - 1 and warmup_fraction=(warmup_fraction T - 1) / (T - 1).

    >>> lr = one_cycle(1.0, total_steps=100)
    >>> [round(lr(step).item(), 6) for step in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.500002, 4e-06]
    """
    top, total, rise, up, down = scalars(
        peak, total_steps, warmup_fraction, start_divisor, end_divisor
    )
    values = [top / up, top, top / (up * down)]
    return piecewise_cosine(values, steps=[0, rise * total, total])


@within(total_steps="(0, inf)", warmup_fraction="(0, 1)")
def one_cycle_momentum(
    high: Scalar = 0.95,
    *,
    total_steps: Scalar,
    warmup_fraction: Scalar = 0.3,
    low: Scalar = 0.85,
) -> Schedule:
    """The momentum schedule for `one_cycle`: lowest where the lr is highest.

        high -> low -> high

    Args:
      high, low: momentum at both ends, and at the peak of the lr.
      total_steps, warmup_fraction: as in `one_cycle`.

    Source: Smith & Topin 2018, arXiv:1708.07120; Smith 2018, arXiv:1803.09820, section 4.3.
    Compat: PyTorch's OneCycleLR schedules the momentum (b1 of Adam) like this with T - 1 for T.

    >>> from fnn import optim
    >>> momentum = one_cycle_momentum(total_steps=100)
    >>> [round(momentum(step).item(), 4) for step in (0, 30, 100)]
    [0.95, 0.85, 0.95]
    >>> optimizer = optim.scheduled(optim.sgd, momentum=momentum)
    """
    total, rise = scalars(total_steps, warmup_fraction)
    return piecewise_cosine([high, low, high], steps=[0, rise * total, total])


@within(half_steps="(0, inf)")
def cyclic(low: Scalar, *, high: Scalar, half_steps: Scalar) -> Schedule:
    """Triangular cycles from `low` to `high` and back.

    Args:
      low, high: lr at the ends and at the middle of each cycle.
      half_steps: half the length of a cycle, in steps, above 0.

    Source: Smith 2017, arXiv:1506.01186, section 3.2 ("triangular").

    >>> lr = cyclic(0.0, high=1.0, half_steps=10)
    >>> [lr(step).item() for step in (0, 5, 10, 15, 20, 30)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 1.0]
    """
    return _triangles(low, high, half_steps, lambda cycle, t: jnp.ones_like(t))


@within(half_steps="(0, inf)")
def cyclic_halving(low: Scalar, *, high: Scalar, half_steps: Scalar) -> Schedule:
    """`cyclic` with an amplitude that is halved after each cycle.

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
    """`cyclic` with an amplitude that is multiplied by `factor` at every step.

    Args:
      low, high, half_steps: as in `cyclic`.
      factor: in (0, 1], close to 1; the amplitude is (high - low) factor^step.

    Source: Smith 2017, arXiv:1506.01186, section 3.2 ("exp_range"). Deviates: the paper shrinks
      both bounds, this (and PyTorch) the distance between them.

    >>> lr = cyclic_exponential(0.0, high=1.0, half_steps=10, factor=0.9)
    >>> [round(lr(step).item(), 4) for step in (0, 10, 20, 30)]
    [0.0, 0.3487, 0.0, 0.0424]
    """

    def amplitude(cycle: Array, t: Array) -> Array:
        return scalars(factor, t)[0] ** t

    return _triangles(low, high, half_steps, amplitude)


def _triangles(
    low: Scalar, high: Scalar, half_steps: Scalar, amplitude: Callable[[Array, Array], Array]
) -> Schedule:
    def schedule(step: Scalar) -> Float[Array, ""]:
        t, bottom, top, half = scalars(step, low, high, half_steps)
        cycle = periods(t, 2 * half)
        up = 1 - jnp.abs((t - cycle * 2 * half) / half - 1)
        return blend(bottom, top, jnp.clip(up, 0, 1) * amplitude(cycle, t))

    return schedule
