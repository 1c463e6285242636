"""Constructors of optimizers: from a rule on arrays, or from a direction on trees.

An elementwise optimizer is its rule, such as Adam's in `adam.py`; `elementwise` decides how the
leaves of a tree are visited.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes, tree
from fnn.expect import expect_alike, expect_real
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar, Update, unscaled

Direction = Callable[[Params, Any, Params], tuple[Params, Any]]


def from_update(name: str, init: Callable[[Params], Any], update: Update) -> Optimizer:
    """An optimizer from an update that gets checked gradients in at least float32.

    Args:
      name: how its error messages begin.

    Raises: ValueError, in init, for complex parameters; in update, if gradients and parameters
      differ in structure or shape.

    >>> halve = from_update('halve', lambda params: (), lambda grads, state, params, lr, objective:
    ...                     (jax.tree.map(lambda p: -p / 2, params), state))
    >>> halve.update({'w': jnp.array([2.0])}, (), {'w': jnp.array([1.0])}, 1.0)[0]['w'].tolist()
    [-0.5]
    """

    def checked(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        expect_alike(f"{name}: params and grads", params, grads)
        return update(dtypes.wide(grads), state, params, lr, objective)

    def of_real(params: Params) -> Any:
        expect_real(f"{name}: params", params)
        return init(params)

    return Optimizer(init=of_real, update=checked)


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
        u, state = direction(grads, state, params)
        return jax.tree.map(lambda d: -jnp.asarray(lr, d.dtype) * d, u), state

    return from_update(name, init, update)


def expect_objective(where: str, objective: Objective | None, purpose: str) -> Objective:
    """The objective, without which an optimizer that needs it refuses to update.

    >>> expect_objective('momo', None, 'the loss')
    Traceback (most recent call last):
        ...
    ValueError: momo: expected an objective for the loss, got None; train with fnn.train, ...
    """
    if objective is None:
        raise ValueError(
            f"{where}: expected an objective for {purpose}, got None; train with fnn.train, or "
            "pass objective= to update"
        )
    return objective


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


def expect_one_pace(where: str, *optimizers: Optimizer) -> int:
    """The number of steps per update of all of them, by which the one schedule is counted.

    Raises: ValueError, which begins with `where`, if they differ.

    >>> from fnn.optim import accumulate, sgd
    >>> expect_one_pace('groups', sgd(), accumulate(sgd(), steps=2))
    Traceback (most recent call last):
        ...
    ValueError: groups: expected optimizers that update at the same steps, got one update in \
