"""Cosine decay, with and without warm restarts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import within
from fnn.schedules._base import blend, fraction, half_cosine, scalars
from fnn.types import Scalar, Schedule


@within(total_steps="(0, inf)")
def cosine(start: Scalar, *, total_steps: Scalar, end: Scalar = 0.0) -> Schedule:
    """Cosine decay from `start` at step 0 to `end` at `total_steps`, then constant.

        lr(t) = end + (start - end) (1 + cos(pi t / T)) / 2

    Args:
      start, end: initial and final lr.
      total_steps: T, in steps, above 0.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5 (one period).

    >>> lr = cosine(1.0, total_steps=100)
    >>> [round(lr(step).item(), 4) for step in (0, 50, 100, 120)]
    [1.0, 0.5, 0.0, 0.0]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, first, last, total = scalars(step, start, end, total_steps)
        return blend(first, last, half_cosine(fraction(t, total)))

    return schedule


@within(first_steps="(0, inf)", growth="[1, inf)")
def cosine_restarts(
    start: Scalar, *, first_steps: Scalar, growth: Scalar = 1.0, end: Scalar = 0.0
) -> Schedule:
    """Cosine decay from `start` towards `end` with warm restarts.

    Period i has T_i = T_0 growth^i steps; the step at which it would reach `end` is the first of
    the next, with lr `start`.

    Args:
      start, end: initial and final lr of each period.
      first_steps: T_0, in steps, above 0.
      growth: ratio of the lengths of successive periods, at least 1; 2 in the paper.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, section 3 (SGDR).

    >>> lr = cosine_restarts(1.0, first_steps=10, growth=2)
    >>> [round(lr(step).item(), 4) for step in (0, 5, 10, 20, 29, 30)]
    [1.0, 0.5, 1.0, 0.5, 0.0062, 1.0]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, first, last, length, g = scalars(step, start, end, first_steps, growth)
        begin, period = _period(t, length, g)
        return blend(first, last, half_cosine(fraction(t - begin, period)))

    return schedule


def _period(t: Array, length: Array, growth: Array) -> tuple[Array, Array]:
    """First step and length of the period that holds step t."""
    grows = growth > 1
    more = jnp.where(grows, growth - 1, 1)
    log_growth = jnp.log1p(more)

    def begin(i: Array) -> Array:  # T_0 (g^i - 1) / (g - 1)
        # The power is exact for integers, and expm1 is accurate for g near 1.
        g_power = jnp.where(more >= 0.5, (1 + more) ** i - 1, jnp.expm1(i * log_growth))
        return length * jnp.where(grows, g_power / more, i)

    i = jnp.where(grows, jnp.log1p(t * more / length) / log_growth, t / length)
    # Starts the period at its boundary, up to rounding.
    nearest = jax.lax.stop_gradient(jnp.round(i))
    i = jnp.where(begin(nearest) <= t * (1 + 4 * jnp.finfo(t.dtype).eps), nearest, nearest - 1)
    return begin(i), length * jnp.where(grows, (1 + more) ** i, 1)
