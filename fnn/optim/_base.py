"""Constructors of optimizers: from rules on arrays, and from directions or updates on trees."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.expect import expect_alike, expect_real, is_zero
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar, unscaled

# (grads, state, params) -> direction, state
Direction = Callable[[Params, Any, Params], tuple[Params, Any]]
# (grads, state, params, lr, objective) -> updates, state; gradients are checked by the caller
CheckedUpdate = Callable[[Params, Any, Params, Any, Objective | None], tuple[Params, Any]]


def from_update(name: str, init: Callable[[Params], Any], update: CheckedUpdate) -> Optimizer:
    """An optimizer whose `update` receives checked gradients in at least float32."""

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
    """An optimizer whose updates are -lr times a direction.

    Args:
      name: prefix of its error messages.
      direction: `(grads, state, params) -> (direction, state)`; gradients and direction are in at
        least float32.

    Raises: ValueError, in init, for complex parameters; in update, if gradients and parameters
      differ in structure or shape.

    >>> plain = from_direction('plain', lambda params: (), lambda grads, state, _: (grads, state))
    >>> plain.update({'w': jnp.array([2.0])}, (), {'w': jnp.array([1.0])}, 0.5)[0]['w'].tolist()
    [-1.0]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, Any]:
        u, state = direction(grads, state, params)
        return jax.tree.map(lambda d: -jnp.asarray(lr, d.dtype) * d, u), state

    return from_update(name, init, update)


def expect_objective(where: str, objective: Objective | None, purpose: str) -> Objective:
    """The objective; raises ValueError if it is None."""
    if objective is None:
        raise ValueError(
            f"{where}: expected an objective for {purpose}, got None; train with fnn.train, or "
            "pass objective= to update"
        )
    return objective


def expect_unscaled(where: str, *optimizers: Optimizer) -> None:
    """Raises ValueError for an optimizer with a loss scale; it must wrap the whole instead."""
    if any(optimizer.loss_scale is not unscaled for optimizer in optimizers):
        raise ValueError(
            f"{where}: expected optimizers without a loss scale, got one; put it around {where}"
        )


def common_steps_per_update(where: str, *optimizers: Optimizer) -> int:
    """The `steps_per_update` of all optimizers; raises ValueError if they differ."""
    counts = sorted({optimizer.steps_per_update for optimizer in optimizers})
    if len(counts) > 1:
        raise ValueError(
            f"{where}: expected optimizers that update at the same steps, got one update in "
            f"{counts} steps; put accumulate around {where}"
        )
    return counts[0] if counts else 1


def marked(mask: Mask | None, params: Params) -> Params:
    """The bools of the mask; True at every leaf if the mask is None."""
    return jax.tree.map(lambda _: True, params) if mask is None else mask(params)


def decay_weights(direction: Params, params: Params, decay: Scalar, mask: Mask | None) -> Params:
    """direction + decay * params, on the leaves marked by the mask."""
    if is_zero(decay):
        return direction
    return jax.tree.map(
        lambda d, p, m: d + jnp.asarray(decay, d.dtype) * p.astype(d.dtype) if m else d,
        direction,
        params,
        marked(mask, params),
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
      name: prefix of its error messages.
      state_type: a dataclass with a field for each moment, in the order of the rule. If it has a
        field `step`, the rule also gets t = 1, 2, ... in the dtype of g.
      rule: for one leaf; all arrays have its shape and at least float32.
      start: initial values of moments other than 0.
      weight_decay, mask: decoupled decay, of the leaves marked by the mask; None marks all.
      hyper: keyword arguments of the rule; traced ones are cast to the dtype of g.

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
        u, *new = [jax.tree.unflatten(structure, column) for column in columns]
        state = state_type(**dict(zip(moments, new, strict=True)), **step)
        return decay_weights(u, params, weight_decay, mask), state

    return from_direction(name, init, direction)


def _cast(value: Scalar, dtype: Any) -> Scalar:
    """An array in `dtype`; a Python number unchanged, so that `1 - b` is exact."""
    return value if isinstance(value, (int, float)) else jnp.asarray(value, dtype)


def moving_average(decay: Scalar, old: Params, new: Params) -> Params:
    """decay * old + (1 - decay) * new of arrays or trees, in the dtypes of `old`."""

    def leaf(old: Array, new: Array) -> Array:
        d = _cast(decay, old.dtype)
        return d * old + (1 - d) * new.astype(old.dtype)

    return jax.tree.map(leaf, old, new)


def mean_square(decay: Scalar, old: Params, new: Params) -> Params:
    """decay * old + (1 - decay) * new^2 of arrays or trees, in the dtypes of `old`."""
    return moving_average(decay, old, jax.tree.map(jnp.square, new))


def bias_correction(decay: Scalar, t: Float[Array, ""]) -> Float[Array, ""]:
    """1 - decay^t: the total weight of t values in a moving average that started at 0."""
    # As -expm1(t log(decay)): in float32, 1 - 0.999^1 is off by 1.3e-5, this by 1e-7.
    if isinstance(decay, (int, float)):
        return -jnp.expm1(t * (math.log(decay) if decay > 0 else -math.inf))
    # log1p(decay - 1), because decay - 1 is exact for decay in [0.5, 1].
    return -jnp.expm1(t * jnp.log1p(decay - 1).astype(t.dtype))


def unbiased(decay: Scalar, average: Params, step: Int[Array, ""]) -> Params:
    """A moving average that started at 0, divided by its total weight after `step` updates."""
    return jax.tree.map(lambda m: m / bias_correction(decay, step.astype(m.dtype)), average)


def over_root(m: Params, v: Params, eps: Scalar) -> Params:
    """m / (sqrt(v) + eps), leaf by leaf."""
    return jax.tree.map(lambda m, v: m / (safe_sqrt(v) + jnp.asarray(eps, v.dtype)), m, v)


def update_every(
    steps: int | Int[Array, ""],
    step: Int[Array, ""],
    function: Callable[..., Any],
    old: Any,
    *args: Any,
) -> Any:
    """`function(old, *args)` at every `steps`-th step, from step 0 on; else `old`."""
    due = step % jnp.asarray(steps, jnp.int32) == 0
    # Give functions defined in a module: JAX caches the tracing of a branch by its identity.
    return jax.lax.cond(due, function, unchanged, old, *args)


def unchanged(old: Any, *args: Any) -> Any:
    """Returns `old`."""
    return old
