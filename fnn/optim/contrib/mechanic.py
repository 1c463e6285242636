"""A scale for the updates of any optimizer, found while it trains."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._wrap import wrapping
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MechanicState:
    """Where the optimizer alone would be, and the tuners of the scale, one for each decay rate."""

    offset: Params  # sum of the optimizer's updates, in at least float32
    s: Float[Array, " betas"]  # their sum is the scale
    r: Float[Array, " betas"]  # reward
    m: Float[Array, " betas"]  # largest |h|
    v: Float[Array, " betas"]  # sum of h^2
    inner: Any


@within(first_scale="(0, inf)", weight_decay="[0, inf)", eps="(0, inf)")
def mechanize(
    optimizer: Optimizer,
    *,
    first_scale: Scalar = 1e-6,
    weight_decay: Scalar = 0.01,
    eps: Scalar = 1e-8,
    num_betas: int = 6,
) -> Optimizer:
    """Mechanic: any optimizer, with its updates scaled by a number that is learned from them.

        h = -<offset, g + weight_decay sum(s) ||g|| / (||p|| + eps) p>
        r <- beta r + clip(h, -m, m) s        beta = 0.9, 0.99, ...; s, r, m, v for each of them
        m <- max(beta m, |h| + eps)           v <- beta^2 v + h^2
        s <- (first_scale / num_betas m + max(r, 0)) / (sqrt(v) + eps)
        offset <- offset + the optimizer's update
        p + update = p_0 + sum(s) offset

    Use it with lr = 1, or a schedule that starts at 1; not around optimizers with steps that are a
    fraction of the parameters, such as `lamb`, or that measure their own rate.

    Args:
      first_scale: each s before the first step, above 0 and less than any that could be right.
      weight_decay: draws the scale towards 0; the parameters do not decay by it.
      eps: in the unit of h in m and v, of p beside ||p||; above 0.
      num_betas: tuners, from 1; static.

    State: MechanicState: one tree like params, beside the optimizer's.
    Source: Cutkosky, Defazio & Mehta 2023, arXiv:2306.00144, Algorithm 1. Deviates: the reward is
      clipped, as in the authors' later code. Compat: `optax.contrib.mechanize` stores p_0 and has
      the offset from (p_0 - p) / (sum(s) + eps): the two agree up to eps / s.

    >>> from fnn.optim import sgd
    >>> opt, params = mechanize(sgd(), first_scale=0.1, num_betas=1), {'w': jnp.array([0.0])}
    >>> state, grads = opt.init(params), {'w': jnp.array([1.0])}
    >>> for _ in range(4):
    ...     updates, state = opt.update(grads, state, params, 1.0)
    ...     params = tree.add(params, updates)
    >>> state.offset['w'].item(), bool(params['w'] == -4 * state.s[0])
    (-4.0, True)
    """

    def init(params):
        def zeros():
            return jnp.zeros(num_betas, dtypes.widest(params))

        return MechanicState(
            offset=tree.zeros_like(params),
            s=zeros() + jnp.asarray(first_scale, zeros().dtype),
            r=zeros(),
            m=zeros(),
            v=zeros(),
            inner=optimizer.init(params),
        )

    def update(grads, state, params, lr, objective):
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        offset = jax.tree.map(lambda o, u: o + u.astype(o.dtype), state.offset, updates)
        tuners = tuned(state, hint(state, dtypes.wide(grads), dtypes.wide(params)))
        old, new = state.s.sum(), tuners["s"].sum()

        def move(before: Array, after: Array) -> Array:
            return new.astype(after.dtype) * after - old.astype(after.dtype) * before

        moved = jax.tree.map(move, state.offset, offset)
        return moved, MechanicState(offset=offset, inner=inner, **tuners)

    def hint(state: MechanicState, grads: Params, params: Params) -> Array:
        """h: how much the loss falls along the offset, to first order."""
        small = jnp.asarray(eps, state.s.dtype)
        pull = tree.global_norm(grads) / (tree.global_norm(params) + small) * state.s.sum()
        pull = jnp.asarray(weight_decay, pull.dtype) * pull
        return -(tree.dot(state.offset, grads) + pull * tree.dot(state.offset, params))

    def tuned(state: MechanicState, h: Array) -> dict[str, Array]:
        dtype = state.s.dtype
        beta = jnp.array([1 - 0.1**i for i in range(1, num_betas + 1)], dtype)
        h, small = h.astype(dtype), jnp.asarray(eps, dtype)
        r = beta * state.r + jnp.clip(h, -state.m, state.m) * state.s
        m = jnp.maximum(beta * state.m, jnp.abs(h) + small)
        v = jnp.square(beta) * state.v + jnp.square(h)
        wealth = jnp.asarray(first_scale, dtype) / num_betas * m + jnp.maximum(r, 0)
        return {"s": wealth / (safe_sqrt(v) + small), "r": r, "m": m, "v": v}

    return wrapping("mechanize", optimizer, init, update)
