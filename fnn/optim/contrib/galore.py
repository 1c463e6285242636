"""GaLore: low-rank gradient projection around any optimizer."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from fnn import dtypes
from fnn.expect import within
from fnn.optim._base import expect_unscaled, from_update, marked, update_every
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GaloreState:
    """The projection of each matrix, and the optimizer's state for the projected gradients."""

    step: Int[Array, ""]  # updates made so far, int32
    basis: Params  # orthonormal columns, (shorter side, rank); of size 0 where a leaf is whole
    inner: Any


@within(every_steps="[1, inf)", scale="[0, inf)")
def galore(
    optimizer: Optimizer,
    *,
    rank: int,
    every_steps: int | Int[Array, ""] = 200,
    scale: Scalar = 0.25,
    mask: Mask | None = None,
) -> Optimizer:
    """GaLore: an optimizer on the projection of each matrix's gradient to rank `rank`.

        every `every_steps` updates:    P <- first `rank` left singular vectors of G, (m, rank)
        update = scale P (the optimizer's update for P^T G),    for a matrix (m, n) with m <= n

    For m > n, P are right singular vectors, and it is the update for G P, times P^T. Matrices with
    a side of at most `rank`, and leaves that are not matrices, are not projected.

    Args:
      optimizer: gets the projected gradients and parameters, and no objective. Its weight decay
        would reach the projected part alone: put `decoupled_decay` around GaLore.
      rank: static.
      every_steps: updates between renewals of P. The optimizer's state is kept, though it refers to
        the old directions.
      scale: of the projected leaves' updates; alpha in the paper.
      mask: which matrices are projected; None is all of them.

    Under a vmap P is computed in every update, and dropped where it is not due.

    State: GaloreState. With Adam a matrix takes m rank + 2 n rank elements, not 2 m n.
    Raises: ValueError for an optimizer with a loss scale, or with weights of its own, as `ema`.
    Source: Zhao et al. 2024, arXiv:2403.03507, Algorithm 2. Deviates: derivatives through training
      take P as constant, since those of singular vectors are infinite where singular values
      coincide. Compat: `optax.contrib.galore` projects the longer side, which is the same for
      square matrices; its scale is 1 by default.

    >>> from fnn.optim import sgd
    >>> opt, params = galore(sgd(), rank=1, scale=1.0), {'w': jnp.zeros((2, 3))}
    >>> grads = {'w': jnp.array([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]])}
    >>> updates, state = opt.update(grads, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()    # the second row is the weaker direction
    [[-3.0, 0.0, -4.0], [0.0, 0.0, 0.0]]
    """
    expect_unscaled("galore", optimizer)
    if optimizer.weights is not Optimizer._field_defaults["weights"]:
        raise ValueError(
            "galore: expected an optimizer without weights of its own, got one that has some; put "
            "it around galore"
        )

    def zero_basis(p: Array, is_marked: bool) -> Array:
        is_projected = is_marked and p.ndim == 2 and min(p.shape) > rank
        shape = (min(p.shape), rank) if is_projected else (0,)
        return jnp.zeros(shape, dtypes.at_least_float32(p))

    def init(params: Params) -> GaloreState:
        basis = jax.tree.map(zero_basis, params, marked(mask, params))
        small = jax.tree.map(_project, dtypes.wide(params), basis)
        return GaloreState(step=jnp.int32(0), basis=basis, inner=optimizer.init(small))

    def update(
        grads: Params, state: GaloreState, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, GaloreState]:
        basis = update_every(every_steps, state.step, _strongest, state.basis, grads)
        projected = (jax.tree.map(_project, x, basis) for x in (grads, dtypes.wide(params)))
        small_grads, small_params = projected
        updates, inner = optimizer.update(small_grads, state.inner, small_params, lr)

        def lift(u: Array, p: Array, basis: Array) -> Array:
            if not basis.size:
                return u
            u = jnp.asarray(scale, u.dtype) * u
            return basis @ u if _is_left(p) else u @ basis.T

        updates = jax.tree.map(lift, updates, params, basis)
        return updates, GaloreState(step=state.step + 1, basis=basis, inner=inner)

    return from_update("galore", init, update)._replace(
        trained=optimizer.trained, steps_per_update=optimizer.steps_per_update
    )


def _is_left(matrix: Array) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _project(x: Array, basis: Array) -> Array:
    if not basis.size:
        return x
    return basis.T @ x if _is_left(x) else x @ basis


def _strongest(bases: Params, grads: Params) -> Params:
    """The singular vectors of the largest singular values."""

    def leaf(basis: Array, g: Array) -> Array:
        if not basis.size:
            return basis
        wide = lax.stop_gradient(g if _is_left(g) else g.T)
        return jnp.linalg.svd(wide, full_matrices=False)[0][:, : basis.shape[1]]

    return jax.tree.map(leaf, bases, grads)
