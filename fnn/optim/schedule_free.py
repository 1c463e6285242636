"""Schedule-free optimizers: averaging in place of a decreasing learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, tree
from fnn.dtypes import wide
from fnn.expect import within
from fnn.optim._base import (
    Direction,
    decay_weights,
    from_update,
    mean_square,
    over_root,
    unbiased,
)
from fnn.optim._wrap import cast_like, wide_copy
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ScheduleFreeState:
    """The sequence z that takes the steps, and the total weight of its average."""

    z: Params  # in at least float32
    largest_lr: Float[Array, ""]
    weight_sum: Float[Array, ""]  # of the squares of the largest lr so far
    direction: Any  # state of the direction that z follows


@within(beta="(0, 1)", weight_decay="[0, inf)", lr_power="[0, inf)")
def schedule_free_sgd(
    *,
    beta: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    lr_power: Scalar = 2.0,
) -> Optimizer:
    """Schedule-free SGD: gradient descent on z, evaluated at the average x of z.

        y = (1 - beta) z + beta x      these are the parameters that are trained
        z <- z - lr (g(y) + weight_decay y)
        x <- (1 - c) x + c z,          c = w_t / (w_1 + ... + w_t)
                                       w_t = max(lr_1, ..., lr_t)^lr_power

    lr: constant after a warm-up, ten times or more that of plain descent.

    Args:
      beta: weight of x where the gradient is taken, in (0, 1).
      weight_decay: per unit of lr, of y.
      mask: which leaves decay; None is all of them.
      lr_power: the larger, the less the steps of a warm-up weigh in x.

    State: ScheduleFreeState. `weights` gives x, which is not stored: x = (y - (1 - beta) z) / beta.
      In bfloat16 wrap it in `master_weights`, since y is rounded. Norms with running statistics
      have those of y, which are close to those of x.
    Source: Defazio et al. 2024, arXiv:2405.15682, equations 3-5 and section 4; weights by the
      largest lr so far, as in the authors' code. Compat: `optax.contrib.schedule_free_sgd`.

    >>> opt, params = schedule_free_sgd(beta=0.5), {'w': jnp.array([1.0])}
    >>> updates, state = opt.update({'w': jnp.array([1.0])}, opt.init(params), params, 0.5)
    >>> params = tree.add(params, updates)
    >>> updates, state = opt.update({'w': jnp.array([1.0])}, state, params, 0.5)
    >>> opt.weights(state, tree.add(params, updates))['w'].tolist()   # mean of 0.5 and 0
    [0.25]
    """

    def direction(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        return decay_weights(grads, params, weight_decay, mask), state

    return _schedule_free("schedule_free_sgd", lambda params: (), direction, beta, lr_power)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SecondMoment:
    """The second moment of the gradient."""

    step: Int[Array, ""]  # updates made so far, int32
    v: Params  # in at least float32


@within(weight_decay="[0, inf)", beta="(0, 1)", b2="[0, 1)", eps="[0, inf)", lr_power="[0, inf)")
def schedule_free_adamw(
    *,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    beta: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lr_power: Scalar = 2.0,
) -> Optimizer:
    """Schedule-free AdamW: averaging in place of momentum and a schedule.

        y = (1 - beta) z + beta x      these are the parameters that are trained
        v <- b2 v + (1 - b2) g(y)^2
        z <- z - lr (g(y) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay y)
        x as in `schedule_free_sgd`

    lr: constant after a warm-up, 1 to 10 times AdamW's; begin with 2.5e-3.

    Args:
      beta: weight of x where the gradient is taken, in (0, 1); 0.9 to 0.98.
      b2, eps: as in `adam`.
      weight_decay, mask, lr_power: as in `schedule_free_sgd`.

    State: ScheduleFreeState with a SecondMoment: two trees, as Adam. `weights` gives x.
    Source: Defazio et al. 2024, arXiv:2405.15682, Algorithm 1. Deviates: v is corrected for its
      start, where the paper multiplies the lr, also of the decay and of the weights in x, by
      sqrt(1 - b2^t); so do the authors' later code and `optax.contrib.schedule_free_adamw`.

    >>> opt, params = schedule_free_adamw(), {'w': jnp.array([1.0])}
    >>> updates, state = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 0.5)
    >>> opt.weights(state, tree.add(params, updates))['w'].round(3).tolist()
    [0.5]
    """

    def init(params: Params) -> SecondMoment:
        return SecondMoment(step=jnp.int32(0), v=tree.zeros_like(params))

    def direction(
        grads: Params, state: SecondMoment, params: Params
    ) -> tuple[Params, SecondMoment]:
        t = state.step + 1
        v = mean_square(b2, state.v, grads)
        u = over_root(grads, unbiased(b2, v, t), eps)
        return decay_weights(u, params, weight_decay, mask), SecondMoment(step=t, v=v)

    return _schedule_free("schedule_free_adamw", init, direction, beta, lr_power)


def _schedule_free(
    name: str,
    direction_init: Callable[[Params], Any],
    direction: Direction,
    beta: Scalar,
    lr_power: Scalar,
) -> Optimizer:
    def init(params: Params) -> ScheduleFreeState:
        dtype = dtypes.widest(params)
        return ScheduleFreeState(
            z=wide_copy(params),
            largest_lr=jnp.zeros((), dtype),
            weight_sum=jnp.zeros((), dtype),
            direction=direction_init(params),
        )

    def update(
        grads: Params, state: ScheduleFreeState, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, ScheduleFreeState]:
        u, direction_state = direction(grads, state.direction, params)
        largest = jnp.maximum(state.largest_lr, jnp.asarray(lr, state.largest_lr.dtype))
        weight = jnp.power(largest, jnp.asarray(lr_power, largest.dtype))
        total = state.weight_sum + weight
        fraction = weight / jnp.where(total > 0, total, 1)  # c; 0 while the lr is 0

        def leaf(y: Array, z: Array, d: Array) -> Array:
            c, rate, b = (jnp.asarray(s, d.dtype) for s in (fraction, lr, beta))
            # y's update from the three equations with the new z: with the old one, XLA copies it.
            return c * (z - y) - rate * (1 - b) * (1 - c) * d

        z = jax.tree.map(lambda z, d: z - jnp.asarray(lr, d.dtype) * d, state.z, u)
        updates = jax.tree.map(leaf, wide(params), z, u)
        return updates, ScheduleFreeState(
            z=z, largest_lr=largest, weight_sum=total, direction=direction_state
        )

    def weights(state: ScheduleFreeState, params: Params) -> Params:
        def leaf(y: Array, z: Array) -> Array:
            b = jnp.asarray(beta, z.dtype)
            return (y - (1 - b) * z) / b

        return cast_like(jax.tree.map(leaf, wide(params), state.z), params)

    return from_update(name, init, update)._replace(weights=weights)
