"""Adagrad and Adadelta: steps scaled by the history of squared gradients."""

from dataclasses import dataclass

import jax
from jaxtyping import Array

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import elementwise
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SquareSum:
    """The sum of all squared gradients."""

    v: Params  # in at least float32


@within(start="[0, inf)", eps="[0, inf)")
def adagrad(*, start: Scalar = 0.0, eps: Scalar = 1e-10) -> Optimizer:
    """Adagrad, for sparse gradients: the gradient over the root of the sum of its squares.

        v <- v + g^2
        update = -lr g / (sqrt(v) + eps)

    Begin with lr 0.1.

    Args:
      start: initial v, in the unit of g^2, at least 0.
      eps: outside the square root, in the unit of g.

    State: SquareSum.
    Source: Duchi, Hazan & Singer 2011, Figure 1, with the diagonal matrix; their delta is eps.
    Compat: PyTorch. Optax and Keras start at 0.1, Optax with an eps of 1e-7 inside the root:
      `adagrad(start=0.1)` is within 1e-6 of it.

    >>> opt, params = adagrad(), {'w': jnp.zeros(1)}
    >>> state = opt.init(params)
    >>> for g in (3.0, 4.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    >>> float(f"{updates['w'][0]:.3g}")
    -0.8
    """
    return elementwise("adagrad", SquareSum, _adagrad_rule, start={"v": start}, eps=eps)


def _adagrad_rule(g: Array, v: Array, *, eps: Scalar) -> tuple[Array, ...]:
    v = v + g * g
    return g / (safe_sqrt(v) + eps), v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdadeltaState:
    """Mean squares of the gradients and of the directions."""

    v: Params  # of the gradients, in at least float32
    u: Params  # of the directions, in at least float32


@within(decay="[0, 1)", eps="(0, inf)")
def adadelta(*, decay: Scalar = 0.9, eps: Scalar = 1e-6) -> Optimizer:
    """Adadelta: steps in the unit of the parameters, from the mean square of earlier steps.

        v <- decay v + (1 - decay) g^2
        d = sqrt((u + eps) / (v + eps)) g
        u <- decay u + (1 - decay) d^2
        update = -lr d

    Use lr = 1; the first steps are small.

    Args:
      decay: decay rate of the mean squares, in [0, 1). Keras's default is 0.95.
      eps: inside the square roots, above 0; it sets the size of the first steps.

    State: AdadeltaState; starts at 0.
    Source: Zeiler 2012, arXiv:1212.5701, Algorithm 1. Compat: Optax and PyTorch.

    >>> opt, params = adadelta(decay=0.75, eps=1.0), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([2.0])}, opt.init(params), params, 1.0)
    >>> float(f"{updates['w'][0]:.3g}")
    -1.41
    """
    return elementwise("adadelta", AdadeltaState, _adadelta_rule, decay=decay, eps=eps)


def _adadelta_rule(
    g: Array, v: Array, u: Array, *, decay: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    v = decay * v + (1 - decay) * g * g
    d = safe_sqrt((u + eps) / (v + eps)) * g
    u = decay * u + (1 - decay) * d * d
    return d, v, u
