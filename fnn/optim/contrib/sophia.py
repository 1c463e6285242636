"""Sophia: momentum over the diagonal of the Hessian, clipped."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.expect import within
from fnn.keys import fold_name
from fnn.optim._base import (
    decay_weights,
    expect_objective,
    from_update,
    moving_average,
    update_every,
)
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, PRNGKey, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SophiaState:
    """The momentum and the running mean of the Hessian's diagonal."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # running mean of the gradient, in at least float32
    h: Params  # running mean of the diagonal, in at least float32


@within(
    b1="[0, 1)",
    b2="[0, 1)",
    scale="(0, inf)",
    weight_decay="[0, inf)",
    eps="[0, inf)",
    every_steps="[1, inf)",
)
def sophia(
    *,
    key: PRNGKey,
    b1: Scalar = 0.96,
    b2: Scalar = 0.99,
    scale: Scalar = 0.01,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    eps: Scalar = 1e-12,
    every_steps: int | Int[Array, ""] = 10,
) -> Optimizer:
    """Sophia-H: momentum over an estimate of the Hessian's diagonal, clipped element by element.

        every `every_steps` updates:    h <- b2 h + (1 - b2) z * (H z),    z random signs
        m <- b1 m + (1 - b1) g
        update = -lr (clip(m / max(scale h, eps), -1, 1) + weight_decay p)

    H z costs about two gradients of the step's batch, and needs the objective. lr: 3e-3 for small
    models, about Adam's for large ones.

    Args:
      key: for z; a step uses `fold_in(key, step)`, a leaf its path.
      b1, b2: decay rates of m and h, in [0, 1).
      scale: gamma; choose it so that 10 % to 50 % of the elements are not clipped.
      weight_decay: decoupled, per unit of lr; 0.2 in the paper.
      mask: which leaves decay; None is all of them.
      eps: lower bound of the curvature; where h is negative, the step is clipped.
      every_steps: updates between estimates of the curvature.

    State: SophiaState.
    Raises: ValueError, in update, without an objective.
    Source: Liu et al. 2024, arXiv:2305.14342, Algorithms 1 and 3. Deviates: z are signs, whose
      estimate has a smaller variance, 0 for a diagonal H; the paper's are normal.
    Compat: Optax corrects m for its start, and uses h from before the step's estimate.

    >>> at = jax.value_and_grad(lambda p: 3 * p['w'].sum() ** 2)
    >>> opt, params = sophia(key=jax.random.key(0), scale=10.0), {'w': jnp.ones(1)}
    >>> value, grads = at(params)
    >>> updates, state = opt.update(grads, opt.init(params), params, 1.0, Objective(value, at))
    >>> float(f"{state.h['w'][0]:.3g}"), float(f"{updates['w'][0]:.3g}")
    (0.06, -0.4)
    """

    def init(params: Params) -> SophiaState:
        return SophiaState(step=jnp.int32(0), m=tree.zeros_like(params), h=tree.zeros_like(params))

    def update(
        grads: Params, state: SophiaState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, SophiaState]:
        objective = expect_objective("sophia", objective, "the curvature")
        step_key = jax.random.fold_in(key, state.step)

        def estimated(h: Params) -> Params:
            return moving_average(b2, h, _hessian_diagonal(objective, params, step_key))

        def leaf(m: Array, h: Array) -> Array:
            curvature = jnp.asarray(scale, h.dtype) * h
            return jnp.clip(m / jnp.maximum(curvature, jnp.asarray(eps, h.dtype)), -1, 1)

        h = update_every(every_steps, state.step, estimated, state.h)
        m = moving_average(b1, state.m, grads)
        u = decay_weights(jax.tree.map(leaf, m, h), params, weight_decay, mask)
        updates = jax.tree.map(lambda d: -jnp.asarray(lr, d.dtype) * d, u)
        return updates, SophiaState(step=state.step + 1, m=m, h=h)

    return from_update("sophia", init, update)


def _hessian_diagonal(objective: Objective, params: Params, key: PRNGKey) -> Params:
    """Hutchinson's unbiased estimate of the diagonal of the Hessian: z * (H z)."""

    def signs(path: str, p: Array) -> Array:
        return jax.random.rademacher(fold_name(key, path), p.shape, p.dtype)

    z = tree.map_with_path(signs, params)
    product = jax.jvp(lambda p: objective.at(p)[1], (params,), (z,))[1]
    return jax.tree.map(lambda z, c: z * c, z, product)
