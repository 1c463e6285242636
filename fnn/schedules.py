"""Learning-rate schedules: `schedule(step) -> lr`, a float32 scalar; step counts from 0.

Every argument may be a tracer, so lengths and heights can be swept and differentiated.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.types import Scalar, Schedule


def _float(x: Scalar) -> Float[Array, ""]:
    """As a float scalar; float64 stays float64, everything else becomes float32."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _scalars(*xs: Scalar) -> list[Array]:
    arrays = [_float(x) for x in xs]
    wide = any(a.dtype == jnp.float64 for a in arrays)
    dtype = jnp.float64 if wide else jnp.float32
    return [a.astype(dtype) for a in arrays]


def constant(value: Scalar) -> Schedule:
    """The same learning rate at every step.

    >>> constant(0.1)(1000).round(3).item()
    0.10000000149011612
    """
    return lambda step: _scalars(value)[0]


def step_decay(start: Scalar, *, factor: Scalar, every_steps: Scalar) -> Schedule:
    """`start * factor^floor(step / every_steps)`: a staircase.

    Args:
      start: lr of the first stair.
      factor: what each stair multiplies the lr by, above 0.
      every_steps: length of a stair, in steps, at least 1.

    >>> lr = step_decay(1.0, factor=0.5, every_steps=10)
    >>> [lr(step).item() for step in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, lr, f, n = _scalars(step, start, factor, every_steps)
        return lr * f ** jnp.floor(t / n)

    return schedule


def exponential_decay(start: Scalar, *, factor: Scalar, every_steps: Scalar) -> Schedule:
    """`start * factor^(step / every_steps)`: the staircase of `step_decay`, smoothed.

    >>> lr = exponential_decay(1.0, factor=0.25, every_steps=10)
    >>> [lr(step).item() for step in (0, 5, 10)]
    [1.0, 0.5, 0.25]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, lr, f, n = _scalars(step, start, factor, every_steps)
        return lr * f ** (t / n)

    return schedule


def cosine(start: Scalar, *, total_steps: Scalar, end: Scalar = 0.0) -> Schedule:
    """Half a cosine from `start` at step 0 to `end` at `total_steps`, and `end` from then on.

        lr(t) = end + (start - end) (1 + cos(pi t / T)) / 2

    Args:
      start, end: lr at the two ends.
      total_steps: T, in steps, above 0.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5 (one period).

    >>> lr = cosine(1.0, total_steps=100)
    >>> [round(lr(step).item(), 4) for step in (0, 50, 100, 120)]
    [1.0, 0.5, 0.0, 0.0]
    """
    return warmup_cosine(start, warmup_steps=0, total_steps=total_steps, end=end)


def warmup_cosine(
    peak: Scalar,
    *,
    warmup_steps: Scalar,
    total_steps: Scalar,
    start: Scalar = 0.0,
    end: Scalar = 0.0,
) -> Schedule:
    """A line from `start` to `peak`, then half a cosine down to `end`.

        t < W:   start + (peak - start) t / W
        t >= W:  end + (peak - end) (1 + cos(pi (t - W) / (T - W))) / 2

    Args:
      peak: the highest lr, reached at step W exactly.
      warmup_steps: W, in steps; 0 for no warm-up.
      total_steps: T, the length of warm-up and descent together; above W.
      start, end: lr at step 0, and at T and after.

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2 (warm-up); Loshchilov & Hutter 2017.

    >>> lr = warmup_cosine(1.0, warmup_steps=10, total_steps=100)
    >>> [round(lr(step).item(), 4) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, top, w, total, first, last = _scalars(step, peak, warmup_steps, total_steps, start, end)
        rise = first + (top - first) * t / jnp.where(w > 0, w, 1)
        span = total - w
        share = jnp.clip((t - w) / jnp.where(span > 0, span, 1), 0, 1)
        fall = last + (top - last) * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return jnp.where(t < w, rise, fall)

    return schedule
