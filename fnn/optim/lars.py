"""LARS and LAMB: steps scaled per layer to the norm of the parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.expect import within
from fnn.optim._base import decay_weights, from_direction
from fnn.optim.adam import adam
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@within(momentum="[0, 1)", weight_decay="[0, inf)", trust="(0, inf)")
def lars(
    *,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    trust: Scalar = 1e-3,
    scaled: Mask | None = None,
) -> Optimizer:
    """LARS: momentum over gradients that are as long as a share of their leaf.

        ratio = trust ||p|| / (||g|| + weight_decay ||p||)       for each leaf, with its L2 norms
        v <- momentum v + ratio (g + weight_decay p)
        update = -lr v

    Args:
      momentum: share of the velocity that a step keeps, in [0, 1).
      weight_decay: added to the gradient before momentum; 5e-4 in the paper.
      mask: which leaves decay; None is all of them.
      trust: eta, how far a leaf trusts its gradient: a step's share of the leaf's norm at lr 1.
      scaled: which leaves are scaled by the ratio; None is all of them. The others follow
        momentum: usual for biases and the scales of norms, with lr in mind.

    A leaf whose norm is 0, or whose gradient is 0, has the ratio 1, or it could never leave 0.
    lr: 1 to 10.

    State: v like params, in at least float32.
    Source: You, Gitman & Ginsburg 2017, arXiv:1708.03888, Algorithm 1. Deviates: lr outside of v,
      as in `momentum`, so that changing it acts at once; the ratio at zero norms.
    Compat: Optax divides by ||g + weight_decay p|| and keeps lr inside v: it is the same without
      decay and at a constant lr.
    Measured with trust=0.01: digits 98.5 % at lr 1; Rosenbrock in ten dimensions 0.002 at lr 0.1.

    >>> opt, params = lars(trust=0.1), {'w': jnp.array([3.0, 4.0])}
    >>> opt.update({'w': jnp.array([2.0, 0.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-0.5, -0.0]
    """

    def direction(grads, velocity, params):
        decaying = jax.tree.map(lambda _: True, params) if mask is None else mask(params)
        marked = jax.tree.map(lambda _: True, params) if scaled is None else scaled(params)

        def ratio(g: Array, p: Array, decays: bool, is_scaled: bool) -> Array:
            if not is_scaled:
                return jnp.ones((), g.dtype)
            return _ratio(g, p, trust, weight_decay if decays else 0.0)

        ratios = jax.tree.map(ratio, grads, params, decaying, marked)
        u = decay_weights(grads, params, weight_decay, mask)
        velocity = jax.tree.map(
            lambda v, u, r: jnp.asarray(momentum, v.dtype) * v + r * u, velocity, u, ratios
        )
        return velocity, velocity

    return from_direction("lars", tree.zeros_like, direction)


def _ratio(g: Array, p: Array, trust: Scalar, decay: Scalar) -> Array:
    slope, size = tree.global_norm(g).astype(g.dtype), tree.global_norm(p).astype(g.dtype)
    known = (size > 0) & (slope > 0)
    length = slope + jnp.asarray(decay, g.dtype) * size
    return jnp.where(known, jnp.asarray(trust, g.dtype) * size / jnp.where(known, length, 1), 1)


@within(weight_decay="[0, inf)", b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def lamb(
    *,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    scaled: Mask | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
) -> Optimizer:
    """LAMB: each leaf moves by lr times its own norm, along AdamW's direction.

        u = adam's direction + weight_decay p
        update = -lr (||p|| / ||u||) u          for each leaf, with its L2 norms

    Args:
      weight_decay: decoupled, per unit of lr; 0.01 with large batches.
      mask: which leaves decay; None is all of them.
      scaled: which leaves are scaled by the ratio of norms; None is all of them. The others move
        as AdamW's: usual for biases and the scales of norms.
      b1, b2, eps: as in `adam`.

    A leaf whose norm is 0, or whose u is 0, has the ratio 1, or it could never leave 0. lr: 0.01.

    State: AdamState.
    Source: You et al. 2020, arXiv:1904.00962, Algorithm 2, with phi(z) = z. Deviates: the ratio
      at zero norms, on which the paper is silent, and which is that of Optax.
    Compat: Optax's `lamb` is the same, but has no `scaled`.
    Measured: digits 98.7 % at lr 0.0032; Rosenbrock in ten dimensions 0.49 at lr 0.01.

    >>> opt, params = lamb(), {'w': jnp.array([3.0, 4.0])}
    >>> updates, _ = opt.update({'w': jnp.array([7.0, -7.0])}, opt.init(params), params, 0.1)
    >>> updates['w'].round(3).tolist()    # of length 0.1 * 5
    [-0.35400000214576721, 0.35400000214576721]
    """
    inner = adam(b1=b1, b2=b2, eps=eps)

    def direction(grads, state, params):
        u, state = inner.update(grads, state, params, -1.0)
        u = decay_weights(u, params, weight_decay, mask)
        marked = jax.tree.map(lambda _: True, params) if scaled is None else scaled(params)
        return jax.tree.map(
            lambda u, p, m: trust_ratio(p, u) * u if m else u, u, params, marked
        ), state

    return from_direction("lamb", inner.init, direction)


def trust_ratio(param: Array, u: Params) -> Array:
    """||param|| / ||u||, or 1 where one of them is 0; in the dtype of u.

    >>> trust_ratio(jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])).item()
    2.5
    """
    size, length = (tree.global_norm(x).astype(u.dtype) for x in (param, u))
    known = (size > 0) & (length > 0)
    return jnp.where(known, size / jnp.where(known, length, 1), 1)
