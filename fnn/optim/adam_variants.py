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
    """Adamax: the mean of the gradient over the largest recent one.

        m <- b1 m + (1 - b1) g        v <- max(b2 v, |g| + eps)
        update = -lr (m / (1 - b1^t) / v + weight_decay p),   t = 1, 2, ...

    Begin with lr 0.01.

    Args:
      b1: share of the mean that a step keeps, in [0, 1).
      b2: share of the maximum that a step keeps, in [0, 1].
      eps: in the unit of g, above 0.
      weight_decay: decoupled, per unit of lr.
      mask: which leaves decay; None is all of them.

    State: AdamState, with the maximum as v. Without decay a step is at most lr / (1 - b1).
    Source: Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2. Deviates: eps, which the paper lacks, as
      Optax and PyTorch have it. Compat: with weight_decay it is Optax's adamaxw.
    Measured: digits 98.7 % at lr 0.032; Rosenbrock in ten dimensions 6.2e-07 at lr 1.

    >>> opt, params = adamax(), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0, 1.0]
    """

    return elementwise(
        "adamax",
        AdamState,
        _adamax_rule,
        weight_decay=weight_decay,
        mask=mask,
        b1=b1,
        b2=b2,
        eps=eps,
    )


def _adamax_rule(g, m, v, *, t, b1, b2, eps):
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
    """AMSGrad: Adam whose second moment never forgets a large gradient.

        m, v: as in Adam        largest <- max(largest, v)
        update = -lr (m / (1 - b1^t)) / (sqrt(largest / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: outside the square root, in the unit of g.

    State: AmsgradState.
    Source: Reddi, Kale & Kumar 2018, arXiv:1904.09237, Algorithm 2. Deviates: corrected for the
      start of the moments, as every implementation is; the maximum is of v itself, as in the paper.
    Compat: as PyTorch. Optax takes the maximum of v / (1 - b2^t), so that the first gradient, which
      that is the square of, holds the steps down for good.
    Measured: digits 98.8 % at lr 0.01; Rosenbrock in ten dimensions 9.4e-12 at lr 0.32.

    >>> opt, params = amsgrad(), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0, 1.0]
    """

    return elementwise("amsgrad", AmsgradState, _amsgrad_rule, b1=b1, b2=b2, eps=eps)


def _amsgrad_rule(g, m, v, largest, *, t, b1, b2, eps):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    largest = jnp.maximum(largest, v)
    m_hat, v_hat = m / bias_correction(b1, t), largest / bias_correction(b2, t)
    return m_hat / (safe_sqrt(v_hat) + eps), m, v, largest


@within(b1="[0, 1)", b2="[0, 1)", eps="(0, inf)")
def adabelief(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16) -> Optimizer:
    """AdaBelief: large steps where the gradient is as its mean foresaw, small ones where not.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) (g - m)^2 + eps
        update = -lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: in the unit of g^2 inside and of g outside, above 0. Gradients that never change divide
        by little more than sqrt(eps / (1 - b2)), so a small eps means large steps.

    State: AdamState, with the moment of the surprise as v.
    Source: Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2. Deviates: nowhere; Optax has a name
      for each of the two eps, with the same default.
    Measured: digits 98.8 % at lr 0.01; Rosenbrock in ten dimensions 8.7e-09 at lr 0.1.

    >>> opt, params = adabelief(b1=0.5, b2=0.75), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-2.0]
    """

    return elementwise("adabelief", AdamState, _adabelief_rule, b1=b1, b2=b2, eps=eps)


