"""Linear warm-up before another schedule."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import expect_rising, within
from fnn.schedules._base import blend, fraction, scalars
from fnn.schedules.cosines import cosine
from fnn.schedules.polynomial import linear
from fnn.types import Scalar, Schedule


@within(warmup_steps="[0, inf)")
def with_warmup(schedule: Schedule, *, warmup_steps: Scalar, start: Scalar = 0.0) -> Schedule:
    """Linear warm-up from `start` to the initial lr of a schedule, then that schedule, shifted.

        t < W:   start + (schedule(0) - start) t / W
        t >= W:  schedule(t - W)

    Args:
      schedule: counts its steps from the end of the warm-up.
      warmup_steps: W, in steps; 0 for no warm-up.
      start: lr at step 0.

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2.

    >>> from fnn.schedules import constant
    >>> lr = with_warmup(constant(1.0), warmup_steps=10)
    >>> [lr(step).item() for step in (0, 5, 10, 100)]
    [0.0, 0.5, 1.0, 1.0]
    """

    def warmed(step: Scalar) -> Float[Array, ""]:
        t, w, first = scalars(step, warmup_steps, start)
        top, first = scalars(schedule(jnp.maximum(t - w, 0)), first)
        return jnp.where(t < w, blend(first, top, fraction(t, w)), top)

    return warmed


@within(warmup_steps="[0, inf)", total_steps="(0, inf)")
def warmup_cosine(
    peak: Scalar,
    *,
    warmup_steps: Scalar,
    total_steps: Scalar,
    start: Scalar = 0.0,
    end: Scalar = 0.0,
) -> Schedule:
    """Linear warm-up from `start` to `peak`, then cosine decay to `end`.

        t < W:   start + (peak - start) t / W
        t >= W:  end + (peak - end) (1 + cos(pi (t - W) / (T - W))) / 2

    Args:
      peak: the highest lr, reached at step W exactly.
      warmup_steps: W, in steps; 0 for no warm-up.
      total_steps: T, the length of warm-up and decay together; above W.
      start, end: lr at step 0, and from step T on.

    Raises: ValueError for a known warm-up that is not shorter than a known T.
    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2 (warm-up); Loshchilov & Hutter 2017.

    >>> lr = warmup_cosine(1.0, warmup_steps=10, total_steps=100)
    >>> [round(lr(step).item(), 4) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    w, rest = _warmup_and_rest("warmup_cosine", warmup_steps, total_steps)
    return with_warmup(cosine(peak, total_steps=rest, end=end), warmup_steps=w, start=start)


@within(warmup_steps="[0, inf)", total_steps="(0, inf)")
def warmup_linear(
    peak: Scalar,
    *,
    warmup_steps: Scalar,
    total_steps: Scalar,
    start: Scalar = 0.0,
    end: Scalar = 0.0,
) -> Schedule:
    """Linear warm-up from `start` to `peak`, then linear decay to `end`.

        t < W:   start + (peak - start) t / W
        t >= W:  peak + (end - peak) (t - W) / (T - W)

    Args:
      peak: the highest lr, reached at step W exactly.
      warmup_steps: W, in steps; 0 for no warm-up.
      total_steps: T, the length of warm-up and decay together; above W.
      start, end: lr at step 0, and from step T on.

    Raises: ValueError for a known warm-up that is not shorter than a known T.
    Source: Devlin et al. 2019, arXiv:1810.04805, appendix A.2.

    >>> lr = warmup_linear(1.0, warmup_steps=10, total_steps=50)
    >>> [lr(step).item() for step in (0, 5, 10, 30, 50)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    w, rest = _warmup_and_rest("warmup_linear", warmup_steps, total_steps)
    return with_warmup(linear(peak, total_steps=rest, end=end), warmup_steps=w, start=start)


def _warmup_and_rest(where: str, warmup_steps: Scalar, total_steps: Scalar) -> tuple[Array, Array]:
    lengths = ("warmup_steps", warmup_steps), ("total_steps", total_steps)
    expect_rising(where, *lengths, strictly=True)
    w, total = scalars(warmup_steps, total_steps)
    return w, total - w
