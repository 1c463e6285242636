"""Variants of Adam: Adamax, AMSGrad, AdaBelief, Yogi, NAdam and RAdam."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import bias_correction, elementwise
from fnn.optim.adam import AdamState, adam_rule
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@within(b1="[0, 1)", b2="[0, 1]", eps="(0, inf)", weight_decay="[0, inf)")
def adamax(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Adamax: Adam with the infinity norm of the recent gradients in place of their mean square.

        m <- b1 m + (1 - b1) g        v <- max(b2 v, |g| + eps)
        update = -lr (m / (1 - b1^t) / v + weight_decay p),   t = 1, 2, ...

    Begin with lr 0.01.

    Args:
      b1: decay rate of the mean, in [0, 1).
      b2: decay rate of the maximum, in [0, 1].
      eps: in the unit of g, above 0.
      weight_decay, mask: decoupled, per unit of lr, of the leaves marked by mask; None marks all.

    State: AdamState, with the maximum as v. Without decay a step is at most lr / (1 - b1).
    Source: Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2. Deviates: eps, as in Optax and PyTorch.
      Compat: with weight_decay it is Optax's adamaxw.

    >>> opt, params = adamax(), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0, 1.0]
    """
    return elementwise(
        "adamax", AdamState, _adamax, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )


def _adamax(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    m = b1 * m + (1 - b1) * g
    v = jnp.maximum(b2 * v, jnp.abs(g) + eps)
    return m / bias_correction(b1, t) / v, m, v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AmsgradState:
    """Moments of the gradient, and the largest second moment so far, in at least float32."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params
    v: Params
    largest: Params


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def amsgrad(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """AMSGrad: Adam with the maximum of its second moments so far.

        m, v: as in Adam        largest <- max(largest, v)
        update = -lr (m / (1 - b1^t)) / (sqrt(largest / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2, eps: as in `adam`.

    State: AmsgradState.
    Source: Reddi, Kale & Kumar 2018, arXiv:1904.09237, Algorithm 2, with the maximum of v itself.
      Deviates: corrected for the start of the moments, as every implementation is.
    Compat: PyTorch. Optax takes the maximum of v / (1 - b2^t), which the first gradient, whose
      square that is, may dominate for the whole run.

    >>> opt, params = amsgrad(), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0, 1.0]
    """
    return elementwise("amsgrad", AmsgradState, _amsgrad, b1=b1, b2=b2, eps=eps)


def _amsgrad(
    g: Array, m: Array, v: Array, largest: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    largest = jnp.maximum(largest, v)
    m_hat, v_hat = m / bias_correction(b1, t), largest / bias_correction(b2, t)
    return m_hat / (safe_sqrt(v_hat) + eps), m, v, largest


@within(b1="[0, 1)", b2="[0, 1)", eps="(0, inf)")
def adabelief(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16) -> Optimizer:
    """AdaBelief: Adam with larger steps where the gradient agrees with its running mean.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) (g - m)^2 + eps
        update = -lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2: decay rates of the moments, in [0, 1).
      eps: in the unit of g^2 inside and of g outside, above 0. Constant gradients are divided by
        little more than sqrt(eps / (1 - b2)), so a small eps means large steps.

    State: AdamState, with the second moment of g - m as v.
    Source: Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2. Compat: Optax, which has a name for
      each of the two eps, with the same default.

    >>> opt, params = adabelief(b1=0.5, b2=0.75), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-2.0]
    """
    return elementwise("adabelief", AdamState, _adabelief, b1=b1, b2=b2, eps=eps)


def _adabelief(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    m = b1 * m + (1 - b1) * g
    v = b2 * v + eps + (1 - b2) * jnp.square(g - m)
    m_hat, v_hat = m / bias_correction(b1, t), v / bias_correction(b2, t)
    return m_hat / (safe_sqrt(v_hat) + eps), m, v


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)", start="[0, inf)")
def yogi(
    *, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-3, start: Scalar = 1e-6
) -> Optimizer:
    """Yogi: Adam whose second moment moves towards g^2 by at most (1 - b2) g^2.

        m <- b1 m + (1 - b1) g        v <- v - (1 - b2) sign(v - g^2) g^2
        update = -lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 0.01.

    Args:
      b1, b2, eps: as in `adam`.
      start: initial v, in the unit of g^2.

    State: AdamState. A rare large gradient stays in v for long.
    Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization", Algorithm 2.
      Deviates: corrected for the start of the moments, as the authors' code and Optax.
    Compat: Optax starts m at 1e-6 too, and so moves where the gradient is zero.

    >>> opt, params = yogi(b1=0.0, b2=0.0, eps=0.0), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0]
    """
    return elementwise("yogi", AdamState, _yogi, start={"v": start}, b1=b1, b2=b2, eps=eps)


def _yogi(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    m = b1 * m + (1 - b1) * g
    v = v - (1 - b2) * jnp.sign(v - g * g) * g * g
    m_hat, v_hat = m / bias_correction(b1, t), v / bias_correction(b2, t)
    return m_hat / (safe_sqrt(v_hat) + eps), m, v


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def nadam(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """NAdam: Adam with Nesterov momentum.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        ahead = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)
        update = -lr ahead / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2, eps: as in `adam`.

    State: AdamState.
    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 2. Deviates: b1 is
      constant, and v is not multiplied by b2 once more.
    Compat: Optax. PyTorch's NAdam lets the momentum grow from b1 / 2 to b1, as the paper does in
      its experiments, with the time constant `momentum_decay`; if that is very large, it is this.

    >>> opt, params = nadam(b1=0.5), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> float(f"{updates['w'][0]:.3g}")   # 1 + b1 / (1 + b1) at the first step
    -1.33
    """
    return elementwise("nadam", AdamState, _nadam, b1=b1, b2=b2, eps=eps)


@within(weight_decay="[0, inf)", b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def nadamw(
    *,
    weight_decay: Scalar,
    mask: Mask | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """NAdam with decoupled weight decay; tuned in `contrib.algoperf_nadamw`.

        update = -lr (nadam's direction + weight_decay p)

    Begin with lr 3e-3.

    Args:
      weight_decay, mask: as in `adamw`.
      b1, b2, eps: as in `adam`.

    State: AdamState.
    Source: Dozat 2016 and Loshchilov & Hutter 2019, arXiv:1711.05101; see `nadam` and `adamw`.

    >>> opt, params = nadamw(weight_decay=0.1), {'w': jnp.ones(1)}
    >>> updates, _ = opt.update({'w': jnp.zeros(1)}, opt.init(params), params, 0.5)
    >>> float(f"{updates['w'][0]:.3g}")
    -0.05
    """
    return elementwise(
        "nadamw", AdamState, _nadam, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )


def _nadam(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    ahead = b1 * m / bias_correction(b1, t + 1) + (1 - b1) * g / bias_correction(b1, t)
    return ahead / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def radam(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """RAdam: Adam with a step that grows as the variance of v falls; needs no warm-up.

        m, v, and their corrections: as in Adam
        rho_oo = 2 / (1 - b2) - 1        rho = rho_oo - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_oo / ((rho_oo - 4) (rho_oo - 2) rho))
        update = -lr r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)   where rho > 5
                 -lr m / (1 - b1^t)                                      before

    Begin with lr 0.01. The first five steps are plain momentum: if gradients are far above 1, clip
    them or take a smaller lr.

    Args:
      b1, b2, eps: as in `adam`.

    State: AdamState.
    Source: Liu et al. 2020, arXiv:1908.03265, Algorithm 2. Deviates: rho > 5, not 4, as in the
      authors' code, Optax and PyTorch; rho is computed without cancellation, which in float32 and
      for b2 = 0.99999 leaves two digits of it.
    Compat: Optax takes rho >= 5; PyTorch adds eps before it corrects v, so that its eps counts
      1 / sqrt(1 - b2^t) times as much.

    >>> opt, params = radam(), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-3.0]
    """
    return elementwise("radam", AdamState, _radam, b1=b1, b2=b2, eps=eps)


def _radam(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    adam, m, v = adam_rule(g, m, v, t=t, b1=b1, b2=b2, eps=eps)
    ready, r = _rectification(b2, t)
    return jnp.where(ready, r * adam, m / bias_correction(b1, t)), m, v


def _rectification(b2: Scalar, t: Float[Array, ""]) -> tuple[Array, Array]:
    """Whether rho > 5, and if so r."""
    rho = _effective_length(b2, t)
    most = jnp.asarray(2 / (1 - b2) - 1, t.dtype)
    ready = rho > 5
    rho, most = jnp.where(ready, rho, 6), jnp.where(ready, most, 6)
    ratio = ((rho - 4) / (most - 4)) * ((rho - 2) / (most - 2)) * (most / rho)
    return ready, safe_sqrt(ratio)


def _effective_length(b2: Scalar, t: Float[Array, ""]) -> Float[Array, ""]:
    """rho: the length of a simple average with the variance of v after t steps."""
    # 2 / (1 - b2) - 1 - 2 t b2^t / (1 - b2^t) without cancellation, with x = -log(b2):
    # rho = t K(t x / 2) + 1 - K(x / 2),   K(z) = 1 + 1 / z - coth(z).
    if isinstance(b2, (int, float)):
        half = jnp.asarray(-math.log(b2) / 2 if b2 > 0 else math.inf, t.dtype)
    else:
        half = (-jnp.log1p(b2 - 1) / 2).astype(t.dtype)
    return t * _one_less_langevin(t * half) + (1 - _one_less_langevin(half))


def _one_less_langevin(z: Float[Array, ""]) -> Float[Array, ""]:
    """1 + 1/z - coth(z), for z >= 0."""
    near = z < 0.5
    small, large = jnp.where(near, z, 0), jnp.where(near, 1, z)
    s = jnp.square(small)
    # To z^11; the remainder is below 1e-10 of the sum.
    series = small * (1 / 3 - s * (1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * (2 / 93555)))))
    series = series - 1382 / 638512875 * small * s**5
    return jnp.where(near, 1 - series, 1 / large + 2 * jnp.exp(-2 * large) / jnp.expm1(-2 * large))
