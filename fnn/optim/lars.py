"""LARS and LAMB: steps scaled per layer to the norm of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.expect import within
from fnn.optim._base import decay_weights, from_direction, marked
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
    """LARS: SGD with momentum on gradients rescaled per layer to a fraction of the parameter norm.

        ratio = trust ||p|| / (||g|| + weight_decay ||p||)       for each leaf, with its L2 norms
        v <- momentum v + ratio (g + weight_decay p)
        update = -lr v

    Args:
      momentum: decay rate of the velocity, in [0, 1).
      weight_decay: added to the gradient before momentum; 5e-4 in the paper.
      mask: which leaves decay; None is all of them.
      trust: the norm of a step relative to that of its leaf at lr 1; eta in the paper.
      scaled: which leaves are rescaled; None is all of them. The others follow SGD with momentum at
        the same lr, as is usual for biases and the scales of norms.

    A leaf whose norm, or whose gradient, is 0 has the ratio 1, or it could never leave 0.
    lr: 1 to 10.

    State: v like params, in at least float32.
    Source: You, Gitman & Ginsburg 2017, arXiv:1708.03888, Algorithm 1. Deviates: lr outside of v,
      as in `sgd`, so that a new lr acts at once; the ratio at zero norms.
    Compat: Optax divides by ||g + weight_decay p|| and keeps lr inside v: it is the same without
      decay and at a constant lr.

    >>> opt, params = lars(trust=0.1), {'w': jnp.array([3.0, 4.0])}
    >>> opt.update({'w': jnp.array([2.0, 0.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-0.5, -0.0]
    """

    def direction(grads: Params, velocity: Params, params: Params) -> tuple[Params, Any]:
        def ratio(g: Array, p: Array, decays: bool, is_scaled: bool) -> Array:
            if not is_scaled:
                return jnp.ones((), g.dtype)
            g_norm, p_norm = (tree.global_norm(x).astype(g.dtype) for x in (g, p))
            total = g_norm + jnp.asarray(weight_decay if decays else 0.0, g.dtype) * p_norm
            return _quotient_or_1(jnp.asarray(trust, g.dtype) * p_norm, total, p_norm, g_norm)

        ratios = jax.tree.map(ratio, grads, params, marked(mask, params), marked(scaled, params))
        u = decay_weights(grads, params, weight_decay, mask)
        velocity = jax.tree.map(
            lambda v, u, r: jnp.asarray(momentum, v.dtype) * v + r * u, velocity, u, ratios
        )
        return velocity, velocity

    return from_direction("lars", tree.zeros_like, direction)


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
    """LAMB: AdamW's direction, rescaled per layer to lr times the parameter norm.

        u = adam's direction + weight_decay p
        update = -lr (||p|| / ||u||) u          for each leaf, with its L2 norms

    Args:
      weight_decay: decoupled, per unit of lr; 0.01 with large batches.
      mask: which leaves decay; None is all of them.
      scaled: which leaves are rescaled; None is all of them. The others follow AdamW, as is usual
        for biases and the scales of norms.
      b1, b2, eps: as in `adam`.

    A leaf whose norm is 0, or whose u is 0, has the ratio 1, or it could never leave 0. lr: 0.01.

    State: AdamState.
    Source: You et al. 2020, arXiv:1904.00962, Algorithm 2, with phi(z) = z. Deviates: the ratio
      at zero norms, which the paper does not define; it is Optax's.
    Compat: Optax's `lamb`, which has no `scaled`.

    >>> opt, params = lamb(), {'w': jnp.array([3.0, 4.0])}
    >>> updates, _ = opt.update({'w': jnp.array([7.0, -7.0])}, opt.init(params), params, 0.1)
    >>> [float(f"{u:.3g}") for u in updates['w']]    # of norm 0.1 * 5
    [-0.354, 0.354]
    """
    inner = adam(b1=b1, b2=b2, eps=eps)

    def direction(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        def rescaled(u: Array, p: Array, is_scaled: bool) -> Array:
            p_norm, u_norm = (tree.global_norm(x).astype(u.dtype) for x in (p, u))
            return _quotient_or_1(p_norm, u_norm, p_norm, u_norm) * u if is_scaled else u

        u, state = inner.update(grads, state, params, -1.0)
        u = decay_weights(u, params, weight_decay, mask)
        return jax.tree.map(rescaled, u, params, marked(scaled, params)), state

    return from_direction("lamb", inner.init, direction)


def _quotient_or_1(a: Array, b: Array, *norms: Array) -> Array:
    """a / b, or 1 where one of the norms is 0."""
    known = (norms[0] > 0) & (norms[1] > 0)
    return jnp.where(known, a / jnp.where(known, b, 1), 1)
