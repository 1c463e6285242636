"""Adam with a second, slow mean of the gradient beside the fast one."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim.base import bias_correction, elementwise
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


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
    """AdEMAMix: Adam plus a mean over ten thousand gradients, for long runs.

        m, v: as in Adam        slow <- b3(t) slow + (1 - b3(t)) g
        update = -lr ((m / (1 - b1^t) + alpha(t) slow) / (sqrt(v / (1 - b2^t)) + eps)
                      + weight_decay p),   t = 1, 2, ...
        s = min(t / warmup_steps, 1)
        alpha(t) = s alpha        1 / log b3(t) = (1 - s) / log b1 + s / log b3

    Begin with lr 3e-3 and `warmup_steps` the length of the run. The slow mean must be shorter than
    that: b3 = 0.99 for 600 steps.

    Args:
      b1, b2: shares of the fast moments that a step keeps, in (0, 1).
      b3: the share of the slow one, in (0, 1).
      alpha: weight of the slow mean; 4 to 10 in the paper.
      warmup_steps: over how many steps alpha and b3 grow; the paper takes all steps of the run. At
        0, and with an lr that suits Adam, the slow mean can throw the first steps far off.
      eps: outside the square root, in the unit of g.
      weight_decay: decoupled, per unit of lr.
      mask: which leaves decay; None is all of them.

    State: AdemamixState. The slow mean is not corrected for its start.
    Source: Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137, Algorithm 1; its two warm-ups have
      one length here. The half-life of b3(t) grows linearly (equation 4).
    Compat: as Optax, which takes schedules of its own step, counted from 0, as alpha and b3.
    Measured with b3=0.99: digits 98.2 % at lr 0.01; Rosenbrock in ten dimensions 2.7e-10 at lr
      0.1.

    >>> opt, params = ademamix(b3=0.75, alpha=4.0), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()   # 1 + 4 / 4
    [-2.0]
    """

    return elementwise(
        "ademamix",
        AdemamixState,
        _rule,
        weight_decay=weight_decay,
        mask=mask,
        b1=b1,
        b2=b2,
        b3=b3,
        alpha=alpha,
        warmup_steps=warmup_steps,
        eps=eps,
    )


def _rule(g, m, v, slow, *, t, b1, b2, b3, alpha, warmup_steps, eps):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    log_b3, alpha = _warm(t, warmup_steps, b1, b3, alpha)
    # Both from the logarithm: float32 has three digits of 1 - 0.9999.
    slow = jnp.exp(log_b3) * slow - jnp.expm1(log_b3) * g
    mixed = m / bias_correction(b1, t) + alpha * slow
    return mixed / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v, slow


def _warm(
    t: Float[Array, ""], warmup_steps: Scalar, b1: Scalar, b3: Scalar, alpha: Scalar
) -> tuple[Array, Array]:
    """log b3(t) and alpha(t)."""
    share = jnp.minimum(t / jnp.maximum(jnp.asarray(warmup_steps, t.dtype), 1), 1)
    log_b3 = 1 / ((1 - share) / _log(b1, t.dtype) + share / _log(b3, t.dtype))
    return log_b3, share * jnp.asarray(alpha, t.dtype)


def _log(decay: Scalar, dtype: Any) -> Float[Array, ""]:
    if isinstance(decay, (int, float)):
        return jnp.asarray(math.log(decay) if decay > 0 else -math.inf, dtype)
    return jnp.log1p(decay - 1).astype(dtype)
