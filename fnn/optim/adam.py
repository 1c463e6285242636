"""Adam, and Adam with decoupled weight decay."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Int

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import bias_correction, elementwise
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdamState:
    """Moments of the gradient."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # first moment, in at least float32
    v: Params  # second moment, in at least float32


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def adam(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """Adam: the running mean of the gradient divided by its running root mean square.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        update = -lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Args:
      b1, b2: decay rates of the moments, in [0, 1).
      eps: outside the square root, in the unit of g.

    State: AdamState.
    Source: Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1. The derivative of the square root at
      v = 0 is taken as 0, so that gradients through training stay finite.

    >>> opt, params = adam(), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()   # the first step is the sign of the gradient
    [-1.0, 1.0]
    """
    return elementwise("adam", AdamState, adam_rule, b1=b1, b2=b2, eps=eps)


def adam_rule(
    g: Array, m: Array, v: Array, *, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Array, ...]:
    """Adam's direction and moments, for one array."""
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    m_hat, v_hat = m / bias_correction(b1, t), v / bias_correction(b2, t)
    return m_hat / (safe_sqrt(v_hat) + eps), m, v


@within(weight_decay="[0, inf)", b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def adamw(
    *,
    weight_decay: Scalar,
    mask: Mask | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """Adam with decoupled weight decay.

        update = -lr (adam's direction + weight_decay p)

    Args:
      weight_decay: per unit of lr; no default, since Optax (1e-4), PyTorch (1e-2) and Keras (4e-3)
        disagree.
      mask: which leaves decay, e.g. `tree.matching('*kernel')`; None is all of them.
      b1, b2, eps: as in `adam`.

    State: AdamState.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2. Deviates: the decay is
      multiplied by the whole lr, as in Optax and PyTorch, not by the schedule's multiplier alone.

    >>> opt, params = adamw(weight_decay=0.1), {'w': jnp.ones(1)}
    >>> updates, _ = opt.update({'w': jnp.zeros(1)}, opt.init(params), params, 0.5)
    >>> float(f"{updates['w'][0]:.3g}")
    -0.05
    """
    return elementwise(
        "adamw", AdamState, adam_rule, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )
