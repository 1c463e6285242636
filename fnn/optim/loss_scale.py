"""Loss scaling, so that the gradients of a float16 model do not vanish."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import tree
from fnn.expect import within
from fnn.optim.skip import update_if
from fnn.optim.wrap import wrapping
from fnn.types import Optimizer, Scalar

_LARGEST = 2.0**127  # the largest power of two in float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LossScaleState:
    """The scale, and the state of the optimizer."""

    scale: Float[Array, ""]  # float32
    good: Int[Array, ""]  # updates since the scale changed, int32
    skipped: Int[Array, ""]  # updates left out so far, int32
    inner: Any


@within(start="(0, inf)", growth="(1, inf)", backoff="(0, 1)", growth_steps="[1, inf)")
def dynamic_loss_scale(
    optimizer: Optimizer,
    *,
    start: Scalar = 2.0**16,
    growth: Scalar = 2.0,
    backoff: Scalar = 0.5,
    growth_steps: Scalar = 2000,
) -> Optimizer:
    """Differentiate `scale * loss`, with the largest scale that does not overflow.

        g finite:   as `optimizer` has it;
                    after each growth_steps of these in a row, scale <- growth scale
        else:       update = 0, the optimizer's state as it was, scale <- max(1, backoff scale)

    The step multiplies the loss by the scale and divides the gradients by it, in float32, before
    any update sees them: metrics, clipping and decay are in the usual units. bfloat16 and float32
    have no need of it.

    Args:
      start: the first scale; a power of two loses no bits, as do powers of two for the others.
      growth, backoff: factors, above 1 and below 1.
      growth_steps: updates without overflow before the scale grows.

    State: LossScaleState; `skipped` counts the updates that were left out.
    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; the values of PyTorch's
      GradScaler and Flax's DynamicScale. Deviates: never below 1 (as jmp).

    >>> from fnn.optim import sgd
    >>> opt, params = dynamic_loss_scale(sgd(), start=4.0), {'w': jnp.zeros(1)}
    >>> updates, state = opt.update({'w': jnp.array([jnp.inf])}, opt.init(params), params, 1.0)
    >>> updates['w'].tolist(), opt.loss_scale(state).item()
    ([0.0], 2.0)
    """

    def init(params):
        return LossScaleState(
            scale=jnp.float32(start),
            good=jnp.int32(0),
            skipped=jnp.int32(0),
            inner=optimizer.init(params),
        )

    def update(grads, state, params, lr, objective):
        finite = tree.all_finite(grads)
        updates, inner = update_if(finite, optimizer, grads, state.inner, params, lr, objective)
        good = jnp.where(finite, state.good + 1, 0)
        grow = good >= jnp.asarray(growth_steps).astype(jnp.int32)
        larger = jnp.minimum(state.scale * jnp.float32(growth), _LARGEST)
        smaller = jnp.maximum(state.scale * jnp.float32(backoff), 1)
        scale = jnp.where(finite, jnp.where(grow, larger, state.scale), smaller)
        good, skipped = jnp.where(grow, 0, good), state.skipped + jnp.where(finite, 0, 1)
        return updates, LossScaleState(scale=scale, good=good, skipped=skipped, inner=inner)

    scaled = wrapping("dynamic_loss_scale", optimizer, init, update)
    return scaled._replace(loss_scale=lambda state: state.scale)
