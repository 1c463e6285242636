"""Optimizers to and from optax, as pairs of functions: optax itself is not needed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn.optim._base import expect_unscaled
from fnn.types import Optimizer, Params, Scalar, Schedule


class GradientTransformation(NamedTuple):
    """Like optax's: `init(params)` and `update(grads, state, params)`."""

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class OptaxState:
    """The optimizer's state, and the step of its schedule."""

    step: Int[Array, ""]  # updates made so far, int32
    state: Any


def to_optax(optimizer: Optimizer, lr: Scalar | Schedule) -> GradientTransformation:
    """An optimizer of fnn, with its learning rate, as a gradient transformation of optax.

    It is the last of an `optax.chain`: its updates are added to the parameters. `update` needs the
    parameters. Weights for evaluation are `optimizer.weights(state.state, params)`.

    Args:
      lr: a number, or a schedule of the step.

    Raises: ValueError for an optimizer with a loss scale, and in update without parameters. An
      optimizer that uses the objective fails in update.

    >>> from fnn.optim import sgd
    >>> transform, params = to_optax(sgd(), 0.5), {'w': jnp.zeros(1)}
    >>> transform.update({'w': jnp.ones(1)}, transform.init(params), params)[0]['w'].tolist()
    [-0.5]
    """
    expect_unscaled("to_optax", optimizer)

    def init(params: Params) -> OptaxState:
        return OptaxState(step=jnp.int32(0), state=optimizer.init(params))

    def update(
        updates: Params, state: OptaxState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, OptaxState]:
        if params is None:
            raise ValueError(
                "to_optax: expected the parameters, got None; pass params to the transformation's "
                "update"
            )
        rate = lr(state.step) if callable(lr) else lr
        new, inner = optimizer.update(updates, state.state, params, rate)
        return new, OptaxState(step=state.step + 1, state=inner)

    return GradientTransformation(init, update)


def from_optax(transform: Any) -> Optimizer:
    """A gradient transformation of optax as an optimizer of fnn, whose updates are scaled by lr.

    With a learning rate of 1, as in `optax.adamw(1.0)`, the recipe's schedule is the learning rate;
    a transformation with its own needs `schedules.constant(1.0)`. Transformations that need the
    value of the loss, such as line searches, are not supported.

    >>> class Descent(NamedTuple):
    ...     init = lambda self, params: ()
    ...     update = lambda self, grads, state, params: (jax.tree.map(jnp.negative, grads), state)
    >>> optimizer, params = from_optax(Descent()), {'w': jnp.zeros(1)}
    >>> optimizer.update({'w': jnp.ones(1)}, (), params, 0.5)[0]['w'].tolist()
    [-0.5]
    """

    def init(params: Params) -> Any:
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return transform.init(params)

    def update(
        grads: Params, state: Any, params: Params, lr: Scalar, objective: Any = None
    ) -> tuple[Params, Any]:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transform.update(grads, state, params)
        return jax.tree.map(lambda u: jnp.asarray(lr, u.dtype) * u, updates), state

    return Optimizer(init, update)
