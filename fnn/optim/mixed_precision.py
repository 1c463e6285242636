"""Master weights, stochastic rounding and loss scaling for 16-bit parameters."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes, tree
from fnn.dtypes import wide
from fnn.expect import within
from fnn.keys import fold_name
from fnn.optim._wrap import cast_like, wrap
from fnn.optim.skip import update_if
from fnn.types import Objective, Optimizer, Params, PRNGKey, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MasterState:
    """The parameters in float32, and the state of the optimizer that moves them."""

    master: Params  # like params, with None for leaves in float32 and wider
    inner: Any


def master_weights(optimizer: Optimizer) -> Optimizer:
    """Master weights: train a float32 copy of 16-bit parameters, which are its rounding.

        master <- master + update,   from `optimizer` for the master
        p <- master, rounded to the dtype of p

    In bfloat16 an update below p / 512, as most are, does not change p. Leaves in float32 and wider
    have no copy and get their updates bitwise.

    Args:
      optimizer: with all its wrappers, since updates changed outside do not reach the master.

    State: MasterState. `weights` gives the optimizer's, rounded too.
    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1. An update is the float32
      difference of two roundings: p + update is the rounded master, bitwise, unless that is less
      than 2^-15 of p; the next update repairs it. Compat: no peer has it as a wrapper.

    >>> from fnn.optim import sgd
    >>> params, grads = {'w': jnp.ones(1, jnp.bfloat16)}, {'w': jnp.ones(1, jnp.bfloat16)}
    >>> def after_ten(opt, params):
    ...     state = opt.init(params)
    ...     for _ in range(10):
    ...         updates, state = opt.update(grads, state, params, 1e-3)
    ...         params = tree.add(params, updates)
    ...     return params['w'].tolist()
    >>> after_ten(sgd(), params), after_ten(master_weights(sgd()), params)
    ([1.0], [0.98828125])
    """

    def keep(p: Array, master: Array) -> Array | None:
        return master if _is_narrow(p) else None

    def init(params: Params) -> MasterState:
        full = wide(params)
        return MasterState(master=jax.tree.map(keep, params, full), inner=optimizer.init(full))

    def update(
        grads: Params, state: MasterState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, MasterState]:
        full = _full(params, state.master)
        rounding = _rounding_first(objective, params)
        updates, inner = optimizer.update(wide(grads), state.inner, full, lr, rounding)
        master = tree.add(full, updates)

        def leaf(p: Array, m: Array, u: Array) -> Array:
            return _rounded(m, p.dtype) - p.astype(m.dtype) if _is_narrow(p) else u

        updates = jax.tree.map(leaf, params, master, updates)
        return updates, MasterState(master=jax.tree.map(keep, params, master), inner=inner)

    def weights(state: MasterState, params: Params) -> Params:
        return cast_like(optimizer.weights(state.inner, _full(params, state.master)), params)

    return wrap("master_weights", optimizer, init, update, weights=weights)


def _full(params: Params, master: Params) -> Params:
    """The master copy of narrow leaves, and the other leaves themselves."""
    return jax.tree.map(lambda p, m: p if m is None else m, params, master)


def _rounding_first(objective: Objective | None, params: Params) -> Objective | None:
    """The objective as a function of master weights, which the model sees rounded."""
    if objective is None:
        return None

    def at(master: Params) -> tuple[Array, Params]:
        value, grads = objective.at(cast_like(master, params))
        return value, wide(grads)

    return Objective(objective.value, at)


def _is_narrow(leaf: Array) -> bool:
    return leaf.dtype != dtypes.at_least_float32(leaf)


def _rounded(x: Array, dtype: Any) -> Array:
    """x rounded to `dtype`, in the dtype of x."""
    # The barrier keeps XLA from eliminating the pair of casts.
    return jax.lax.optimization_barrier(x.astype(dtype)).astype(x.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RoundingState:
    """The step, from which the next key derives, and the state of the optimizer."""

    step: Int[Array, ""]  # updates made so far, int32
    inner: Any


def stochastic_rounding(optimizer: Optimizer, key: PRNGKey) -> Optimizer:
    """Stochastic rounding of p + update to the dtype of p, unbiased.

        p <- floor(p + update) or the next larger value in the dtype of p, at random with mean
             p + update

    Needs no master copy, at the price of noise. Leaves in float32 and wider get their updates
    bitwise.

    Args:
      optimizer: with all its wrappers.
      key: base key of the draws, which differ by step and by leaf. Runs that are mapped over seeds
        share them, unless each is given its own key.

    State: RoundingState.
    Source: Gupta et al. 2015, arXiv:1502.02551, section 3; for bfloat16 updates Zamirai et al.
      2020, arXiv:2010.06192. Compat: no peer has it as a wrapper.

    >>> from fnn.optim import sgd
    >>> params, grads = {'w': jnp.ones(10_000, jnp.bfloat16)}, {'w': jnp.ones(10_000)}
    >>> opt = stochastic_rounding(sgd(), jax.random.key(0))
    >>> updates, _ = opt.update(grads, opt.init(params), params, 1e-3)
    >>> float(f"{tree.add(params, updates)['w'].astype(jnp.float32).mean():.3g}")
    0.999
    """

    def init(params: Params) -> RoundingState:
        return RoundingState(step=jnp.int32(0), inner=optimizer.init(params))

    def update(
        grads: Params, state: RoundingState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, RoundingState]:
        updates, inner = optimizer.update(grads, state.inner, params, lr, objective)
        step_key = jax.random.fold_in(key, state.step)

        def leaf(path: str, p: Array, u: Array) -> Array:
            if not _is_narrow(p):
                return u
            start = p.astype(jnp.float32)
            uniform = jax.random.uniform(fold_name(step_key, path), p.shape, jnp.float32)
            return _round_randomly(start + u.astype(jnp.float32), p.dtype, uniform) - start

        updates = tree.map_with_path(leaf, params, updates)
        return updates, RoundingState(step=state.step + 1, inner=inner)

    return wrap("stochastic_rounding", optimizer, init, update)


def _round_randomly(
    x: Float[Array, "..."], dtype: Any, uniform: Float[Array, "..."]
) -> Float[Array, "..."]:
    """One of the two neighbors of x in `dtype`; in float32, and with the derivative of x."""
    info, single = jnp.finfo(dtype), jnp.finfo(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.uint32)
    # The largest power of two up to |x|.
    power = jax.lax.bitcast_convert_type(bits & jnp.uint32(0x7F800000), jnp.float32)
    smallest = max(float(info.smallest_subnormal), float(single.tiny))
    gap = jnp.maximum(power * 2.0**-info.nmant, smallest)
    # Exact: gap is a power of two, so units are x with another exponent.
    units = jax.lax.stop_gradient(x) / gap
    below = jnp.floor(units)
    rounded = (below + jnp.where(uniform < units - below, 1, 0)) * gap
    return x + jnp.where(jnp.isfinite(x), rounded - jax.lax.stop_gradient(x), 0)


_LARGEST = 2.0**127  # the largest power of two in float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LossScaleState:
    """The scale, and the state of the optimizer."""

    scale: Float[Array, ""]  # float32
    good: Int[Array, ""]  # updates since the scale changed, int32
    skipped: Int[Array, ""]  # updates skipped so far, int32
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
    """Dynamic loss scaling: differentiate scale * loss with the largest scale without overflow.

        g finite:   the update of `optimizer`;
                    after each growth_steps of these in a row, scale <- growth scale
        else:       update = 0, the optimizer's state unchanged, scale <- max(1, backoff scale)

    The step multiplies the loss by the scale and divides the gradients by it, in float32, before
    the optimizer: metrics, clipping and decay are in the usual units. bfloat16 and float32 do not
    need it.

    Args:
      start: the first scale; powers of two lose no bits, here and in the factors.
      growth, backoff: factors, above 1 and below 1.
      growth_steps: updates without overflow before the scale grows.

    State: LossScaleState; `skipped` counts the skipped updates.
    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; the values of PyTorch's
      GradScaler and Flax's DynamicScale. Deviates: never below 1 (as jmp).

    >>> from fnn.optim import sgd
    >>> opt, params = dynamic_loss_scale(sgd(), start=4.0), {'w': jnp.zeros(1)}
    >>> updates, state = opt.update({'w': jnp.array([jnp.inf])}, opt.init(params), params, 1.0)
    >>> updates['w'].tolist(), opt.loss_scale(state).item()
    ([0.0], 2.0)
    """

    def init(params: Params) -> LossScaleState:
        # One buffer for each field, so that the state may be donated.
        good, skipped, inner = jnp.int32(0), jnp.int32(0), optimizer.init(params)
        return LossScaleState(scale=jnp.float32(start), good=good, skipped=skipped, inner=inner)

    def update(
        grads: Params, state: LossScaleState, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, LossScaleState]:
        finite = tree.all_finite(grads)
        updates, inner = update_if(finite, optimizer, grads, state.inner, params, lr, objective)
        good = jnp.where(finite, state.good + 1, 0)
        grow = good >= jnp.asarray(growth_steps).astype(jnp.int32)
        larger = jnp.minimum(state.scale * jnp.float32(growth), _LARGEST)
        smaller = jnp.maximum(state.scale * jnp.float32(backoff), 1)
        scale = jnp.where(finite, jnp.where(grow, larger, state.scale), smaller)
        good, skipped = jnp.where(grow, 0, good), state.skipped + jnp.where(finite, 0, 1)
        return updates, LossScaleState(scale=scale, good=good, skipped=skipped, inner=inner)

    scaled = wrap("dynamic_loss_scale", optimizer, init, update)
    return scaled._replace(loss_scale=lambda state: state.scale)
