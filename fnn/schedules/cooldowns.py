"""Warmup-stable-decay schedules: the length of training can be chosen late."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.autodiff import safe_sqrt
from fnn.expect import expect_rising, within
from fnn.schedules._base import blend, fraction, scalars
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
    """Linear warm-up to `peak`, constant, then linear decay to `end`: a trapezoid.

    Args:
      peak: lr of the constant phase.
      warmup_steps: in steps; 0 for no warm-up.
      total_steps: length of all three phases.
      cooldown_steps: length of the decay, usually 10 to 20 % of `total_steps`.
      start, end: lr at step 0, and from `total_steps` on.

    Raises: ValueError if known warm-up and cooldown are together longer than `total_steps`.
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
    """Linear warm-up to `peak`, constant, then 1-sqrt decay to `end`, which falls fast at first.

        at fraction s of the cooldown:   end + (peak - end) (1 - sqrt(s))

    Args, Raises: as in `warmup_stable_decay`.
    Source: Hägele et al. 2024, arXiv:2405.18392, section 3 (1-sqrt), where it beats linear decay.

    >>> lr = warmup_stable_sqrt_decay(1.0, warmup_steps=10, total_steps=100, cooldown_steps=20)
    >>> [lr(step).item() for step in (0, 10, 80, 85, 100)]
    [0.0, 1.0, 1.0, 0.5, 0.0]
    """
    lengths = (warmup_steps, total_steps, cooldown_steps)
    return _trapezoid("warmup_stable_sqrt_decay", (start, peak, end), lengths, safe_sqrt)


def _trapezoid(
    where: str,
    lrs: tuple[Scalar, Scalar, Scalar],
    lengths: tuple[Scalar, Scalar, Scalar],
    ease: Callable[[Array], Array],
) -> Schedule:
    warmup, total, cooldown = lengths
    both = ("warmup_steps + cooldown_steps", warmup + cooldown)
    expect_rising(where, both, ("total_steps", total))

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, first, top, last, w, total, down = scalars(step, *lrs, *lengths)
        rise = blend(first, top, fraction(t, w))
        fall = blend(top, last, ease(fraction(t - (total - down), down)))
        return jnp.where(t < w, rise, fall)

    return schedule
