"""Shampoo: Kronecker-factored full-matrix preconditioning."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.expect import within
from fnn.optim._base import decay_weights, from_direction, moving_average, update_every
from fnn.optim.adam import adam
from fnn.optim.contrib._kronecker import (
    Factors,
    Matrices,
    as_matrices,
    average_grams,
    join_blocks,
    map_factors,
    multiply,
    split_blocks,
    zero_factors,
)
from fnn.optim.contrib._linalg import inverse_root
from fnn.tree import Mask, global_norm
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ShampooState:
    """The momentum, the factors of each block, their inverse roots, and the graft's state."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # running mean of the gradient, in at least float32
    factors: Factors  # block -> {'left': (m, m), 'right': (n, n)}, in at least float32
    roots: Factors  # their inverse roots at the last renewal
    graft: Any


@within(b1="[0, 1)", b2="[0, 1)", weight_decay="[0, inf)", every_steps="[1, inf)", eps="[0, inf)")
def shampoo(
    *,
    graft: Optimizer | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    stacked: Mask | None = None,
    every_steps: int | Int[Array, ""] = 10,
    block_size: int = 1024,
    max_size: int = 8192,
    eps: Scalar = 1e-6,
) -> Optimizer:
    """Shampoo: preconditions with L^(-1/4) G R^(-1/4), rescaled to the norm of Adam's update.

        L <- b2 L + (1 - b2) G G^T        R <- b2 R + (1 - b2) G^T G        m <- b1 m + (1 - b1) G
        u = L^(-1/4) m R^(-1/4)           with roots that are renewed every `every_steps` updates
        update = -lr (||a|| / ||u|| u + weight_decay p),    a the graft's direction for the leaf

    lr and decay: as AdamW's.

    Args:
      graft: the optimizer whose update gives the norm for each leaf; None is `adam(b1=b1, b2=b2)`.
        Leaves with fewer than two axes, and matrices with no side up to `max_size`, follow it.
        `rmsprop()` saves a copy of the parameters.
      b1, b2: decay rates of the momentum and of the factors, in [0, 1).
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.
      stacked: which leaves hold several matrices, in their last two axes: layers stacked for a
        scan, experts. In all others the last axis is n, and all before it are m.
      every_steps: updates between renewals of the roots.
      block_size: a matrix with longer sides is split into even blocks with sides up to this, and G,
        m, L and R are those of a block. A root costs some 20 n^3 operations.
      max_size: longer sides are not split and have no factor, and the root of the other side is
        then -1/2: of a table of 50,257 rows, only the columns are preconditioned.
      eps: added to the factors, as a fraction of their mean eigenvalue.

    Factors of equal size are decomposed together. Under a vmap the roots are computed in every
    update, and those not due are dropped: it costs more.

    State: ShampooState; a factor is named by its leaf's path, in a leaf of several blocks as
      'path[0,1]'.
    Raises: ValueError, if block_size is not above 0.
    Source: Gupta, Koren & Singer 2018, arXiv:1802.09568; blocks of Anil et al. 2020,
      arXiv:2002.09018; averages, grafting and momentum of Shi et al. 2023, arXiv:2309.06497.
      Deviates: eps is relative, since eigenvalues in float32 have errors of 1e-7 of the largest;
      with it and a graft, factors need no correction for their start; blocks are even, where the
      authors' last block is the remainder; the norm is the leaf's, not the block's; biases follow
      the graft.
    Compat: not in Optax, Keras or PyTorch.

    >>> opt, params = shampoo(), {'w': jnp.eye(2)}
    >>> grads = {'w': jnp.array([[4.0, 0.0], [0.0, -1.0]])}
    >>> updates, _ = opt.update(grads, opt.init(params), params, 0.1)
    >>> jnp.diag(updates['w']).round(2)    # orthogonal, with the norm of Adam's update
    Array([-0.1,  0.1], dtype=float32)
    """
    graft = adam(b1=b1, b2=b2) if graft is None else graft

    def blocks_of(leaves: Params, params: Params) -> Matrices:
        return split_blocks(as_matrices(leaves, params, stacked), block_size, max_size)

    def init(params: Params) -> ShampooState:
        factors = zero_factors(blocks_of(tree.zeros_like(params), params), max_size)
        return ShampooState(
            step=jnp.int32(0),
            m=tree.zeros_like(params),
            factors=factors,
            roots=jax.tree.map(jnp.zeros_like, factors),
            graft=graft.init(params),
        )

    def direction(
        grads: Params, state: ShampooState, params: Params
    ) -> tuple[Params, ShampooState]:
        m = moving_average(b1, state.m, grads)
        factors = average_grams(b2, state.factors, blocks_of(grads, params))
        roots = update_every(every_steps, state.step, _renewed, state.roots, factors, eps)
        a, inner = graft.update(grads, state.graft, params, -1.0)
        blocks = blocks_of(m, params).items()
        preconditioned = {name: multiply(roots[name], block) for name, block in blocks}

        def leaf(path: str, a: Array) -> Array:
            if a.ndim < 2 or roots.get(path) == {}:
                return a
            return _with_norm_of(a, join_blocks(preconditioned, path).reshape(a.shape))

        u = tree.map_with_path(leaf, a)
        state = ShampooState(step=state.step + 1, m=m, factors=factors, roots=roots, graft=inner)
        return decay_weights(u, params, weight_decay, mask), state

    return from_direction("shampoo", init, direction)


def _renewed(roots: Factors, factors: Factors, eps: Scalar) -> Factors:
    """A^(-1/4), or A^(-1/2) where a matrix has one factor."""
    renewed: Factors = {path: {} for path in factors}
    for order in (2, 4):
        some = {path: both for path, both in factors.items() if 2 * len(both) == order}
        renewed |= map_factors(lambda a, order=order: inverse_root(_ridged(a, eps), order), some)
    return renewed


def _ridged(a: Array, eps: Scalar) -> Array:
    identity = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    mean = jnp.trace(a, axis1=-2, axis2=-1)[..., None, None] / a.shape[-1]
    return a + jnp.asarray(eps, a.dtype) * mean * identity


def _with_norm_of(a: Array, u: Array) -> Array:
    """u with the norm of a; 0 where u is."""
    norm = global_norm(u)
    scale = jnp.where(norm > 0, global_norm(a) / jnp.where(norm > 0, norm, 1), 0)
    return scale.astype(u.dtype) * u
