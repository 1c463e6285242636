"""Variants of Adam: Adan, ADOPT, AdEMAMix and ACProp."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import bias_correction, elementwise
from fnn.optim.adam import AdamState
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar
from fnn.xla import written_after


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdanState:
    """Three moments and the last gradient: four times the memory of the parameters."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # of the gradient, in at least float32
    v: Params  # of its change
    n: Params  # of the square of the extrapolated gradient
    last: Params  # the last gradient


@within(b1="[0, 1)", b2="[0, 1)", b3="[0, 1)", eps="[0, inf)", weight_decay="[0, inf)")
def adan(
    *,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Adan: Adam with Nesterov momentum estimated from the change of the gradient.

        d = g - last g, 0 at the first step
        m <- b1 m + (1 - b1) g    v <- b2 v + (1 - b2) d    n <- b3 n + (1 - b3) (g + b2 d)^2
        update = -lr ((m' + b2 v') / (sqrt(n') + eps) + weight_decay p)

    where x' is x, corrected for its start at 0: x / (1 - b^t), t = 1, 2, ...

    Begin with lr 3e-3. It tolerates large learning rates and batch sizes.

    Args:
      b1, b2, b3: decay rates of the moments, in [0, 1); one minus the paper's.
      eps: outside the square root, in the unit of g.
      weight_decay: decoupled, per unit of lr; the paper's is 0.02.
      mask: which leaves decay; None is all of them.

    State: AdanState.
    Source: Xie et al. 2022, arXiv:2208.06677, Algorithm 1. Deviates: corrected for the start, as
      in the authors' code; the paper divides p by 1 + lr weight_decay, and here it is a part of
      the step, as in `adamw`.
    Compat: Optax 0.2 weighs d and v' by 1 - b2 = 0.08, where the paper and its authors' code have
      0.92, and has a second eps of 1e-8 under the root.

    >>> opt, params = adan(), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0]
    """
    return elementwise(
        "adan", AdanState, _adan, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, b3=b3, eps=eps
    )


def _adan(
    g: Array,
    m: Array,
    v: Array,
    n: Array,
    last: Array,
    *,
    t: Array,
    b1: Scalar,
    b2: Scalar,
    b3: Scalar,
    eps: Scalar,
) -> tuple[Array, ...]:
    d = jnp.where(t > 1, g - last, 0)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * d
    n = b3 * n + (1 - b3) * jnp.square(g + b2 * d)
    ahead = m / bias_correction(b1, t) + b2 * v / bias_correction(b2, t)
    return ahead / (safe_sqrt(n / bias_correction(b3, t)) + eps), m, v, n, written_after(g, v, n)


@within(b1="[0, 1)", b2="[0, 1)", eps="(0, inf)")
def adopt(*, b1: Scalar = 0.9, b2: Scalar = 0.9999, eps: Scalar = 1e-6) -> Optimizer:
    """ADOPT: Adam that converges for every b2.

        t = 0:           v <- g^2, no step
        t = 1, 2, ...:   m <- b1 m + (1 - b1) clip(g / max(sqrt(v), eps), -c, c),   c = t^(1/4)
                         update = -lr m
                         v <- b2 v + (1 - b2) g^2

    Begin with lr 0.01.

    Args:
      b1, b2: decay rates of the moments, in [0, 1).
      eps: the least divisor, in the unit of g, above 0.

    State: AdamState; m is of the quotients, and has no unit.
    Source: Taniguchi et al. 2024, arXiv:2411.02853, Algorithm 2. Compat: Optax.

    >>> opt, params = adopt(b1=0.5), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (2.0, 1.0, 8.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(round(updates['w'].item(), 3))
    >>> steps
    [0.0, -0.25, -0.72]
    """
    return elementwise("adopt", AdamState, _adopt, b1=b1, b2=b2, eps=eps)


def _adopt(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    steps = t - 1  # before this one; the first only initializes v
    limit = safe_sqrt(safe_sqrt(steps))
    m = b1 * m + (1 - b1) * jnp.clip(g / jnp.maximum(safe_sqrt(v), eps), -limit, limit)
    v = jnp.where(steps == 0, g * g, b2 * v + (1 - b2) * g * g)
    return m, m, written_after(v, m)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdemamixState:
    """Adam's moments and the slow mean, in at least float32."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params
    v: Params
    slow: Params


@within(
    b1="(0, 1)",
    b2="(0, 1)",
    b3="(0, 1)",
    alpha="[0, inf)",
    warmup_steps="[0, inf)",
    eps="[0, inf)",
    weight_decay="[0, inf)",
)
def ademamix(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    alpha: Scalar = 5.0,
    warmup_steps: Scalar = 0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """AdEMAMix: Adam with a second, slow mean of the gradient, for long runs.

        m, v: as in Adam        slow <- b3(t) slow + (1 - b3(t)) g
        update = -lr ((m / (1 - b1^t) + alpha(t) slow) / (sqrt(v / (1 - b2^t)) + eps)
                      + weight_decay p),   t = 1, 2, ...
        s = min(t / warmup_steps, 1)
        alpha(t) = s alpha        1 / log b3(t) = (1 - s) / log b1 + s / log b3

    Begin with lr 3e-3 and `warmup_steps` the length of the run. The slow mean must be shorter than
    that: b3 = 0.99 for 600 steps.

    Args:
      b1, b2: decay rates of the fast moments, in (0, 1).
      b3: decay rate of the slow mean, in (0, 1).
      alpha: weight of the slow mean; 4 to 10 in the paper.
      warmup_steps: steps over which alpha and b3 grow; all steps of the run in the paper. At 0,
        with an lr that suits Adam, the slow mean can dominate the first steps.
      eps: outside the square root, in the unit of g.
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.

    State: AdemamixState. The slow mean is not corrected for its start.
    Source: Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137, Algorithm 1, with one length for
      both warm-ups. The half-life of b3(t) grows linearly (equation 4).
    Compat: Optax, which takes schedules of its own step, counted from 0, as alpha and b3.

    >>> opt, params = ademamix(b3=0.75, alpha=4.0), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()   # 1 + 4 / 4
    [-2.0]
    """
    return elementwise(
        "ademamix",
        AdemamixState,
        _ademamix,
        weight_decay=weight_decay,
        mask=mask,
        b1=b1,
        b2=b2,
        b3=b3,
        alpha=alpha,
        warmup_steps=warmup_steps,
        eps=eps,
    )


def _ademamix(
    g: Array,
    m: Array,
    v: Array,
    slow: Array,
    *,
    t: Array,
    b1: Scalar,
    b2: Scalar,
    b3: Scalar,
    alpha: Scalar,
    warmup_steps: Scalar,
    eps: Scalar,
) -> tuple[Array, ...]:
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    s = jnp.minimum(t / jnp.maximum(jnp.asarray(warmup_steps, t.dtype), 1), 1)
    # From the logarithm: float32 has three digits of 1 - 0.9999.
    log_b3 = 1 / ((1 - s) / _log(b1, t.dtype) + s / _log(b3, t.dtype))
    slow = jnp.exp(log_b3) * slow - jnp.expm1(log_b3) * g
    mixed = m / bias_correction(b1, t) + s * jnp.asarray(alpha, t.dtype) * slow
    return mixed / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v, slow


def _log(decay: Scalar, dtype: Any) -> Float[Array, ""]:
    if isinstance(decay, (int, float)):
        return jnp.asarray(math.log(decay) if decay > 0 else -math.inf, dtype)
    return jnp.log1p(decay - 1).astype(dtype)


@within(b1="[0, 1)", b2="[0, 1)", alpha="[0, inf)", eps="[0, inf)", weight_decay="[0, inf)")
def simplified_ademamix(
    *,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Simplified AdEMAMix: `ademamix` with one sum of gradients in place of its two means.

        m <- b1 m + g        v <- b2 v + (1 - b2) g^2        t = 1, 2, ...
        update = -lr ((m + alpha g) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p)

    m is up to 1 / (1 - b1) times as large as a mean: begin with Adam's lr times (1 - b1).

    Args:
      b1, b2: decay rates of the sum and of the second moment, in [0, 1).
      alpha: weight of the newest gradient, at least 0; with large batches about 0, with small ones
        up to 100.
      eps: outside the square root, in the unit of g.
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.

    State: AdamState; m is the sum.
    Source: Morwani et al. 2025, arXiv:2502.02431, Algorithm 3. Compat: Optax, which also takes
      a schedule as alpha: here `scheduled(lambda alpha: ..., alpha=schedule)`.

    >>> opt, params = simplified_ademamix(b1=0.5, b2=0.0, alpha=2.0), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (3.0, 1.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(round(updates['w'].item(), 3))
    >>> steps    # (3 + 2 * 3) / 3 and (2.5 + 2 * 1) / 1
    [-3.0, -4.5]
    """
    return elementwise(
        "simplified_ademamix",
        AdamState,
        _simplified_ademamix,
        weight_decay=weight_decay,
        mask=mask,
        b1=b1,
        b2=b2,
        alpha=alpha,
        eps=eps,
    )


def _simplified_ademamix(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, alpha: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    m = b1 * m + g
    v = b2 * v + (1 - b2) * g * g
    return (m + alpha * g) / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v


@within(b1="[0, 1]", b2="[0, 1)", eps="(0, inf)", weight_decay="[0, inf)")
def acprop(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """ACProp: the gradient over the standard deviation of the gradients before it.

        t = 1:           update = -lr (g / (1 + eps) + weight_decay p)
        t = 2, 3, ...:   update = -lr (g / (sqrt(v / (1 - b2^(t-1))) + eps) + weight_decay p)
        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) (g - m)^2 + eps        after the update

    Args:
      b1: decay rate of the mean, in [0, 1]; the mean enters v alone.
      b2: decay rate of v, in [0, 1).
      eps: in the unit of g^2 inside v and of g outside, above 0. A gradient that follows zeros is
        divided by about sqrt(eps / (1 - b2)): take a larger one for sparse gradients.
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.

    State: AdamState; v is the centered second moment.
    Source: Zhuang et al. 2021, arXiv:2110.05454, with the first step and the bias correction of the
      authors' code. Compat: Optax centers by the mean before the step: its v is v / b1^2. It has
      a name for each of the two eps, with the same default.

    >>> opt, params = acprop(b1=0.5, b2=0.75), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (8.0, 2.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(round(updates['w'].item(), 3))
    >>> steps    # the first gradient is 4 above its mean
    [-8.0, -0.5]
    """
    return elementwise(
        "acprop", AdamState, _acprop, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )


def _acprop(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    v_hat = jnp.where(t == 1, 1, v / bias_correction(b2, jnp.maximum(t - 1, 1)))
    m = b1 * m + (1 - b1) * g
    new_v = b2 * v + (1 - b2) * jnp.square(g - m) + eps
    return g / (safe_sqrt(v_hat) + eps), m, new_v
