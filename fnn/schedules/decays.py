"""Step, exponential and inverse square root decay."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import within
from fnn.schedules._base import periods, scalars
from fnn.types import Scalar, Schedule


@within(factor="(0, inf)", every_steps="[1, inf)")
def step_decay(start: Scalar, *, factor: Scalar, every_steps: Scalar) -> Schedule:
    """`start * factor^floor(step / every_steps)`: multiplies the lr at regular intervals.

    Args:
      start: initial lr.
      factor: above 0.
      every_steps: length of an interval, in steps, at least 1.

    >>> lr = step_decay(1.0, factor=0.5, every_steps=10)
    >>> [lr(step).item() for step in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, lr, f, n = scalars(step, start, factor, every_steps)
        return lr * f ** periods(t, n)

    return schedule


@within(factor="(0, inf)")
def multi_step(start: Scalar, *, factor: Scalar, boundaries: Sequence[Scalar]) -> Schedule:
    """Multiplies the lr by `factor` at each boundary.

    Args:
      start: lr before the first boundary.
      factor: above 0.
      boundaries: steps, in any order; their number is static, their values may be traced.

    >>> lr = multi_step(1.0, factor=0.5, boundaries=[10, 15])
    >>> [lr(step).item() for step in (0, 9, 10, 14, 15)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, lr, f, *begins = scalars(step, start, factor, *boundaries)
        for begin in begins:
            lr = jnp.where(t >= begin, lr * f, lr)
        return lr

    return schedule


@within(factor="(0, inf)", every_steps="[1, inf)")
def exponential_decay(start: Scalar, *, factor: Scalar, every_steps: Scalar) -> Schedule:
    """`start * factor^(step / every_steps)`: the smooth form of `step_decay`.

    >>> lr = exponential_decay(1.0, factor=0.25, every_steps=10)
    >>> [lr(step).item() for step in (0, 5, 10)]
    [1.0, 0.5, 0.25]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, lr, f, n = scalars(step, start, factor, every_steps)
        return lr * f ** (t / n)

    return schedule


@within(warmup_steps="[0, inf)")
def inverse_sqrt(peak: Scalar, *, warmup_steps: Scalar) -> Schedule:
    """Linear warm-up from 0 to `peak`, then decay with the inverse square root of the step.

        t < W:   peak t / W
        t >= W:  peak sqrt(W / t)

    It does not depend on the length of training.

    Args:
      peak: the highest lr, reached at step W exactly.
      warmup_steps: W, in steps, at least 0.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 5.3, where peak is (width W)^-0.5.
      Deviates: steps count from 0, and the peak is an argument.

    >>> lr = inverse_sqrt(1.0, warmup_steps=10)
    >>> [lr(step).item() for step in (0, 5, 10, 40)]
    [0.0, 0.5, 1.0, 0.5]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, top, w = scalars(step, peak, warmup_steps)
        w = jnp.maximum(w, 1)
        return jnp.where(t < w, top * t / w, top * jnp.sqrt(w / jnp.maximum(t, w)))

    return schedule
