"""Constant, linear and polynomial schedules."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import wide
from fnn.expect import within
from fnn.schedules._base import blend, fraction, scalars
from fnn.types import Scalar, Schedule


def constant(value: Scalar) -> Schedule:
    """The same learning rate at every step.

    >>> f"{constant(0.1)(1000):.3g}"
    '0.1'
    """
    return lambda step: wide(value)


@within(total_steps="(0, inf)")
def linear(start: Scalar, *, total_steps: Scalar, end: Scalar = 0.0) -> Schedule:
    """Linear interpolation from `start` at step 0 to `end` at `total_steps`, then constant.

    Args:
      start, end: initial and final lr; may increase or decrease.
      total_steps: in steps, above 0.

    >>> lr = linear(1.0, total_steps=100)
    >>> [lr(step).item() for step in (0, 50, 100, 120)]
    [1.0, 0.5, 0.0, 0.0]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, first, last, total = scalars(step, start, end, total_steps)
        return blend(first, last, fraction(t, total))

    return schedule


@within(total_steps="(0, inf)", power="(0, inf)")
def polynomial(start: Scalar, *, total_steps: Scalar, power: Scalar, end: Scalar = 0.0) -> Schedule:
    """Polynomial decay from `start` at step 0 to `end` at `total_steps`, then constant.

        lr(t) = end + (start - end) (1 - t / T)^power

    Args:
      start, end: initial and final lr.
      total_steps: T, in steps, above 0.
      power: above 0; 1 is linear, 2 falls fast at first, 0.5 fast at last.

    >>> lr = polynomial(1.0, total_steps=100, power=2.0)
    >>> [lr(step).item() for step in (0, 50, 100, 120)]
    [1.0, 0.25, 0.0, 0.0]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, first, last, total, p = scalars(step, start, end, total_steps, power)
        rest = 1 - fraction(t, total)
        # 0^power has an infinite slope for powers below 1.
        left = jnp.where(rest > 0, jnp.where(rest > 0, rest, 1) ** p, 0)
        return blend(last, first, left)

    return schedule
