"""Optimizers for optax, and optax's for fnn. Optax itself is not needed: both are two functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn.optim._base import expect_unscaled
from fnn.types import Optimizer, Params, Scalar, Schedule


class GradientTransformation(NamedTuple):
    """What optax takes for one of its own: `init(params)`, `update(grads, state, params)`."""

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class OptaxState:
    """The optimizer's state, and the step that its schedule is asked for."""

    step: Int[Array, ""]  # updates made so far, int32
    state: Any


def to_optax(optimizer: Optimizer, lr: Scalar | Schedule) -> GradientTransformation:
    """An optimizer of fnn as a transformation of optax, with the learning rate inside.

    It can stand in `optax.chain`, `optax.masked` and the like, at the end: its updates are added to
    the parameters, which must be passed to `update`.

    Args:
      lr: a number, or a schedule of the step.

    Raises: ValueError for an optimizer with a loss scale, and in update without parameters. An
      optimizer that asks for the objective fails in update; one with weights of its own for
      evaluation has them as `optimizer.weights(state.state, params)`.

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
    """A transformation of optax as an optimizer of fnn.

        updates = lr * (what the transformation makes of the gradients)

    Make it with a learning rate of 1, as in `optax.adamw(1.0)`, and the rate is fnn's: scheduled,
    logged, swept. A chain with a rate of its own keeps it, if the recipe's is 1. A transformation
    that looks at the loss itself, such as a line search, gets no loss.

    >>> class Descent(NamedTuple):
    ...     init = lambda self, params: ()
    ...     update = lambda self, grads, state, params: (jax.tree.map(jnp.negative, grads), state)
    >>> optimizer, params = from_optax(Descent()), {'w': jnp.zeros(1)}
    >>> optimizer.update({'w': jnp.ones(1)}, (), params, 0.5)[0]['w'].tolist()
    [-0.5]
    """

    def init(params: Params) -> Any:
        with jax.numpy_dtype_promotion("standard"):  # optax is not written for the strict one
            return transform.init(params)

    def update(
        grads: Params, state: Any, params: Params, lr: Scalar, objective: Any = None
    ) -> tuple[Params, Any]:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transform.update(grads, state, params)
        return jax.tree.map(lambda u: jnp.asarray(lr, u.dtype) * u, updates), state

    return Optimizer(init, update)
