"""The constructor of wrappers around an optimizer, and operations on trees that they share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from fnn import dtypes
from fnn.expect import expect_alike
from fnn.optim._base import CheckedUpdate
from fnn.types import Objective, Optimizer, Params, unscaled


def wrap(
    name: str,
    optimizer: Optimizer,
    init: Callable[[Params], Any],
    update: CheckedUpdate,
    *,
    weights: Callable[[Any, Params], Params] | None = None,
    inner: Callable[[Any], Any] = lambda state: state.inner,
) -> Optimizer:
    """`optimizer` with another init and update; `inner` maps the new state to the optimizer's.

    `update` receives checked gradients. `weights` and `loss_scale` stay those of `optimizer`.
    """

    def checked(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        expect_alike(f"{name}: params and grads", params, grads)
        return update(grads, state, params, lr, objective)

    def inner_weights(state: Any, params: Params) -> Params:
        return optimizer.weights(inner(state), params)

    def inner_scale(state: Any) -> Any:
        return optimizer.loss_scale(inner(state))

    scale = unscaled if optimizer.loss_scale is unscaled else inner_scale
    return optimizer._replace(
        init=init, update=checked, weights=weights or inner_weights, loss_scale=scale
    )


def map_updates(
    optimizer: Optimizer, change: Callable[[Params, Params, Params, Any], Params]
) -> Optimizer:
    """`optimizer` with its updates replaced by `change(updates, grads, params, lr)`."""

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        updates, state = optimizer.update(grads, state, params, lr, objective)
        return change(updates, grads, params, lr), state

    return optimizer._replace(update=update)


def tree_where(condition: Bool[Array, ""], x: PyTree, y: PyTree) -> PyTree:
    """`jnp.where(condition, x, y)` of trees, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def wide_copy(params: PyTree) -> PyTree:
    """A copy in at least float32, in buffers of its own, so that both may be donated."""
    return jax.tree.map(lambda p: jnp.array(p, dtype=dtypes.at_least_float32(p), copy=True), params)


def cast_like(values: PyTree, params: PyTree) -> PyTree:
    """`values` in the dtypes of `params`."""
    return jax.tree.map(lambda v, p: v.astype(p.dtype), values, params)
