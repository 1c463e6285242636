"""Schedules made of pieces: values, points, other schedules."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import expect_rising
from fnn.schedules._base import blend, half_cosine, scalars, share
from fnn.types import Scalar, Schedule


def piecewise_constant(values: Sequence[Scalar], *, boundaries: Sequence[Scalar]) -> Schedule:
    """The first value until the first boundary, the second from there on, and so on.

    Args:
      values: one more than boundaries.
      boundaries: the steps with which the next values begin, ascending; their number is fixed,
        their values may be traced.

    Raises: ValueError if the numbers do not fit, or known boundaries do not ascend.

    >>> lr = piecewise_constant([1.0, 0.5, 2.0], boundaries=[10, 20])
    >>> [lr(step).item() for step in (0, 9, 10, 20, 99)]
    [1.0, 1.0, 0.5, 2.0, 2.0]
    """
    _expect_one_less("piecewise_constant", "values", values, boundaries)

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, *rest = scalars(step, *values, *boundaries)
        lr = rest[0]
        for value, begin in zip(rest[1 : len(values)], rest[len(values) :], strict=True):
            lr = jnp.where(t >= begin, value, lr)
        return lr

    return schedule


def piecewise_linear(values: Sequence[Scalar], *, steps: Sequence[Scalar]) -> Schedule:
    """Lines through the points (steps[i], values[i]); level before the first and after the last.

    Args:
      values, steps: one of each for a point, at least one; steps ascending.

    Raises: ValueError if there is no point, not as many values as steps, or known steps do not
      ascend.

    >>> lr = piecewise_linear([0.0, 1.0, 0.5], steps=[0, 10, 30])
    >>> [lr(step).item() for step in (0, 5, 10, 20, 30, 99)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """
    return _through("piecewise_linear", values, steps, lambda part: part)


def piecewise_cosine(values: Sequence[Scalar], *, steps: Sequence[Scalar]) -> Schedule:
    """Half cosines through the points (steps[i], values[i]), level at each of them.

    Args: as in `piecewise_linear`.

    >>> lr = piecewise_cosine([0.0, 1.0, 0.5], steps=[0, 10, 30])
    >>> [round(lr(step).item(), 4) for step in (0, 5, 10, 20, 30, 99)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """
    return _through("piecewise_cosine", values, steps, half_cosine)


def join(schedules: Sequence[Schedule], *, boundaries: Sequence[Scalar]) -> Schedule:
    """Schedules one after another; each counts its steps from its own beginning.

    Args:
      schedules: one more than boundaries.
      boundaries: the steps with which the next schedules begin, ascending.

    Raises: ValueError if the numbers do not fit, or known boundaries do not ascend.

    >>> from fnn.schedules import constant, linear
    >>> lr = join([constant(1.0), linear(1.0, total_steps=10)], boundaries=[100])
    >>> [lr(step).item() for step in (0, 100, 105, 110)]
    [1.0, 1.0, 0.5, 0.0]
    """
    _expect_one_less("join", "schedules", schedules, boundaries)

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, *begins = scalars(step, *boundaries)
        # Never a step below 0: what a schedule gives there might be NaN.
        lrs = [s(jnp.maximum(t - b, 0)) for s, b in zip(schedules, [0 * t, *begins], strict=True)]
        t, lr, *rest = scalars(t, *lrs)
        for value, begin in zip(rest, begins, strict=True):
            lr = jnp.where(t >= begin, value, lr)
        return lr

    return schedule


def _through(
    where: str,
    values: Sequence[Scalar],
    steps: Sequence[Scalar],
    ease: Callable[[Array], Array],
) -> Schedule:
    if not values or len(values) != len(steps):
        raise ValueError(
            f"{where}: expected as many values as steps, at least one, got {len(values)} values "
            f"and {len(steps)} steps; give one of each for a point"
        )

    _expect_rising(where, "steps", steps)

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, *rest = scalars(step, *values, *steps)
        heights, places = rest[: len(values)], rest[len(values) :]
        lr = heights[0]
        for i in range(len(values) - 1):
            part = ease(share(t - places[i], places[i + 1] - places[i]))
            lr = jnp.where(t >= places[i], blend(heights[i], heights[i + 1], part), lr)
        return lr

    return schedule


def _expect_one_less(where: str, what: str, things: Sequence, boundaries: Sequence) -> None:
    if len(boundaries) != len(things) - 1:
        raise ValueError(
            f"{where}: expected one boundary less than {what}, got {len(boundaries)} for "
            f"{len(things)} {what}; a boundary is where the next begins"
        )
    _expect_rising(where, "boundaries", boundaries)


def _expect_rising(where: str, what: str, steps: Sequence[Scalar]) -> None:
    expect_rising(where, *((f"{what}[{i}]", step) for i, step in enumerate(steps)))
