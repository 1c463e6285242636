"""Optimistic gradient methods, for games between networks."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn.expect import within
from fnn.optim._base import elementwise
from fnn.optim.adam import adam_rule
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class OptimisticState:
    """The gradient of the last step."""

    step: Int[Array, ""]  # updates made so far, int32
    previous: Params  # in at least float32


@within(alpha="(0, inf)", beta="[0, inf)")
def optimistic_gradient_descent(*, alpha: Scalar = 1.0, beta: Scalar = 1.0) -> Optimizer:
    """Optimistic gradient descent: the gradient plus its change since the last step.

        update = -lr (alpha g + beta (g - g_previous)),   g_previous = g in the first step

    Two players that descend and ascend x y circle its saddle under gradient descent; these
    converge to it.

    Args:
      alpha: weight of the gradient, above 0.
      beta: weight of its change, at least 0; 0 is gradient descent.

    State: OptimisticState.
    Source: Popov 1980; Mokhtari, Ozdaglar & Pattathil 2019, arXiv:1901.08511, equation 7 and its
      generalization by alpha and beta in section 5. Compat: Optax.

    >>> opt, params = optimistic_gradient_descent(), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (3.0, 1.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(updates['w'].item())
    >>> steps
    [-3.0, 1.0]
    """

    return elementwise(
        "optimistic_gradient_descent", OptimisticState, _optimistic, alpha=alpha, beta=beta
    )


def _optimistic(
    g: Array, previous: Array, *, t: Array, alpha: Scalar, beta: Scalar
) -> tuple[Array, ...]:
    return alpha * g + beta * jnp.where(t == 1, 0, g - previous), g


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class OptimisticAdamState:
    """Adam's moments and its last direction, in at least float32."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params
    v: Params
    previous: Params


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)", alpha="(0, inf)", beta="[0, inf)")
def optimistic_adam(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
) -> Optimizer:
    """Optimistic Adam: Adam's direction plus its change since the last step.

        u = adam's direction
        update = -lr (alpha u + beta (u - u_previous)),   u_previous = u in the first step

    Args:
      b1, b2, eps: as in `adam`.
      alpha: weight of the direction, above 0.
      beta: weight of its change, at least 0; 0 is Adam.

    State: OptimisticAdamState.
    Source: Daskalakis et al. 2018, arXiv:1711.00141, Algorithm 1, which is alpha = beta = 1.
      Deviates: u_previous = 0 in the paper's first step, so that it is twice Adam's.
    Compat: `optax.optimistic_adam_v2(nesterov=False)`; its default takes the direction of NAdam.

    >>> opt, params = optimistic_adam(b1=0.0, b2=0.0, eps=0.0), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (3.0, -2.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(updates['w'].item())
    >>> steps    # from u = 1 to u = -1
    [-1.0, 3.0]
    """

    return elementwise(
        "optimistic_adam",
        OptimisticAdamState,
        _optimistic_adam,
        b1=b1,
        b2=b2,
        eps=eps,
        alpha=alpha,
        beta=beta,
    )


def _optimistic_adam(
    g: Array,
    m: Array,
    v: Array,
    previous: Array,
    *,
    t: Array,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    alpha: Scalar,
    beta: Scalar,
) -> tuple[Array, ...]:
    u, m, v = adam_rule(g, m, v, t=t, b1=b1, b2=b2, eps=eps)
    return _optimistic(u, previous, t=t, alpha=alpha, beta=beta)[0], m, v, u
