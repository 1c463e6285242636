"""Averages of the parameters: EMA, SWA and lookahead."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.dtypes import wide
from fnn.expect import within
from fnn.optim._base import bias_correction
from fnn.optim._wrap import cast_like, tree_where, wide_copy, wrap
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AverageState:
    """An average of the weights, and the state of the optimizer that moves them."""

    step: Int[Array, ""]  # updates made so far, int32
    average: Params  # in at least float32; the first parameters before the first average
    inner: Any


@within(decay="[0, 1)")
def ema(optimizer: Optimizer, *, decay: Scalar = 0.999) -> Optimizer:
    """Exponential moving average of the weights, for evaluation; training is unchanged.

        p <- p + update,   from `optimizer`
        average <- average + (1 - decay) / (1 - decay^t) (p - average)

    The average after t updates is sum_i decay^(t-i) p_i / sum_i decay^(t-i), without the initial
    parameters.

    Args:
      decay: decay rate of the average, in [0, 1).

    State: AverageState. `weights` gives the average (of the optimizer's own `weights`).
    Source: Polyak & Juditsky 1992; corrected for its start as Adam's moments are. Compat:
      `optax.ema(debias=True)` of the weights; PyTorch's AveragedModel with `get_ema_avg_fn` and
      Keras begin with the first weights instead, so theirs lag at the start.

    >>> from fnn.optim import sgd
    >>> opt, params = ema(sgd(), decay=0.5), {'w': jnp.zeros(1)}
    >>> state = opt.init(params)
    >>> for _ in range(2):   # the weights go to 1 and then to 2
    ...     updates, state = opt.update({'w': -jnp.ones(1)}, state, params, 1.0)
    ...     params = tree.add(params, updates)
    >>> float(f"{opt.weights(state, params)['w'][0]:.3g}")   # (0.5 * 1 + 2) / 1.5
    1.67
    """

    def follow(step: Array, average: Params, weights: Params) -> Params:
        def leaf(a: Array, w: Array) -> Array:
            t = step.astype(a.dtype)
            return a + jnp.asarray(1 - decay, a.dtype) / bias_correction(decay, t) * (w - a)

        return jax.tree.map(leaf, average, weights)

    return _averaging("ema", optimizer, follow)


@within(start="[1, inf)", period="[1, inf)")
def swa(optimizer: Optimizer, *, start: Scalar, period: Scalar = 1) -> Optimizer:
    """Stochastic weight averaging: the mean of the weights over the end of training.

        p <- p + update,   from `optimizer`
        after update number start, start + period, ...:   average <- their mean so far

    From `start` on, use a constant or cyclic lr, higher than a schedule would end with.

    Args:
      start: number of updates before the first average, at least 1.
      period: updates between averaged weights; for a cyclic lr the length of a cycle.

    State: AverageState. `weights` gives the mean, and before `start` the current weights. The
      running statistics of norms should be recomputed for it.
    Source: Izmailov et al. 2018, arXiv:1803.05407, Algorithm 1. Compat: PyTorch's AveragedModel,
      updated after the same steps.

    >>> from fnn.optim import sgd
    >>> opt, params = swa(sgd(), start=2), {'w': jnp.zeros(1)}
    >>> state = opt.init(params)
    >>> for _ in range(3):   # the weights go to 1, 2 and 3
    ...     updates, state = opt.update({'w': -jnp.ones(1)}, state, params, 1.0)
    ...     params = tree.add(params, updates)
    >>> opt.weights(state, params)['w'].tolist()
    [2.5]
    """

    def follow(step: Array, average: Params, weights: Params) -> Params:
        first, every = (jnp.asarray(n).astype(jnp.int32) for n in (start, period))
        since = step - first
        count = jnp.maximum(since // every + 1, 1)
        mean = jax.tree.map(lambda a, w: a + (w - a) / count.astype(a.dtype), average, weights)
        # Before the start the average is the current weights.
        return tree_where(since < 0, weights, tree_where(since % every == 0, mean, average))

    return _averaging("swa", optimizer, follow)


def _averaging(
    name: str, optimizer: Optimizer, follow: Callable[[Array, Params, Params], Params]
) -> Optimizer:
    """`follow`: (step, average, weights) -> average."""

    def init(params: Params) -> AverageState:
        inner = optimizer.init(params)
        return AverageState(step=jnp.int32(0), average=wide_copy(params), inner=inner)

    def update(
        grads: Params, state: AverageState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, AverageState]:
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        new = optimizer.weights(inner, tree.add(params, updates))
        step = state.step + 1
        average = follow(step, state.average, wide(new))
        return updates, AverageState(step=step, average=average, inner=inner)

    def weights(state: AverageState, params: Params) -> Params:
        return cast_like(state.average, params)

    return wrap(name, optimizer, init, update, weights=weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LookaheadState:
    """The slow weights, and the state of the optimizer that moves the fast ones."""

    step: Int[Array, ""]  # updates made so far, int32
    slow: Params  # in at least float32
    inner: Any


@within(period="[1, inf)", slow_step="(0, 1]")
def lookahead(optimizer: Optimizer, *, period: Scalar = 5, slow_step: Scalar = 0.5) -> Optimizer:
    """Lookahead: slow weights that interpolate towards the fast ones every k updates.

        p <- p + update,   from `optimizer`
        every k-th time:   slow <- slow + slow_step (p - slow),   p <- slow

    Args:
      optimizer: moves the fast weights p, which are those that are trained.
      period: k, the number of updates between synchronizations, at least 1.
      slow_step: step size of the slow weights, in (0, 1].

    State: LookaheadState. `weights` gives the slow weights.
    Source: Zhang et al. 2019, arXiv:1907.08610, Algorithm 1. The optimizer's state is kept over a
      synchronization (the paper's first choice). Compat: `optax.lookahead`, which has no defaults.

    >>> from fnn.optim import sgd
    >>> opt, params = lookahead(sgd(), period=1), {'w': jnp.array([1.0])}
    >>> updates, _ = opt.update({'w': jnp.array([1.0])}, opt.init(params), params, 0.5)
    >>> updates['w'].tolist()
    [-0.25]
    """

    def init(params: Params) -> LookaheadState:
        inner = optimizer.init(params)
        return LookaheadState(step=jnp.int32(0), slow=wide_copy(params), inner=inner)

    def update(
        grads: Params, state: LookaheadState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, LookaheadState]:
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        step, start, updates = state.step + 1, wide(params), wide(updates)

        def follow(slow: Array, p: Array, u: Array) -> Array:
            return slow + jnp.asarray(slow_step, slow.dtype) * (p + u - slow)

        moved = jax.tree.map(follow, state.slow, start, updates)
        synchronize = step % jnp.asarray(period).astype(jnp.int32) == 0
        updates = tree_where(synchronize, jax.tree.map(jnp.subtract, moved, start), updates)
        slow = tree_where(synchronize, moved, state.slow)
        return updates, LookaheadState(step=step, slow=slow, inner=inner)

    def weights(state: LookaheadState, params: Params) -> Params:
        return optimizer.weights(state.inner, cast_like(state.slow, params))

    return wrap("lookahead", optimizer, init, update, weights=weights)
