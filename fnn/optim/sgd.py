"""Stochastic gradient descent, optionally with momentum or Nesterov momentum."""

from dataclasses import dataclass

import jax
from jaxtyping import Array

from fnn.expect import is_zero, within
from fnn.optim._base import elementwise, from_direction
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Velocity:
    """The decayed sum of the gradients."""

    v: Params  # in at least float32


@within(momentum="[0, 1)")
def sgd(*, momentum: Scalar = 0.0, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent, optionally with momentum or Nesterov momentum.

        update = -lr g                                  without momentum
        update = -lr v,                 v <- momentum v + g
        update = -lr (g + momentum v)                   with nesterov=True

    Args:
      momentum: decay rate of the velocity, in [0, 1). The Python number 0 means no momentum and no
        state; an array, which may be traced, always has a velocity.
      nesterov: use Nesterov momentum.

    State: () without momentum, else Velocity.
    Raises: ValueError for nesterov=True without momentum.
    Source: Robbins & Monro 1951; Polyak 1964; Nesterov 1983; in the form of Sutskever et al. 2013,
      section 2. Compat: Optax and PyTorch. lr is outside of v, so that a new lr acts at once; Keras
      keeps it inside. For weight decay see `add_l2` (PyTorch's) and `decoupled_decay`.

    >>> opt, params = sgd(momentum=0.5), {'w': jnp.array([0.0])}
    >>> state = opt.init(params)
    >>> for _ in range(2):
    ...     updates, state = opt.update({'w': jnp.array([1.0])}, state, params, 1.0)
    >>> updates['w'].tolist()
    [-1.5]
    """
    if is_zero(momentum):
        if nesterov:
            raise ValueError(
                "sgd: expected momentum above 0 with nesterov=True, got 0; pass momentum=0.9"
            )
        return from_direction("sgd", lambda params: (), lambda grads, state, params: (grads, state))
    rule = _nesterov_rule if nesterov else _momentum_rule
    return elementwise("sgd", Velocity, rule, momentum=momentum)


def _momentum_rule(g: Array, v: Array, *, momentum: Scalar) -> tuple[Array, ...]:
    v = momentum * v + g
    return v, v


def _nesterov_rule(g: Array, v: Array, *, momentum: Scalar) -> tuple[Array, ...]:
    v = momentum * v + g
    return g + momentum * v, v
