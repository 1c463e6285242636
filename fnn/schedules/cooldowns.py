"""Schedules with a level stretch, so that the end of training can be chosen late."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.autodiff import safe_sqrt
from fnn.expect import expect_rising, within
from fnn.schedules._base import blend, scalars, share
from fnn.types import Scalar, Schedule


@within(warmup_steps="[0, inf)", total_steps="(0, inf)", cooldown_steps="[0, inf)")
def warmup_stable_decay(
    peak: Scalar,
    *,
    warmup_steps: Scalar,
    total_steps: Scalar,
    cooldown_steps: Scalar,
    start: Scalar = 0.0,
    end: Scalar = 0.0,
) -> Schedule:
    """A line up to `peak`, a level stretch, and a line down to `end`: a trapezoid.

    Args:
      peak: lr of the level stretch.
      warmup_steps: in steps; 0 for no warm-up.
      total_steps: length of all three parts together.
      cooldown_steps: length of the last part, a tenth to a fifth of all; with the warm-up at most
        `total_steps`.
      start, end: lr at step 0, and at `total_steps` and after.

    Raises: ValueError for a warm-up and a cooldown longer than the whole, where all are known.
    Source: Zhai et al. 2022, arXiv:2106.04560, section 3.5; the name is from Hu et al. 2024,
      arXiv:2404.06395.

    >>> lr = warmup_stable_decay(1.0, warmup_steps=10, total_steps=100, cooldown_steps=20)
    >>> [lr(step).item() for step in (0, 5, 10, 80, 90, 100)]
    [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    lengths = (warmup_steps, total_steps, cooldown_steps)
    return _trapezoid("warmup_stable_decay", (start, peak, end), lengths, lambda part: part)


@within(warmup_steps="[0, inf)", total_steps="(0, inf)", cooldown_steps="[0, inf)")
def warmup_stable_sqrt_decay(
    peak: Scalar,
    *,
    warmup_steps: Scalar,
    total_steps: Scalar,
    cooldown_steps: Scalar,
    start: Scalar = 0.0,
    end: Scalar = 0.0,
) -> Schedule:
    """A line up to `peak`, a level stretch, and a cooldown that falls fast at first.

        at share s of the cooldown:   end + (peak - end) (1 - sqrt(s))

    Args: as in `warmup_stable_decay`.

    Source: Hägele et al. 2024, arXiv:2405.18392, section 3 (1-sqrt), where it beats the line.

    >>> lr = warmup_stable_sqrt_decay(1.0, warmup_steps=10, total_steps=100, cooldown_steps=20)
    >>> [lr(step).item() for step in (0, 10, 80, 85, 100)]
    [0.0, 1.0, 1.0, 0.5, 0.0]
    """
    lengths = (warmup_steps, total_steps, cooldown_steps)
    return _trapezoid("warmup_stable_sqrt_decay", (start, peak, end), lengths, safe_sqrt)


def _trapezoid(
    where: str,
    heights: tuple[Scalar, Scalar, Scalar],
    lengths: tuple[Scalar, Scalar, Scalar],
    ease: Callable[[Array], Array],
) -> Schedule:
    warmup, total, cooldown = lengths
    both = ("warmup_steps + cooldown_steps", warmup + cooldown)
    expect_rising(where, both, ("total_steps", total))

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, first, top, last, w, total, down = scalars(step, *heights, *lengths)
        rise = blend(first, top, share(t, w))
        fall = blend(top, last, ease(share(t - (total - down), down)))
        return jnp.where(t < w, rise, fall)

    return schedule
