"""Polyak step sizes: SPS and MoMo."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, tree
from fnn.expect import within
from fnn.optim._base import (
    bias_correction,
    expect_objective,
    from_update,
    mean_square,
    moving_average,
    over_root,
    unbiased,
)
from fnn.types import Objective, Optimizer, Params, Scalar


@within(scale="(0, 2]", eps="[0, inf)")
def polyak_sgd(*, lower_bound: Scalar = 0.0, scale: Scalar = 1.0, eps: Scalar = 0.0) -> Optimizer:
    """Gradient descent with Polyak's step size, at which a linear loss reaches its lower bound.

        step = min(scale max(loss - lower_bound, 0) / (||g||^2 + eps), lr)
        update = -step g

    lr is the largest step. The batch's loss comes from the objective.

    Args:
      lower_bound: of a batch's loss, with penalty; 0 if the model can fit its data.
      scale: 1 / c of the paper, at most 2.
      eps: added to the squared norm, at least 0.

    State: ().
    Raises: ValueError, in update, without an objective.
    Source: Loizou et al. 2021, arXiv:2002.10542, SPS_max; the positive part is that of SPS+,
      Garrigos et al. 2023, arXiv:2307.14528. Compat: `optax.polyak_sgd(variant='sps+')`. Optax
      takes the norm after its scaling s: here scale = 1 / s, lr = s max_learning_rate.

    >>> from fnn.types import Objective
    >>> params, grads = {'w': jnp.array([3.0])}, {'w': jnp.array([6.0])}   # of w^2
    >>> at_9 = Objective(jnp.float32(9), None)
    >>> polyak_sgd().update(grads, (), params, 1.0, at_9)[0]['w'].tolist()
    [-1.5]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, Any]:
        objective = expect_objective("polyak_sgd", objective, "the loss")
        square = tree.squared_norms(grads)[0]
        eps_, low, rate, s = (jnp.asarray(x, square.dtype) for x in (eps, lower_bound, lr, scale))
        gap = s * jnp.maximum(objective.value.astype(square.dtype) - low, 0)
        step = _capped_quotient(gap, square + eps_, rate)
        return tree.scale(-step, grads), state

    return from_update("polyak_sgd", lambda params: (), update)