[1, 2] steps; put accumulate around groups
    """
    paces = sorted({optimizer.steps_per_update for optimizer in optimizers})
    if len(paces) > 1:
        raise ValueError(
            f"{where}: expected optimizers that update at the same steps, got one update in "
            f"{paces} steps; put accumulate around {where}"
        )
    return paces[0] if paces else 1


def decay_weights(direction: Params, params: Params, decay: Scalar, mask: Mask | None) -> Params:
    """direction + decay * params, on the leaves that the mask marks (all, if it is None).

    >>> decay_weights({'w': jnp.zeros(1)}, {'w': jnp.ones(1)}, 0.5, None)['w'].tolist()
    [0.5]
    """
    if isinstance(decay, (int, float)) and decay == 0:
        return direction
    marked = jax.tree.map(lambda _: True, params) if mask is None else mask(params)
    return jax.tree.map(
        lambda d, p, m: d + jnp.asarray(decay, d.dtype) * p.astype(d.dtype) if m else d,
        direction,
        params,
        marked,
    )


def elementwise(
    name: str,
    state_type: type,
    rule: Callable[..., tuple[Array, ...]],
    *,
    start: Mapping[str, Scalar] = MappingProxyType({}),
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    **hyper: Scalar,
) -> Optimizer:
    """An optimizer from a rule on arrays: `rule(g, *moments, **hyper) -> direction, *moments`.

        update = -lr (direction + weight_decay p)

    Args:
      name: how its error messages begin.
      state_type: a dataclass with a field for each moment, in the order of the rule. If it has a
        field `step`, the rule gets t = 1, 2, ... besides, in the dtype of g.
      rule: of one leaf; all arrays have its shape and at least float32.
      start: values of moments before the first step, where they are not 0.
      weight_decay, mask: decoupled decay of the leaves that the mask marks; all, if it is None.
      hyper: keyword arguments of the rule; those that are traced come in the dtype of g.

    Raises: ValueError, in update, if gradients and parameters differ in structure or shape.

    >>> @jax.tree_util.register_dataclass
    ... @dataclasses.dataclass
    ... class State:
    ...     v: Params
    >>> heavy_ball = elementwise('ball', State, lambda g, v, b: (b * v + g, b * v + g), b=0.5)
    >>> params = {'w': jnp.zeros(1)}
    >>> state = State(v={'w': jnp.ones(1)})
    >>> heavy_ball.update({'w': jnp.ones(1)}, state, params, 1.0)[0]['w'].tolist()
    [-1.5]
    """
    names = [field.name for field in dataclasses.fields(state_type)]
    moments, counts = [n for n in names if n != "step"], "step" in names

    def init(params: Params) -> Any:
        zeros = {n: tree.zeros_like(params) for n in moments}
        for n, value in start.items():
            zeros[n] = jax.tree.map(lambda z, v=value: z + jnp.asarray(v, z.dtype), zeros[n])
        return state_type(**zeros, **({"step": jnp.int32(0)} if counts else {}))

    def direction(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        step = {"step": state.step + 1} if counts else {}

        def leaf(g: Array, *old: Array) -> tuple[Array, ...]:
            given = {n: _cast(value, g.dtype) for n, value in hyper.items()}
            t = {"t": step["step"].astype(g.dtype)} if counts else {}
            return rule(g, *old, **t, **given)

        old = [getattr(state, n) for n in moments]
        structure = jax.tree.structure(grads)
        leaves = list(map(leaf, *map(jax.tree.leaves, [grads, *old])))
        columns = zip(*leaves, strict=True) if leaves else [()] * (1 + len(moments))
        made, *new = [jax.tree.unflatten(structure, column) for column in columns]
        state = state_type(**dict(zip(moments, new, strict=True)), **step)
        return decay_weights(made, params, weight_decay, mask), state

    return from_direction(name, init, direction)


def _cast(value: Scalar, dtype: Any) -> Scalar:
    """A Python number as it is, so that `1 - b` is exact."""
    return value if isinstance(value, (int, float)) else jnp.asarray(value, dtype)


def moving_average(decay: Scalar, old: Array, new: Array) -> Array:
    """decay * old + (1 - decay) * new, in the dtype of `old`.

    >>> moving_average(0.75, jnp.array(0.0), jnp.array(4.0)).item()
    1.0
    """
    decay = _cast(decay, old.dtype)
    return decay * old + (1 - decay) * new


def mean_square(decay: Scalar, old: Array, new: Array) -> Array:
    """decay * old + (1 - decay) * new^2, in the dtype of `old`.

    >>> mean_square(0.75, jnp.array(0.0), jnp.array(4.0)).item()
    4.0
    """
    return moving_average(decay, old, jnp.square(new))


def bias_correction(decay: Scalar, t: Float[Array, ""]) -> Float[Array, ""]:
    """1 - decay^t: the total weight of t values in a moving average that started at 0.

    Computed as -expm1(t log(decay)): in float32, 1 - 0.999^1 is off by 1.3e-5, this by 1e-7.

    Args:
      t: from 1, in the dtype of the result.

    >>> bias_correction(0.999, jnp.float32(1)).round(6).item()
    0.0010000000474974513
    """
    if isinstance(decay, (int, float)):
        return -jnp.expm1(t * (math.log(decay) if decay > 0 else -math.inf))
    # log1p(decay - 1), because decay - 1 is exact for decay in [0.5, 1].
    return -jnp.expm1(t * jnp.log1p(decay - 1).astype(t.dtype))
