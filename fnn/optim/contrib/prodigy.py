"""D-Adaptation and Prodigy: Adam that estimates its own learning rate."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.dtypes import wide
from fnn.expect import within
from fnn.optim._base import (
    decay_weights,
    from_update,
    mean_square,
    moving_average,
    over_root,
)
from fnn.optim._wrap import wide_copy
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar
from fnn.xla import written_after


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DistanceState:
    """Adam's moments, and a lower bound of the distance to the solution."""

    m: Params  # first moment, in at least float32; in prodigy times d
    v: Params  # second moment
    s: Params  # weighted sum of the gradients
    r: Float[Array, ""]  # weighted sum of inner products with the gradients
    d: Float[Array, ""]  # the distance: the step is lr * d


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ProdigyState:
    """The first parameters, and the estimate of the distance from them."""

    start: Params  # in at least float32
    distance: DistanceState


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)", d0="(0, inf)", weight_decay="[0, inf)")
def prodigy(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    d0: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Prodigy: Adam with an estimate of the distance from the start to the solution as step size.

        m <- b1 m + (1 - b1) d g       v <- b2 v + (1 - b2) d^2 g^2
        r <- b3 r + (1 - b3) lr d^2 <g, p_0 - p>       b3 = sqrt(b2)
        s <- b3 s + (1 - b3) lr d^2 g
        update = -lr d (m / (sqrt(v) + d eps) + weight_decay p)
        d <- max(d, r / ||s||_1)

    Use lr = 1, or a schedule that starts at 1, without tuning.

    Args:
      b1, b2, eps: as in `adam`; the moments are not corrected for their start.
      d0: initial step size, above 0 and smaller than any reasonable one.
      weight_decay: decoupled, per unit of lr d.
      mask: which leaves decay; None is all of them.

    State: ProdigyState, four trees like params. `state.distance.d` times lr is the step size.
    Source: Mishchenko & Defazio 2023, arXiv:2306.06101, Algorithm 4. Deviates: r and s are divided
      by (1 - b3) d0, which keeps r / ||s|| and gives them the magnitude of g. Compat:
      `optax.contrib.prodigy` multiplies lr by sqrt(1 - b2^t) / (1 - b1^t), which PyTorch's
      original has as an option; with that lr the two agree.

    >>> opt, params = prodigy(d0=0.1), {'w': jnp.array([1.0])}
    >>> updates, _ = opt.update({'w': jnp.array([2.0])}, opt.init(params), params, 1.0)
    >>> float(f"{updates['w'][0]:.3g}")   # -0.1 (0.1 * 2) / (sqrt(0.001) 2)
    -0.316
    """

    def init(params: Params) -> ProdigyState:
        return ProdigyState(start=wide_copy(params), distance=_first_distance(params, d0))

    def update(
        grads: Params, state: ProdigyState, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, ProdigyState]:
        old = state.distance
        d, rate = old.d, jnp.asarray(lr, old.d.dtype) * old.d
        b3 = safe_sqrt(jnp.asarray(b2, d.dtype))
        back = jax.tree.map(jnp.subtract, state.start, wide(params))
        weight = rate * d / jnp.asarray(d0, d.dtype)
        r = b3 * old.r + weight * tree.dot(grads, back)
        rate, d_eps = written_after(rate, r), d * jnp.asarray(eps, d.dtype)
        s = _sum(b3, old.s, weight, grads)
        moments = jax.tree.map(lambda g: d.astype(g.dtype) * g, grads)
        m, v = moving_average(b1, old.m, moments), mean_square(b2, old.v, moments)
        updates = decay_weights(over_root(m, v, d_eps), params, weight_decay, mask)
        distance = DistanceState(m=m, v=v, s=s, r=r, d=_larger(d, r, _absolute_sum(s, d.dtype)))
        return tree.scale(-rate, updates), ProdigyState(start=state.start, distance=distance)

    return from_update("prodigy", init, update)


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)", d0="(0, inf)", weight_decay="[0, inf)")
def dadapt_adam(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    d0: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """D-Adapted Adam: as `prodigy`, with another bound of the distance, which grows more slowly.

        m <- b1 m + (1 - b1) lr d g       v <- b2 v + (1 - b2) g^2
        r <- b3 r + (1 - b3) lr d <g, s / (sqrt(v) + eps)>       b3 = sqrt(b2)
        s <- b3 s + (1 - b3) lr d g
        update = -(m / (sqrt(v) + eps) + lr d weight_decay p)
        d <- max(d, r / ((1 - b3) ||s||_1))

    Use lr = 1, or a schedule that starts at 1.

    Args:
      b1, b2, eps, d0, weight_decay, mask: as in `prodigy`.

    State: DistanceState, three trees like params.
    Source: Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5. Compat:
      `optax.contrib.dadapt_adamw` multiplies lr by sqrt(1 - b2^t) / (1 - b1^t), and divides in r
      by v as it was before the step.

    >>> opt, params = dadapt_adam(d0=0.1), {'w': jnp.array([1.0])}
    >>> updates, _ = opt.update({'w': jnp.array([2.0])}, opt.init(params), params, 1.0)
    >>> float(f"{updates['w'][0]:.3g}")   # -(0.1 * 0.1 * 2) / (sqrt(0.001) 2)
    -0.316
    """

    def update(
        grads: Params, state: DistanceState, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, DistanceState]:
        d = state.d
        rate, b3 = jnp.asarray(lr, d.dtype) * d, safe_sqrt(jnp.asarray(b2, d.dtype))
        moments = tree.scale(rate, grads)
        m, v = moving_average(b1, state.m, moments), mean_square(b2, state.v, grads)
        small = jnp.asarray(eps, d.dtype)
        r = b3 * state.r + (1 - b3) * rate * tree.dot(grads, over_root(state.s, v, small))
        one = written_after(jnp.ones_like(d), r)
        s = _sum(one * b3, state.s, (1 - b3) * rate, grads)
        larger = _larger(d, r, (1 - b3) * _absolute_sum(s, d.dtype))
        decay = rate * jnp.asarray(weight_decay, d.dtype)
        # Recomputes the root of v: shared with r, it would be materialized.
        u = decay_weights(over_root(m, tree.scale(one, v), small), params, decay, mask)
        return tree.scale(-jnp.ones_like(d), u), DistanceState(m=m, v=v, s=s, r=r, d=larger)

    return from_update("dadapt_adam", lambda params: _first_distance(params, d0), update)


def _first_distance(params: Params, d0: Scalar) -> DistanceState:
    dtype = dtypes.widest(params)
    return DistanceState(
        m=tree.zeros_like(params),
        v=tree.zeros_like(params),
        s=tree.zeros_like(params),
        r=jnp.zeros((), dtype),
        d=jnp.array(d0, dtype, copy=True),
    )


def _larger(d: Array, r: Array, norm: Array) -> Array:
    """max(d, r / norm); d while all gradients are zero."""
    return jnp.maximum(d, r / jnp.where(norm > 0, norm, 1))


def _sum(b3: Array, s: Params, weight: Array, grads: Params) -> Params:
    return jax.tree.map(lambda s, g: b3.astype(s.dtype) * s + weight.astype(s.dtype) * g, s, grads)


def _absolute_sum(values: Params, dtype: Any) -> Array:
    sums = [jnp.abs(x).sum().astype(dtype) for x in jax.tree.leaves(values)]
    return jnp.stack([jnp.zeros((), dtype), *sums]).sum()
