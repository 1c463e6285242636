"""What all optimizers share: a direction, the decay of weights, the correction of moments."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import tree
from fnn.tree import Mask, safe_sqrt
from fnn.types import Objective, Optimizer, Params, Scalar, unscaled

Direction = Callable[[Params, Any, Params], tuple[Params, Any]]


def from_direction(name: str, init: Callable[[Params], Any], direction: Direction) -> Optimizer:
    """An optimizer whose updates are `-lr` times a direction.

    Args:
      name: how its error messages begin.
      direction: `(grads, state, params) -> (direction, state)`. It gets the gradients in at least
        float32, and the direction is in the same.

    Raises: ValueError, in update, if gradients and parameters differ in structure or shape.

    >>> plain = from_direction('plain', lambda params: (), lambda grads, state, _: (grads, state))
    >>> plain.update({'w': jnp.array([2.0])}, (), {'w': jnp.array([1.0])}, 0.5)[0]['w'].tolist()
    [-1.0]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        tree.expect_alike(f"{name}: params and grads", params, grads)
        grads = jax.tree.map(lambda g: g.astype(tree.at_least_float32(g)), grads)
        step, state = direction(grads, state, params)
        return tree.elementwise(lambda d: -jnp.asarray(lr, d.dtype) * d, step), state

    return Optimizer(init=init, update=update)


def expect_unscaled(where: str, *optimizers: Optimizer) -> None:
    """Refuse optimizers with a loss scale, where it is not clear whose scale the loss would get.

    >>> expect_unscaled('groups', Optimizer(None, None, None, lambda state: 8.0))
    Traceback (most recent call last):
        ...
    ValueError: groups: expected optimizers without a loss scale, got one; put it around groups
    """
    if any(optimizer.loss_scale is not unscaled for optimizer in optimizers):
        raise ValueError(
            f"{where}: expected optimizers without a loss scale, got one; put it around {where}"
        )


def decay_weights(direction: Params, params: Params, decay: Scalar, mask: Mask | None) -> Params:
    """direction + decay * params, on the leaves that the mask marks (all, if it is None).

    >>> decay_weights({'w': jnp.zeros(1)}, {'w': jnp.ones(1)}, 0.5, None)['w'].tolist()
    [0.5]
    """
    marked = jax.tree.map(lambda _: True, params) if mask is None else mask(params)
    return jax.tree.map(
        lambda d, p, m: d + jnp.asarray(decay, d.dtype) * p.astype(d.dtype) if m else d,
        direction,
        params,
        marked,
    )


def moving_average(decay: Scalar, old: Array, new: Array) -> Array:
    """decay * old + (1 - decay) * new, in the dtype of `old`.

    >>> moving_average(0.75, jnp.array(0.0), jnp.array(4.0)).item()
    1.0
    """
    # 1 - decay is taken in Python's float64 where decay is a plain float.
    return jnp.asarray(decay, old.dtype) * old + jnp.asarray(1 - decay, old.dtype) * new


def mean_square(decay: Scalar, old: Array, new: Array) -> Array:
    """decay * old + (1 - decay) * new^2, in the dtype of `old`.

    >>> mean_square(0.75, jnp.array(0.0), jnp.array(4.0)).item()
    4.0
    """
    return jnp.asarray(decay, old.dtype) * old + square_share(decay, new)


def square_share(decay: Scalar, new: Array) -> Array:
    """(1 - decay) * new^2: what a mean of squares gains.

    >>> square_share(0.75, jnp.array(4.0)).item()
    4.0
    """
    # The factor goes inside the square: a plain new^2, which the norm of the gradient needs too,
    # would be written out for both on a CPU.
    inside = (1 - decay) ** 0.5 if isinstance(decay, (int, float)) else safe_sqrt(1 - decay)
    return jnp.square(jnp.asarray(inside, new.dtype) * new)


def bias_correction(decay: Scalar, step: Int[Array, ""], dtype: Any) -> Float[Array, ""]:
    """1 - decay^t: the share that a moving average started at 0 has gathered after t steps.

    Written as -expm1(t log(decay)): in float32, 1 - 0.999^1 is off by 1.3e-5, this by 1e-7.

    Args:
      step: t, from 1.

    >>> bias_correction(0.999, jnp.int32(1), jnp.float32).item()
    0.0010000000474974513
    """
    t = step.astype(dtype)
    if isinstance(decay, (int, float)):
        return -jnp.expm1(t * (math.log(decay) if decay > 0 else -math.inf))
    # log1p(decay - 1), because decay - 1 is exact for decay in [0.5, 1].
    return -jnp.expm1(t * jnp.log1p(decay - 1).astype(dtype))


def leaf_norm(leaf: Array) -> Float[Array, ""]:
    """L2 norm of one array, in at least float32; its gradient at 0 is 0.

    >>> leaf_norm(jnp.array([[3.0], [4.0]])).item()
    5.0
    """
    if not tree.is_small(leaf):
        return tree.global_norm(leaf)
    # In its own shape: flat, as beside other small leaves, its squares would be written out.
    return safe_sqrt(jnp.square(leaf.astype(tree.at_least_float32(leaf))).sum())


def once_read(values: Params, *readers: Params) -> Params:
    """`values`, to the last bit, which a CPU's compiler writes once it has the leaf's `readers`.

    For values that overwrite what the readers were computed from. A CPU computes each tree by
    itself, and in the other order it would have to copy the old values first.

    >>> once_read({'w': jnp.array([3.0])}, {'w': jnp.array([jnp.nan])})['w'].tolist()
    [3.0]
    """

    def on_cpu(value: Array, *read: Array) -> Array:
        one = jnp.ones((), value.dtype)
        for x in read:
            one = after(x.ravel()[:1].sum(), one)
        return one * value

    def leaf(value: Array, *read: Array) -> Array:
        return jax.lax.platform_dependent(
            value, *read, cpu=on_cpu, default=lambda value, *read: value
        )

    return jax.tree.map(leaf, values, *readers)


def after(earlier: Array, scalar: Array) -> Array:
    """`scalar`, to the last bit, known to the compiler only once `earlier` is.

    For an update that overwrites what `earlier` was computed from: in the other order the old
    values would have to be copied first.

    >>> after(jnp.array(jnp.nan), jnp.array(3.0)).item()
    3.0
    """
    nothing = 0 * jax.lax.stop_gradient(jnp.where(jnp.isfinite(earlier), earlier, 0))
    return scalar * (1 + nothing.astype(scalar.dtype))
