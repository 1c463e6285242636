"""Piecewise schedules: constant, linear, cosine, and sequences of schedules."""

import itertools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import expect_rising
from fnn.schedules._base import blend, fraction, half_cosine, scalars
from fnn.types import Scalar, Schedule


def piecewise_constant(values: Sequence[Scalar], *, boundaries: Sequence[Scalar]) -> Schedule:
    """A constant between boundaries: values[i + 1] from step boundaries[i] on.

    Args:
      values: one more than boundaries.
      boundaries: steps in ascending order; their number is static, their values may be traced.

    Raises: ValueError for the wrong number of boundaries, or known ones that do not ascend.

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
    """Linear interpolation of the points (steps[i], values[i]), constant outside of them.

    Args:
      values, steps: of the same length, at least 1; steps in ascending order.

    Raises: ValueError for no points, unequal lengths, or known steps that do not ascend.

    >>> lr = piecewise_linear([0.0, 1.0, 0.5], steps=[0, 10, 30])
    >>> [lr(step).item() for step in (0, 5, 10, 20, 30, 99)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """
    return _through("piecewise_linear", values, steps, lambda part: part)


def piecewise_cosine(values: Sequence[Scalar], *, steps: Sequence[Scalar]) -> Schedule:
    """Cosine interpolation of the points (steps[i], values[i]), with slope 0 at each.

    Args: as in `piecewise_linear`.

    >>> lr = piecewise_cosine([0.0, 1.0, 0.5], steps=[0, 10, 30])
    >>> [round(lr(step).item(), 4) for step in (0, 5, 10, 20, 30, 99)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """
    return _through("piecewise_cosine", values, steps, half_cosine)


def join(schedules: Sequence[Schedule], *, boundaries: Sequence[Scalar]) -> Schedule:
    """A sequence of schedules, each of which counts its steps from its own start.

    Args:
      schedules: one more than boundaries.
      boundaries: steps at which the next schedules start, in ascending order.

    Raises: ValueError for the wrong number of boundaries, or known ones that do not ascend.

    >>> from fnn.schedules import constant, linear
    >>> lr = join([constant(1.0), linear(1.0, total_steps=10)], boundaries=[100])
    >>> [lr(step).item() for step in (0, 100, 105, 110)]
    [1.0, 1.0, 0.5, 0.0]
    """
    _expect_one_less("join", "schedules", schedules, boundaries)

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, *begins = scalars(step, *boundaries)
        # A schedule may be NaN at negative steps.
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
            f"and {len(steps)} steps; give one of each per point"
        )

    _expect_rising(where, "steps", steps)

    def schedule(step: Scalar) -> Float[Array, ""]:
        t, *rest = scalars(step, *values, *steps)
        points = list(zip(rest[len(values) :], rest[: len(values)], strict=True))
        lr = rest[0]
        for (begin, first), (end, last) in itertools.pairwise(points):
            part = ease(fraction(t - begin, end - begin))
            lr = jnp.where(t >= begin, blend(first, last, part), lr)
        return lr

    return schedule


def _expect_one_less(where: str, what: str, pieces: Sequence, boundaries: Sequence) -> None:
    if len(boundaries) != len(pieces) - 1:
        raise ValueError(
            f"{where}: expected one boundary less than {what}, got {len(boundaries)} for "
            f"{len(pieces)} {what}; a boundary is where the next begins"
        )
    _expect_rising(where, "boundaries", boundaries)


def _expect_rising(where: str, what: str, steps: Sequence[Scalar]) -> None:
    expect_rising(where, *((f"{what}[{i}]", step) for i, step in enumerate(steps)))
