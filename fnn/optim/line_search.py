"""How far to go along a direction."""

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


LineSearch = Callable[[Line, Array], Array]  # (line, first trial) -> step length, 0 if none is good


def full_step() -> LineSearch:
    """No search: the first trial is taken, unseen.

    >>> full_step()(None, jnp.float32(0.5)).item()
    0.5
    """
    return lambda line, first: first


@within(shrink="(0, 1)", decrease="(0, 1)")
def backtracking(
    *, shrink: Scalar = 0.5, decrease: Scalar = 1e-4, max_trials: int = 20
) -> LineSearch:
    """The first of t, shrink t, shrink^2 t, ... at which the loss is low enough.

        phi(t) <= phi(0) + decrease t phi'(0)

    Args:
      shrink: from trial to trial, in (0, 1).
      decrease: the share of the decrease that the slope promises, in (0, 1).
      max_trials: evaluations of loss and gradient, at most.

    Source: Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.

    >>> line = Line(jnp.float32(1), jnp.float32(-2), lambda t: ((1 - t) ** 2, 2 * (t - 1)))
    >>> backtracking()(line, jnp.float32(3)).item()
    1.5
    """

    def search(line: Line, first: Array) -> Array:
        def try_one(trial: _Trial, high: Array, steep: Array) -> _Trial:
            smaller = trial.share * jnp.asarray(shrink, trial.share.dtype)
            return trial._replace(
                share=jnp.where(high, smaller, trial.share),
                good=jnp.where(high, 0, trial.share),
                done=~high,
            )

        return _search(line, first, try_one, decrease, 0.0, max_trials)

    return search


@within(decrease="(0, 0.5)", curvature="(0, 1)")
def wolfe(*, decrease: Scalar = 1e-4, curvature: Scalar = 0.9, max_trials: int = 20) -> LineSearch:
    """A step at which the loss is low enough and the slope flat enough, by doubling and halving.

        phi(t) <= phi(0) + decrease t phi'(0),        phi'(t) >= curvature phi'(0)

    Such a step gives L-BFGS a pair of positive curvature.

    Args:
      decrease: the share of the decrease that the slope promises, in (0, 1/2).
      curvature: the share of the slope that may be left, in (decrease, 1).
      max_trials: evaluations of loss and gradient, at most.

    Source: Lewis & Overton 2013, Nonsmooth optimization via quasi-Newton methods, Algorithm 2.6.

    >>> line = Line(jnp.float32(1), jnp.float32(-2), lambda t: ((1 - t) ** 2, 2 * (t - 1)))
    >>> wolfe()(line, jnp.float32(0.03)).round(2).item()
    0.11999999731779099
    """

    ends = ("decrease", decrease), ("curvature", curvature)
    expect_rising("wolfe", *ends, strictly=True)

    def search(line: Line, first: Array) -> Array:
        def try_one(trial: _Trial, high: Array, steep: Array) -> _Trial:
            low = jnp.where(high, trial.good, trial.share)
            top = jnp.where(high, trial.share, trial.top)
            between = jnp.where(
                jnp.isinf(top), 2 * low, (low + jnp.where(jnp.isinf(top), 0, top)) / 2
            )
            done = ~high & ~steep
            return trial._replace(
                share=jnp.where(done, trial.share, between), good=low, top=top, done=done
            )

        return _search(line, first, try_one, decrease, curvature, max_trials)

    return search


class _Trial(NamedTuple):
    trials: Array  # evaluations so far
    share: Array  # what to try next, as a share of the first trial
    good: Array  # the longest at which the loss was low enough, 0 before there is one
    top: Array  # the shortest at which it was not, infinite before there is one
    done: Array  # `good` is to be taken


def _search(
    line: Line,
    first: Array,
    try_one: Callable[[_Trial, Array, Array], _Trial],
    decrease: Scalar,
    curvature: Scalar,
    max_trials: int,
) -> Array:
    """The first trial times a share, which is constant nearby: derivatives pass by the loop."""
    dtype = first.dtype
    constants = (line.value, line.slope, first, decrease, curvature)
    value, slope, unit, c1, c2 = (jax.lax.stop_gradient(jnp.asarray(x, dtype)) for x in constants)
    at, hidden = jax.closure_convert(line.at, unit)
    hidden = [jax.lax.stop_gradient(x) for x in hidden]
    slack = jnp.finfo(dtype).eps * jnp.abs(value)  # or rounding would stop the search

    def body(trial: _Trial) -> _Trial:
        t = trial.share * unit
        now, tilt = (x.astype(dtype) for x in at(t, *hidden))
        high = ~(now <= value + c1 * t * slope + slack)  # NaN is too high
        return try_one(trial, high, tilt < c2 * slope)._replace(trials=trial.trials + 1)

    start = _Trial(
        trials=jnp.int32(0),
        share=jnp.ones((), dtype),
        good=jnp.zeros((), dtype),
        top=jnp.full((), jnp.inf, dtype),
        done=jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(lambda trial: ~trial.done & (trial.trials < max_trials), body, start)
    return jax.lax.stop_gradient(end.good) * first
