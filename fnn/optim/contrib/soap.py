"""SOAP: Adam in the eigenbasis of Shampoo."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.expect import within
from fnn.optim._base import (
    decay_weights,
    from_direction,
    mean_square,
    moving_average,
    over_root,
    unbiased,
    unchanged,
)
from fnn.optim._wrap import tree_where
from fnn.optim.contrib._kronecker import (
    Factors,
    as_matrices,
    average_grams,
    map_factors,
    multiply,
    zero_factors,
)
from fnn.optim.contrib._linalg import eigenbasis, orthonormal
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SoapState:
    """Moments of the gradient, the second in the basis; the factors and their eigenvectors."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # first moment, in at least float32
    v: Params  # second moment of the rotated gradient, in at least float32
    factors: Factors  # path -> {'left': (m, m), 'right': (n, n)}, in at least float32
    bases: Factors  # their eigenvectors in columns, as of the last renewal


@within(
    b1="[0, 1)",
    b2="[0, 1)",
    b3="[0, 1)",
    weight_decay="[0, inf)",
    every_steps="[1, inf)",
    eps="[0, inf)",
)
def soap(
    *,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    b3: Scalar = 0.95,
    weight_decay: Scalar = 0.01,
    mask: Mask | None = None,
    stacked: Mask | None = None,
    every_steps: int | Int[Array, ""] = 10,
    max_size: int = 10_000,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """SOAP: Adam in the eigenbasis of the gradient's Kronecker-factored second moments.

        G' = Q_L^T G Q_R        m <- b1 m + (1 - b1) G        v <- b2 v + (1 - b2) G'^2
        u = Q_L (adam's direction for Q_L^T m Q_R and v) Q_R^T
        update = -lr (u + weight_decay p)
        L <- b3 L + (1 - b3) G G^T        R <- b3 R + (1 - b3) G^T G
        every `every_steps` updates:      Q_L <- Q of the QR of L Q_L        Q_R <- Q of R Q_R

    The first update is Adam's, g / (|g| + eps). Its gradient gives the first bases (eigenvectors)
    and does not enter the moments: in its own basis it is diagonal up to rounding. lr: 3e-3.

    Args:
      b1, b2: decay rates of the moments, in [0, 1).
      b3: decay rate of the factors, in [0, 1).
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.
      stacked: which leaves hold several matrices, in their last two axes: layers stacked for a
        scan, experts. In all others the last axis is n, and all before it are m.
      every_steps: updates between renewals of the bases.
      max_size: longer sides are not rotated; 0 gives Adam.
      eps: as in `adam`.

    Leaves with fewer than two axes follow Adam. Bases of equal size are renewed together. Under a
    vmap the bases are computed in every update, and those not due are dropped: it costs more.

    State: SoapState.
    Source: Vyas et al. 2024, arXiv:2409.11321, Algorithms 3 and 4; defaults and first update of the
      authors' code, with lr 3e-3. Deviates: eps as in Adam; their first update is zero, so that
      of two equal gradients the second would step by the sign of rounding; eigenvectors are not
      sorted before a renewal, since the QR decomposition brings them in order.
    Compat: not in Optax, Keras or PyTorch.

    >>> opt, params = soap(weight_decay=0.0), {'w': jnp.eye(2)}
    >>> grads, state = {'w': jnp.array([[4.0, 0.0], [0.0, -1.0]])}, opt.init(params)
    >>> for _ in range(2):
    ...     updates, state = opt.update(grads, state, params, 0.1)
    >>> jnp.diag(updates['w']).round(2)
    Array([-0.1,  0.1], dtype=float32)
    """

    def init(params: Params) -> SoapState:
        factors = zero_factors(as_matrices(tree.zeros_like(params), params, stacked), max_size)
        return SoapState(
            step=jnp.int32(0),
            m=tree.zeros_like(params),
            v=tree.zeros_like(params),
            factors=factors,
            bases=jax.tree.map(jnp.zeros_like, factors),
        )

    def direction(grads: Params, state: SoapState, params: Params) -> tuple[Params, SoapState]:
        t = jnp.maximum(state.step, 1)  # of Adam, whose updates begin with the second

        def rotated(leaves: Params, *, back: bool = False) -> Params:
            flat = as_matrices(leaves, params, stacked)
            rotated = {
                path: multiply(both, flat[path], transposed=not back)
                for path, both in state.bases.items()
            }
            return tree.map_with_path(
                lambda path, x: rotated[path].reshape(x.shape) if path in rotated else x, leaves
            )

        def first(g: Array) -> Array:
            return g / (jnp.abs(g) + jnp.asarray(eps, g.dtype))

        begun = state.step > 0
        m = tree_where(begun, moving_average(b1, state.m, grads), state.m)
        v = tree_where(begun, mean_square(b2, state.v, rotated(grads)), state.v)
        adam = over_root(unbiased(b1, rotated(m), t), unbiased(b2, v, t), eps)
        u = rotated(adam, back=True)
        u = tree_where(begun, u, jax.tree.map(first, grads))
        factors = average_grams(b3, state.factors, as_matrices(grads, params, stacked))
        due = state.step % jnp.asarray(every_steps, jnp.int32) == 0
        # Functions defined in the module: JAX caches the tracing of a branch by its identity.
        branch = jnp.where(state.step == 0, 2, due.astype(jnp.int32))
        bases = jax.lax.switch(branch, [unchanged, _turned, _found], state.bases, factors)
        state = SoapState(step=state.step + 1, m=m, v=v, factors=factors, bases=bases)
        return decay_weights(u, params, weight_decay, mask), state

    return from_direction("soap", init, direction)


def _turned(bases: Factors, factors: Factors) -> Factors:
    """One power iteration."""
    return map_factors(lambda q, a: orthonormal(a @ q), bases, factors)


def _found(bases: Factors, factors: Factors) -> Factors:
    return map_factors(eigenbasis, factors)