def _capped_quotient(a: Array, b: Array, cap: Array) -> Array:
    """min(a / b, cap) for a, b and cap of at least 0; the cap where b is 0."""
    full = a >= cap * b
    return jnp.where(full, cap, a / jnp.where(full, 1, b))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MomoState:
    """Running means of the gradient, the loss and <g, p>: a linear model of the loss."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # of the gradient, in at least float32
    v: Params  # second moment of `momo_adam`; () in `momo`
    loss: Float[Array, ""]  # of the loss
    product: Float[Array, ""]  # of <g, p>
    bound: Float[Array, ""]  # below the loss


@within(beta="[0, 1)", weight_decay="[0, inf)")
def momo(
    *,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_bound: bool = False,
) -> Optimizer:
    """MoMo: momentum with Polyak's step size for a linear model of the loss, at most lr.

        m, f, c: running means of g, the loss and <g, p> with decay beta, from the first ones on
        s = 1 + lr weight_decay
        step = min(max(s (f - lower_bound - c) + <m, p>, 0) / ||m||^2, lr)
        p + update = (p - step m) / s

    f + <m, x> - c is a model of the loss at x. lr is the largest step: 1, without a schedule.

    Args:
      beta: decay rate of the means, in [0, 1).
      lower_bound: of the loss, with penalty; 0 if the model can fit its data.
      weight_decay: per unit of lr, as a penalty inside the model of the loss. For decay with a mask
        put `decoupled_decay` around it.
      adapt_bound: raise the bound with the losses seen, never below `lower_bound`; static.

    State: MomoState.
    Raises: ValueError, in update, without an objective.
    Source: Schaipp et al. 2024, arXiv:2305.07583, Algorithms 1 and 3. Compat: Optax without
      decay; its update is p / s - step m - p, where the paper divides both terms.

    >>> from fnn.types import Objective
    >>> opt, params = momo(), {'w': jnp.array([3.0])}
    >>> at_9 = Objective(jnp.float32(9), None)    # the loss w^2
    >>> opt.update({'w': jnp.array([6.0])}, opt.init(params), params, 1.0, at_9)[0]['w'].tolist()
    [-1.5]
    """

    def means(step: Array, dtype: Any) -> tuple[Scalar, Array]:
        return jnp.where(step == 0, 0, jnp.asarray(beta, dtype)), jnp.ones((), dtype)

    def divided(m: Params, grads: Params, state: MomoState) -> tuple[Params, Params]:
        return m, ()

    return _momo("momo", lambda params: (), means, divided, lower_bound, weight_decay, adapt_bound)


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)", weight_decay="[0, inf)")
def momo_adam(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    adapt_bound: bool = False,
) -> Optimizer:
    """MoMo-Adam: Adam with Polyak's step size for a linear model of the loss, at most lr.

        m, f, c: running means of g, the loss and <g, p> with decay b1, from 0;   k = 1 - b1^t
        d = sqrt(v / (1 - b2^t)) + eps,   v as in Adam;   s = 1 + lr weight_decay
        step = min(max(s (f - k lower_bound - c) + <m, p>, 0) / <m, m / d>, lr / k)
        p + update = (p - step m / d) / s

    Where step is lr / k, it is Adam. lr is the largest step: 0.01, without a schedule.

    Args:
      b1, b2, eps: as in `adam`; b1 is also the decay rate of the loss.
      lower_bound, weight_decay, adapt_bound: as in `momo`.

    State: MomoState.
    Raises: ValueError, in update, without an objective.
    Source: Schaipp et al. 2024, arXiv:2305.07583, Algorithms 2 and 3. Compat: Optax without
      decay; its update is p / s - step m / d - p.

    >>> from fnn.types import Objective
    >>> opt, params = momo_adam(), {'w': jnp.array([3.0])}
    >>> at_9 = Objective(jnp.float32(9), None)    # the loss w^2
    >>> for lr in (10.0, 0.5):
    ...     updates, _ = opt.update({'w': jnp.array([6.0])}, opt.init(params), params, lr, at_9)
    ...     print(updates['w'].round(3).tolist())
    [-1.5]
    [-0.5]
    """

    def means(step: Array, dtype: Any) -> tuple[Scalar, Array]:
        return b1, bias_correction(b1, (step + 1).astype(dtype))

    def divided(m: Params, grads: Params, state: MomoState) -> tuple[Params, Params]:
        v = mean_square(b2, state.v, grads)
        return over_root(m, unbiased(b2, v, state.step + 1), eps), v

    return _momo(
        "momo_adam", tree.zeros_like, means, divided, lower_bound, weight_decay, adapt_bound
    )


def _momo(
    name: str,
    first_v: Callable[[Params], Params],
    means: Callable[[Array, Any], tuple[Scalar, Array]],
    divided: Callable[[Params, Params, MomoState], tuple[Params, Params]],
    lower_bound: Scalar,
    weight_decay: Scalar,
    adapt_bound: bool,
) -> Optimizer:
    """`means`: step, dtype -> decay, sum of the weights. `divided`: m, g, state -> direction, v."""

    def init(params: Params) -> MomoState:
        dtype = dtypes.widest(params)
        return MomoState(
            step=jnp.int32(0),
            m=tree.zeros_like(params),
            v=first_v(params),
            loss=jnp.zeros((), dtype),
            product=jnp.zeros((), dtype),
            bound=jnp.array(lower_bound, dtype, copy=True),
        )

    def update(
        grads: Params, state: MomoState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, MomoState]:
        dtype = state.loss.dtype
        value = expect_objective(name, objective, "the loss").value.astype(dtype)
        decay, weight = means(state.step, dtype)
        m = moving_average(decay, state.m, grads)
        loss = moving_average(decay, state.loss, value)
        product = moving_average(decay, state.product, tree.dot(grads, params).astype(dtype))
        direction, v = divided(m, grads, state)
        inner, square = (tree.dot(m, x).astype(dtype) for x in (params, direction))

        rate, low = jnp.asarray(lr, dtype), jnp.asarray(lower_bound, dtype)
        decay_rate = rate * jnp.asarray(weight_decay, dtype)
        shrink = 1 + decay_rate
        high, limit = shrink * (loss - product) + inner, shrink * weight
        bound = _below(high, limit, state.bound, low) if adapt_bound else low
        step = _capped_quotient(jnp.maximum(high - limit * bound, 0), square, rate / weight)
        lowest = (loss - product + inner - step * square / 2) / weight
        bound = jnp.maximum(lowest, low) if adapt_bound else low

        moved = tree.add(tree.scale(step, direction), tree.scale(decay_rate, dtypes.wide(params)))
        state = MomoState(step=state.step + 1, m=m, v=v, loss=loss, product=product, bound=bound)
        return tree.scale(-1 / shrink, moved), state

    return from_update(name, init, update)


def _below(high: Array, limit: Array, bound: Array, low: Array) -> Array:
    """The bound; where the step would be negative, half of the highest bound without that."""
    return jnp.where(high < limit * bound, jnp.maximum(high / (2 * limit), low), bound)
