"""What the wrappers over an optimizer share: checks, and passing on what they do not change."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from fnn import dtypes
from fnn.expect import expect_alike
from fnn.types import Objective, Optimizer, Params, unscaled

Update = Callable[[Params, Any, Params, Any, Objective | None], tuple[Params, Any]]


def wrapping(
    name: str,
    optimizer: Optimizer,
    init: Callable[[Params], Any],
    update: Update,
    *,
    weights: Callable[[Any, Params], Params] | None = None,
    inner: Callable[[Any], Any] = lambda state: state.inner,
) -> Optimizer:
    """An optimizer around `optimizer` that keeps its weights, its loss scale and what it trains.

    Args:
      name: how its error messages begin.
      update: of the new optimizer; it gets the objective, and passes it on.
      weights: of the new optimizer; None for those of `optimizer`.
      inner: finds the state of `optimizer` in the new one.

    Raises: ValueError, in update, if gradients and parameters differ in structure or shape.

    >>> from fnn.optim import sgd
    >>> same = wrapping('same', sgd(), sgd().init, sgd().update, inner=lambda state: state)
    >>> same.update({'w': jnp.array([2.0])}, (), {'w': jnp.array([1.0])}, 0.5)[0]['w'].tolist()
    [-1.0]
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


def choose(which: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new` where `which` is True, else `old`, leaf by leaf.

    >>> choose(jnp.array(False), {'w': jnp.ones(2)}, {'w': jnp.zeros(2)})['w'].tolist()
    [0.0, 0.0]
    """
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), new, old)


def wide_copy(params: PyTree) -> PyTree:
    """A copy in at least float32, in buffers of its own, so that both may be donated.

    >>> wide_copy({'w': jnp.ones(2, jnp.bfloat16)})['w'].dtype.name
    'float32'
    """
    return jax.tree.map(lambda p: jnp.array(p, dtype=dtypes.at_least_float32(p), copy=True), params)


def cast_like(values: PyTree, params: PyTree) -> PyTree:
    """`values` in the dtypes of `params`.

    >>> cast_like({'w': jnp.ones(2)}, {'w': jnp.ones(2, jnp.bfloat16)})['w'].dtype.name
    'bfloat16'
    """
    return jax.tree.map(lambda v, p: v.astype(p.dtype), values, params)
