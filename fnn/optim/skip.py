"""Updates left out: for a gradient that is not finite, or far larger than usual."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fnn import dtypes, tree
from fnn.expect import within
from fnn.optim._base import bias_correction
from fnn.optim._wrap import choose, wrapping
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SkipState:
    """How many updates were left out, and the state of the optimizer."""

    skipped: Int[Array, ""]  # int32
    inner: Any


def skip_not_finite(optimizer: Optimizer) -> Optimizer:
    """No update for a gradient with a NaN or an infinity in it; the optimizer does not see it.

        all of g finite:   as `optimizer` has it
        else:              update = 0, state as it was, skipped <- skipped + 1

    State: SkipState.
    Source: none; compat: as `optax.apply_if_finite`, which gives up after a number of errors in a
      row, where this never does: look at `skipped`.

    >>> from fnn.optim import sgd
    >>> opt, params = skip_not_finite(sgd()), {'w': jnp.ones(2)}
    >>> updates, state = opt.update({'w': jnp.array([jnp.nan, 1.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].tolist(), state.skipped.item()
    ([0.0, 0.0], 1)
    """

    def init(params):
        return SkipState(skipped=jnp.int32(0), inner=optimizer.init(params))

    def update(grads, state, params, lr, objective):
        good = tree.all_finite(grads)
        updates, inner = update_if(good, optimizer, grads, state.inner, params, lr, objective)
        return updates, SkipState(skipped=state.skipped + jnp.where(good, 0, 1), inner=inner)

    return wrapping("skip_not_finite", optimizer, init, update)


def update_if(
    good: Bool[Array, ""],
    optimizer: Optimizer,
    grads: Params,
    state: Any,
    params: Params,
    lr: Any,
    objective: Objective | None,
) -> tuple[Params, Any]:
    """The optimizer's update where `good`; else no update, and the state as it was.

    >>> from fnn.optim import sgd
    >>> params, grads = {'w': jnp.ones(1)}, {'w': jnp.array([jnp.nan])}
    >>> update_if(jnp.array(False), sgd(), grads, (), params, 1.0, None)[0]['w'].tolist()
    [0.0]
    """
    # Zeros in place of what is not used: a NaN there would pass into gradients through training.
    calm = choose(good, grads, jax.tree.map(jnp.zeros_like, grads))
    updates, new = optimizer.update(calm, state, params, lr, objective)
    return choose(good, updates, jax.tree.map(jnp.zeros_like, updates)), choose(good, new, state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SpikeState:
    """The usual size of the gradient, how many updates were left out, and the optimizer's state."""

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
    """No update for a gradient whose norm is far above its running mean, or is not finite.

        limit = factor mean,   without one in the first `warmup_steps` gradients
        ||g|| <= limit:   as `optimizer` has it
        else:             update = 0, state as it was, skipped <- skipped + 1
        mean <- running mean of min(||g||, limit), corrected for its start

    A spike enters the mean cut to the limit, so a lasting change of scale is followed in time.

    Args:
      factor: above 1.
      decay: share of the mean that a step keeps, in [0, 1).
      warmup_steps: gradients to look at before the first may be left out.

    State: SpikeState. The optimizer does not see what is left out.
    Source: the practice of Chowdhery et al. 2022, arXiv:2204.02311, section 5.1, and of OLMo 2,
      arXiv:2501.00656. Deviates: a running mean in place of a window of norms, and a factor in
      place of standard deviations. Compat: no peer has it in this form.

    >>> from fnn.optim import sgd
    >>> opt, params = skip_spikes(sgd(), factor=3.0, warmup_steps=1), {'w': jnp.zeros(1)}
    >>> _, state = opt.update({'w': jnp.array([1.0])}, opt.init(params), params, 1.0)
    >>> for g in (2.0, 20.0):
    ...     print(opt.update({'w': jnp.array([g])}, state, params, 1.0)[0]['w'].tolist())
    [-2.0]
    [0.0]
    """

    def init(params):
        return SpikeState(
            seen=jnp.int32(0),
            mean=jnp.zeros((), dtypes.widest(params)),
            skipped=jnp.int32(0),
            inner=optimizer.init(params),
        )

    def update(grads, state, params, lr, objective):
        norm, finite = tree.global_norm(grads).astype(state.mean.dtype), tree.all_finite(grads)
        limit = jnp.asarray(factor, norm.dtype) * state.mean
        warm = state.seen >= jnp.asarray(warmup_steps).astype(jnp.int32)
        good = finite & (~warm | (norm <= limit))
        updates, inner = update_if(good, optimizer, grads, state.inner, params, lr, objective)

        cut = jnp.where(warm, jnp.minimum(norm, limit), norm)
        seen = state.seen + jnp.where(finite, 1, 0)
        t = jnp.maximum(seen, 1).astype(norm.dtype)
        share = jnp.asarray(1 - decay, norm.dtype) / bias_correction(decay, t)
        mean = state.mean + jnp.where(finite, share * (cut - state.mean), 0)
        skipped = state.skipped + jnp.where(good, 0, 1)
        return updates, SpikeState(seen=seen, mean=mean, skipped=skipped, inner=inner)

    return wrapping("skip_spikes", optimizer, init, update)