def _adabelief_rule(g, m, v, *, t, b1, b2, eps):
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
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: outside the square root, in the unit of g.
      start: v before the first step, in the unit of g^2.

    State: AdamState, whose v begins at `start`. A rare large gradient is forgotten slowly.
    Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization", Algorithm 2.
      Deviates: corrected for the start of the moments, as the authors' code and Optax.
    Compat: Optax starts m at 1e-6 too, and so moves where the gradient is zero.
    Measured: digits 98.7 % at lr 0.01; Rosenbrock in ten dimensions 2.4e-11 at lr 0.32.

    >>> opt, params = yogi(b1=0.0, b2=0.0, eps=0.0), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()
    [-1.0]
    """

    return elementwise("yogi", AdamState, _yogi_rule, start={"v": start}, b1=b1, b2=b2, eps=eps)


def _yogi_rule(g, m, v, *, t, b1, b2, eps):
    m = b1 * m + (1 - b1) * g
    v = v - (1 - b2) * jnp.sign(v - g * g) * g * g
    m_hat, v_hat = m / bias_correction(b1, t), v / bias_correction(b2, t)
    return m_hat / (safe_sqrt(v_hat) + eps), m, v


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def nadam(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """Nadam: Adam whose momentum looks one step ahead.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        ahead = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)
        update = -lr ahead / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: outside the square root, in the unit of g.

    State: AdamState.
    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 2. Deviates: b1 is
      constant, and v is not multiplied by b2 once more.
    Compat: as Optax. PyTorch's NAdam lets the momentum grow from b1 / 2 to b1 with a time
      constant, `momentum_decay`, as the paper does in its experiments; with a very large
      `momentum_decay` it is this.
    Measured: digits 98.8 % at lr 0.01; Rosenbrock in ten dimensions 0.24 at lr 0.1.

    >>> opt, params = nadam(b1=0.5), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()   # 1 + b1 / (1 + b1) at the first step
    [-1.3329999446868896]
    """

    return elementwise("nadam", AdamState, _rule, b1=b1, b2=b2, eps=eps)


@within(weight_decay="[0, inf)", b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def nadamw(
    *,
    weight_decay: Scalar,
    mask: Mask | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """Nadam with decoupled weight decay; tuned in `algoperf_nadamw`.

        update = -lr (nadam's direction + weight_decay p)

    Begin with lr 3e-3.

    Args:
      weight_decay: per unit of lr; no default, as in `adamw`.
      mask: which leaves decay, e.g. `tree.matching('*kernel')`; None is all of them.
      b1, b2, eps: as in `nadam`.

    State: AdamState.
    Source: Dozat 2016 and Loshchilov & Hutter 2019, arXiv:1711.05101; see `nadam` and `adamw`.
    Measured with weight_decay=0.01: digits 98.8 % at lr 0.01; Rosenbrock in ten dimensions 0.051
      at lr 0.1.

    >>> opt, params = nadamw(weight_decay=0.1), {'w': jnp.ones(1)}
    >>> updates, _ = opt.update({'w': jnp.zeros(1)}, opt.init(params), params, 0.5)
    >>> updates['w'].round(3).tolist()
    [-0.05000000074505806]
    """

    return elementwise(
        "nadamw", AdamState, _rule, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )


def _rule(g, m, v, *, t, b1, b2, eps):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    ahead = b1 * m / bias_correction(b1, t + 1) + (1 - b1) * g / bias_correction(b1, t)
    return ahead / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def radam(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """Rectified Adam: momentum first, then Adam with a step that grows as v settles. No warm-up.

        m, v, and their corrections: as in Adam
        rho_oo = 2 / (1 - b2) - 1        rho = rho_oo - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_oo / ((rho_oo - 4) (rho_oo - 2) rho))
        update = -lr r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)   where rho > 5
                 -lr m / (1 - b1^t)                                      before

    Begin with lr 0.01. The first five steps are plain momentum, so where gradients are far above 1,
    clip them or take a smaller lr.

    Args:
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: outside the square root, in the unit of g.

    State: AdamState.
    Source: Liu et al. 2020, arXiv:1908.03265, Algorithm 2. Deviates: rho > 5, not 4, as in the
      authors' code, Optax and PyTorch. rho is computed without the difference of two large
      numbers, which in float32 and for b2 = 0.99999 leaves two digits of it.
    Compat: Optax takes rho >= 5; PyTorch adds eps before it corrects v, so that its eps counts
      1 / sqrt(1 - b2^t) times as much.
    Measured: digits 98.8 % at lr 0.032; Rosenbrock in ten dimensions 9.7 at lr 0.001.

    >>> opt, params = radam(), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-3.0]
    """

    return elementwise("radam", AdamState, _radam_rule, b1=b1, b2=b2, eps=eps)


def _radam_rule(g, m, v, *, t, b1, b2, eps):
    adam, m, v = adam_rule(g, m, v, t=t, b1=b1, b2=b2, eps=eps)
    ready, r = _rectification(b2, t)
    return jnp.where(ready, r * adam, m / bias_correction(b1, t)), m, v


def effective_length(b2: Scalar, t: Float[Array, ""]) -> Float[Array, ""]:
    """rho: how many gradients a simple mean needs to be as certain as v after t steps.

        rho = t K(t x / 2) + 1 - K(x / 2),   x = -log(b2),   K(z) = 1 + 1 / z - coth(z)

    which is the paper's 2 / (1 - b2) - 1 - 2 t b2^t / (1 - b2^t), without its cancellation.

    >>> [effective_length(0.999, jnp.float32(t)).round(4).item() for t in (1, 6)]
    [1.0, 5.994200229644775]
    """
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
    # To z^11; what is left out is below 1e-10 of the sum.
    series = small * (1 / 3 - s * (1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * (2 / 93555)))))
    series = series - 1382 / 638512875 * small * s**5
    return jnp.where(near, 1 - series, 1 / large + 2 * jnp.exp(-2 * large) / jnp.expm1(-2 * large))


def _rectification(b2: Scalar, t: Float[Array, ""]) -> tuple[Array, Array]:
    """Whether rho > 5, and if so r."""
    rho = effective_length(b2, t)
    most = jnp.asarray(2 / (1 - b2) - 1, t.dtype)
    ready = rho > 5
    rho, most = jnp.where(ready, rho, 6), jnp.where(ready, most, 6)
    ratio = ((rho - 4) / (most - 4)) * ((rho - 2) / (most - 2)) * (most / rho)
    return ready, safe_sqrt(ratio)
