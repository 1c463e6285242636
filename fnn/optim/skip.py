"""Skipping updates whose gradient is not finite, or far larger than usual."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fnn import dtypes, tree
from fnn.expect import within
from fnn.optim._base import bias_correction
from fnn.optim._wrap import tree_where, wrap
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SkipState:
    """The number of skipped updates, and the state of the optimizer."""

    skipped: Int[Array, ""]  # int32
    inner: Any


def skip_not_finite(optimizer: Optimizer) -> Optimizer:
    """Skips the update, and leaves the state unchanged, if the gradient has a NaN or infinity.

        all of g finite:   the update of `optimizer`
        else:              update = 0, its state unchanged, skipped <- skipped + 1

    State: SkipState.
    Compat: `optax.apply_if_finite`, which gives up after a number of errors in a row; this never
      does: look at `skipped`.

    >>> from fnn.optim import sgd
    >>> opt, params = skip_not_finite(sgd()), {'w': jnp.ones(2)}
    >>> updates, state = opt.update({'w': jnp.array([jnp.nan, 1.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].tolist(), state.skipped.item()
    ([0.0, 0.0], 1)
    """

    def init(params: Params) -> SkipState:
        return SkipState(skipped=jnp.int32(0), inner=optimizer.init(params))

    def update(
        grads: Params, state: SkipState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, SkipState]:
        good = tree.all_finite(grads)
        updates, inner = update_if(good, optimizer, grads, state.inner, params, lr, objective)
        return updates, SkipState(skipped=state.skipped + jnp.where(good, 0, 1), inner=inner)

    return wrap("skip_not_finite", optimizer, init, update)


def update_if(
    good: Bool[Array, ""],
    optimizer: Optimizer,
    grads: Params,
    state: Any,
    params: Params,
    lr: Any,
    objective: Objective | None,
) -> tuple[Params, Any]:
    """The optimizer's update and state if `good`, else zeros and the old state."""
    # Unused gradients are zeroed, since a NaN would pass into gradients through training.
    safe = tree_where(good, grads, jax.tree.map(jnp.zeros_like, grads))
    updates, new = optimizer.update(safe, state, params, lr, objective)
    updates = tree_where(good, updates, jax.tree.map(jnp.zeros_like, updates))
    return updates, tree_where(good, new, state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SpikeState:
    """The running mean norm, the number of skipped updates, and the optimizer's state."""

    seen: Int[Array, ""]  # finite gradients so far, int32
    mean: Float[Array, ""]  # running mean of their norms
    skipped: Int[Array, ""]  # int32
    inner: Any


@within(factor="(1, inf)", decay="[0, 1)", warmup_steps="[0, inf)")
def skip_spikes(
    optimizer: Optimizer,
    *,
    factor: Scalar = 5.0,
    decay: Scalar = 0.98,
    warmup_steps: Scalar = 100,
) -> Optimizer:
    """Skips the update if the gradient's norm is far above its running mean, or not finite.

        limit = factor mean,   infinite for the first `warmup_steps` gradients
        ||g|| <= limit:   the update of `optimizer`
        else:             update = 0, its state unchanged, skipped <- skipped + 1
        mean <- running mean of min(||g||, limit), corrected for its start

    The mean includes a spike clipped to the limit, so it follows a lasting change of scale.

    Args:
      factor: above 1.
      decay: decay rate of the mean, in [0, 1).
      warmup_steps: number of gradients before the first that may be skipped.

    State: SpikeState.
    Source: the practice of Chowdhery et al. 2022, arXiv:2204.02311, section 5.1, and of OLMo 2,
      arXiv:2501.00656. Deviates: a running mean instead of a window of norms, and a factor instead
      of standard deviations. Compat: no peer has it in this form.

    >>> from fnn.optim import sgd
    >>> opt, params = skip_spikes(sgd(), factor=3.0, warmup_steps=1), {'w': jnp.zeros(1)}
    >>> _, state = opt.update({'w': jnp.array([1.0])}, opt.init(params), params, 1.0)
    >>> for g in (2.0, 20.0):
    ...     print(opt.update({'w': jnp.array([g])}, state, params, 1.0)[0]['w'].tolist())
    [-2.0]
    [0.0]
    """

    def init(params: Params) -> SpikeState:
        return SpikeState(
            seen=jnp.int32(0),
            mean=jnp.zeros((), dtypes.widest(params)),
            skipped=jnp.int32(0),
            inner=optimizer.init(params),
        )

    def update(
        grads: Params, state: SpikeState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, SpikeState]:
        norm, finite = tree.global_norm(grads).astype(state.mean.dtype), tree.all_finite(grads)
        limit = jnp.asarray(factor, norm.dtype) * state.mean
        warm = state.seen >= jnp.asarray(warmup_steps).astype(jnp.int32)
        good = finite & (~warm | (norm <= limit))
        updates, inner = update_if(good, optimizer, grads, state.inner, params, lr, objective)

        clipped = jnp.where(warm, jnp.minimum(norm, limit), norm)
        seen = state.seen + jnp.where(finite, 1, 0)
        t = jnp.maximum(seen, 1).astype(norm.dtype)
        weight = jnp.asarray(1 - decay, norm.dtype) / bias_correction(decay, t)
        mean = state.mean + jnp.where(finite, weight * (clipped - state.mean), 0)
        skipped = state.skipped + jnp.where(good, 0, 1)
        return updates, SpikeState(seen=seen, mean=mean, skipped=skipped, inner=inner)

    return wrap("skip_spikes", optimizer, init, update)
