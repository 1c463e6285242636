"""Adafactor: an adaptive optimizer with a factored second moment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import decay_weights, from_direction
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdafactorState:
    """Running means of the squared gradient; a leaf is factored or whole."""

    step: Int[Array, ""]  # updates made so far, int32
    rows: Params  # means over the last axis; of size 0 where the leaf is whole
    columns: Params  # means over the last axis but one; of size 0 where it is whole
    whole: Params  # of size 0 where the leaf is factored


def relative_step(step: Any) -> Float[Array, ""]:
    """The schedule of Adafactor's paper.

        lr = min(0.01, 1 / sqrt(step + 1))

    Args:
      step: counted from 0.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, Algorithm 6.

    >>> [float(f"{relative_step(step):.3g}") for step in (0, 39_999)]
    [0.01, 0.005]
    """
    t = jnp.asarray(step, jnp.float32) + 1
    return jnp.minimum(jnp.float32(0.01), jax.lax.rsqrt(t))


@within(
    decay_power="(0, inf)",
    max_rms="(0, inf]",
    min_scale="[0, inf)",
    weight_decay="[0, inf)",
    eps="[0, inf)",
)
def adafactor(
    *,
    decay_power: Scalar = 0.8,
    max_rms: Scalar = 1.0,
    min_scale: Scalar = 1e-3,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    eps: Scalar = 1e-30,
    min_factored: int = 128,
) -> Optimizer:
    """Adafactor: RMSProp with a factored second moment and steps relative to a leaf's size.

        r <- d r + (1 - d) mean_columns(g^2 + eps)        c <- d c + (1 - d) mean_rows(g^2 + eps)
        u = g / sqrt(r c / mean(r)),   d = 1 - t^(-decay_power),   t = 1, 2, ...
        update = -lr (max(min_scale, rms(p)) u / max(1, rms(u) / max_rms) + weight_decay p)

    With the schedule `relative_step` it is the paper's; lr is relative, 0.01 at most.

    Args:
      decay_power: how fast the decay rate d approaches 1, above 0.
      max_rms: limit of the root mean square of u, for each leaf.
      min_scale: least rms(p) that a step is scaled by, in the unit of p.
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.
      eps: added to g^2, in its unit.
      min_factored: leaves are factored over their last two axes if both have at least this size;
        all others keep the whole second moment. 0 factors every matrix. Static.

    State: AdafactorState.
    Source: Shazeer & Stern 2018, arXiv:1804.04235, Algorithms 4 and 5, without momentum. Deviates:
      where g^2 is below 1e-24, v is taken as constant in derivatives, so that they stay finite.
    Compat: Optax factors over the two longest axes, and its decay is not multiplied by lr. PyTorch
      factors every matrix, limits lr by 1 / sqrt(t), and cuts v off at eps instead of adding it.

    >>> opt, params = adafactor(), {'w': jnp.full(2, 4.0)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 0.01)
    >>> [float(f"{u:.3g}") for u in updates['w']]
    [-0.04, 0.04]
    """

    def scaled(p: Array, u: Array) -> Array:
        return jnp.maximum(jnp.asarray(min_scale, u.dtype), _rms(p.astype(u.dtype))) * u

    return _adafactor(
        "adafactor", scaled, decay_power, max_rms, weight_decay, mask, eps, min_factored
    )


@within(decay_power="(0, inf)", max_rms="(0, inf]", weight_decay="[0, inf)", eps="[0, inf)")
def adafactor_absolute(
    *,
    decay_power: Scalar = 0.8,
    max_rms: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
    eps: Scalar = 1e-30,
    min_factored: int = 128,
) -> Optimizer:
    """Adafactor with steps of the size of lr, like Adam's, for leaves of every size.

        update = -lr (u / max(1, rms(u) / max_rms) + weight_decay p),    u as in `adafactor`

    Args: as in `adafactor`. lr: as Adam's.

    State: AdafactorState.
    Source: Shazeer & Stern 2018, arXiv:1804.04235, Algorithm 4, with alpha = lr.
    Compat: Optax's `adafactor(multiply_by_parameter_scale=False)`.

    >>> opt, params = adafactor_absolute(), {'w': jnp.full(2, 4.0)}
    >>> opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-0.5, 0.5]
    """
    name = "adafactor_absolute"
    return _adafactor(
        name, lambda p, u: u, decay_power, max_rms, weight_decay, mask, eps, min_factored
    )


def _adafactor(
    name: str,
    scaled: Callable[[Array, Array], Array],
    decay_power: Scalar,
    max_rms: Scalar,
    weight_decay: Scalar,
    mask: Mask | None,
    eps: Scalar,
    min_factored: int,
) -> Optimizer:
    def init(params: Params) -> AdafactorState:
        def zeros(shape: Callable[[Any], tuple[int, ...]]) -> Params:
            return jax.tree.map(lambda p: jnp.zeros(shape(p), dtypes.at_least_float32(p)), params)

        def factored(p: Any) -> bool:
            return len(p.shape) >= 2 and min(p.shape[-2:]) >= max(min_factored, 1)

        return AdafactorState(
            step=jnp.int32(0),
            rows=zeros(lambda p: p.shape[:-1] if factored(p) else (0,)),
            columns=zeros(lambda p: p.shape[:-2] + p.shape[-1:] if factored(p) else (0,)),
            whole=zeros(lambda p: (0,) if factored(p) else p.shape),
        )

    def direction(
        grads: Params, state: AdafactorState, params: Params
    ) -> tuple[Params, AdafactorState]:
        t = state.step + 1

        def moment(g: Array, old: Array, axis: int | None) -> Array:
            if not old.size:
                return old
            square = jnp.square(g) + jnp.asarray(eps, g.dtype)
            new = square if axis is None else square.mean(axis)
            fresh = t.astype(old.dtype) ** -jnp.asarray(decay_power, old.dtype)
            return (1 - fresh) * old + fresh * new

        def leaf(g: Array, p: Array, r: Array, c: Array, v: Array) -> Array:
            u = g * (_inverse_root(v) if v.shape == g.shape else _factored_root(r, c))
            excess = _rms(u) / jnp.asarray(max_rms, u.dtype)
            return scaled(p, u / jnp.maximum(1, excess))

        rows = jax.tree.map(lambda g, r: moment(g, r, -1), grads, state.rows)
        columns = jax.tree.map(lambda g, c: moment(g, c, -2), grads, state.columns)
        whole = jax.tree.map(lambda g, v: moment(g, v, None), grads, state.whole)
        u = jax.tree.map(leaf, grads, params, rows, columns, whole)
        state = AdafactorState(step=t, rows=rows, columns=columns, whole=whole)
        return decay_weights(u, params, weight_decay, mask), state

    return from_direction(name, init, direction)


def _factored_root(rows: Array, columns: Array) -> Array:
    """1 / sqrt(r c / mean(r)), with the product last, since it may leave float32's range."""
    left = _inverse_root(rows) * safe_sqrt(rows.mean(-1, keepdims=True))
    return left[..., :, None] * _inverse_root(columns)[..., None, :]


def _inverse_root(v: Array) -> Array:
    # The slope v^-1.5 overflows float32 below 1e-25.
    safe = v > 1e-24
    return jnp.where(
        safe, jax.lax.rsqrt(jnp.where(safe, v, 1)), jax.lax.rsqrt(jax.lax.stop_gradient(v))
    )


def _rms(x: Array) -> Array:
    return safe_sqrt(jnp.square(x).sum() / max(x.size, 1))
