"""Line searches along a descent direction."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import expect_rising, within
from fnn.types import Scalar


class Line(NamedTuple):
    """The loss along a direction d: phi(t) = loss(p + t d)."""

    value: Float[Array, ""]  # phi(0)
    slope: Float[Array, ""]  # phi'(0), at most 0 where d descends
    at: Callable[[Array], tuple[Array, Array]]  # t -> phi(t), phi'(t)


LineSearch = Callable[[Line, Array], Array]  # (line, first trial) -> step size, 0 if none


def full_step() -> LineSearch:
    """No search: returns the first trial without evaluating it.

    >>> full_step()(None, jnp.float32(0.5)).item()
    0.5
    """
    return lambda line, first: first


@within(shrink="(0, 1)", decrease="(0, 1)")
def backtracking(
    *, shrink: Scalar = 0.5, decrease: Scalar = 1e-4, max_trials: int = 20
) -> LineSearch:
    """Backtracking: the first of t, shrink t, shrink^2 t, ... with sufficient decrease.

        phi(t) <= phi(0) + decrease t phi'(0)

    Args:
      shrink: from trial to trial, in (0, 1).
      decrease: required fraction of the decrease predicted by the slope, in (0, 1).
      max_trials: largest number of evaluations of loss and gradient.

    Source: Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.

    >>> line = Line(jnp.float32(1), jnp.float32(-2), lambda t: ((1 - t) ** 2, 2 * (t - 1)))
    >>> backtracking()(line, jnp.float32(3)).item()
    1.5
    """

    def search(line: Line, first: Array) -> Array:
        def try_one(trial: _Trial, high: Array, steep: Array) -> _Trial:
            smaller = trial.scale * jnp.asarray(shrink, trial.scale.dtype)
            return trial._replace(
                scale=jnp.where(high, smaller, trial.scale),
                good=jnp.where(high, 0, trial.scale),
                done=~high,
            )

        return _search(line, first, try_one, decrease, 0.0, max_trials)

    return search


@within(decrease="(0, 0.5)", curvature="(0, 1)")
def wolfe(*, decrease: Scalar = 1e-4, curvature: Scalar = 0.9, max_trials: int = 20) -> LineSearch:
    """A step size that satisfies the weak Wolfe conditions, by doubling and bisection.

        phi(t) <= phi(0) + decrease t phi'(0),        phi'(t) >= curvature phi'(0)

    Such a step gives L-BFGS a pair of positive curvature.

    Args:
      decrease: required fraction of the decrease predicted by the slope, in (0, 1/2).
      curvature: largest remaining fraction of the slope, in (decrease, 1).
      max_trials: largest number of evaluations of loss and gradient.

    Source: Lewis & Overton 2013, Nonsmooth optimization via quasi-Newton methods, Algorithm 2.6.

    >>> line = Line(jnp.float32(1), jnp.float32(-2), lambda t: ((1 - t) ** 2, 2 * (t - 1)))
    >>> float(f"{wolfe()(line, jnp.float32(0.03)):.3g}")
    0.12
    """
    ends = ("decrease", decrease), ("curvature", curvature)
    expect_rising("wolfe", *ends, strictly=True)

    def search(line: Line, first: Array) -> Array:
        def try_one(trial: _Trial, high: Array, steep: Array) -> _Trial:
            low = jnp.where(high, trial.good, trial.scale)
            top = jnp.where(high, trial.scale, trial.top)
            between = jnp.where(
                jnp.isinf(top), 2 * low, (low + jnp.where(jnp.isinf(top), 0, top)) / 2
            )
            done = ~high & ~steep
            return trial._replace(
                scale=jnp.where(done, trial.scale, between), good=low, top=top, done=done
            )

        return _search(line, first, try_one, decrease, curvature, max_trials)

    return search


class _Trial(NamedTuple):
    trials: Array  # evaluations so far
    scale: Array  # of the next trial, relative to the first
    good: Array  # the largest scale with sufficient decrease, 0 before the first
    top: Array  # the smallest without, infinite before the first
    done: Array  # whether `good` is accepted


def _search(
    line: Line,
    first: Array,
    try_one: Callable[[_Trial, Array, Array], _Trial],
    decrease: Scalar,
    curvature: Scalar,
    max_trials: int,
) -> Array:
    """The first trial times a piecewise constant scale; no derivative passes through the loop."""
    dtype = first.dtype
    constants = (line.value, line.slope, first, decrease, curvature)
    value, slope, unit, c1, c2 = (jax.lax.stop_gradient(jnp.asarray(x, dtype)) for x in constants)
    at, hidden = jax.closure_convert(line.at, unit)
    hidden = [jax.lax.stop_gradient(x) for x in hidden]
    slack = jnp.finfo(dtype).eps * jnp.abs(value)  # else rounding may stop the search

    def body(trial: _Trial) -> _Trial:
        t = trial.scale * unit
        phi, slope_t = (x.astype(dtype) for x in at(t, *hidden))
        high = ~(phi <= value + c1 * t * slope + slack)  # NaN is too high
        return try_one(trial, high, slope_t < c2 * slope)._replace(trials=trial.trials + 1)

    start = _Trial(
        trials=jnp.int32(0),
        scale=jnp.ones((), dtype),
        good=jnp.zeros((), dtype),
        top=jnp.full((), jnp.inf, dtype),
        done=jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(lambda trial: ~trial.done & (trial.trials < max_trials), body, start)
    return jax.lax.stop_gradient(end.good) * first
