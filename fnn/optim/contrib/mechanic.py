"""Mechanic: a learning rate tuner around any optimizer."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._wrap import wrap
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MechanicState:
    """The sum of the optimizer's updates, and the tuners of the scale, one per decay rate."""

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
    """Mechanic: scales the updates of any optimizer by a factor that is learned during training.

        h = -<offset, g + weight_decay sum(s) ||g|| / (||p|| + eps) p>
        r <- beta r + clip(h, -m, m) s        beta = 0.9, 0.99, ...; s, r, m, v for each of them
        m <- max(beta m, |h| + eps)           v <- beta^2 v + h^2
        s <- (first_scale / num_betas m + max(r, 0)) / (sqrt(v) + eps)
        offset <- offset + the optimizer's update
        p + update = p_0 + sum(s) offset

    Use lr = 1, or a schedule that starts at 1; not around optimizers whose steps are relative to
    the parameters, such as `lamb`, or that estimate their own lr.

    Args:
      first_scale: initial value of each s, above 0 and smaller than any reasonable one.
      weight_decay: draws the scale towards 0; it does not decay the parameters.
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

    def init(params: Params) -> MechanicState:
        def zeros() -> Array:
            return jnp.zeros(num_betas, dtypes.widest(params))

        return MechanicState(
            offset=tree.zeros_like(params),
            s=zeros() + jnp.asarray(first_scale, zeros().dtype),
            r=zeros(),
            m=zeros(),
            v=zeros(),
            inner=optimizer.init(params),
        )

    def update(
        grads: Params, state: MechanicState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, MechanicState]:
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        offset = jax.tree.map(lambda o, u: o + u.astype(o.dtype), state.offset, updates)
        tuners = tuned(state, hint(state, dtypes.wide(grads), dtypes.wide(params)))
        old, new = state.s.sum(), tuners["s"].sum()

        def move(before: Array, after: Array) -> Array:
            return new.astype(after.dtype) * after - old.astype(after.dtype) * before

        moved = jax.tree.map(move, state.offset, offset)
        return moved, MechanicState(offset=offset, inner=inner, **tuners)

    def hint(state: MechanicState, grads: Params, params: Params) -> Array:
        """h: the first-order decrease of the loss along the offset."""
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

    return wrap("mechanize", optimizer, init, update)
