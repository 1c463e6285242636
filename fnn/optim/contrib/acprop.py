"""AdaBelief's second moment, a step late."""

import jax.numpy as jnp

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim.adam import AdamState
from fnn.optim.base import bias_correction, elementwise
from fnn.tree import Mask
from fnn.types import Optimizer, Scalar


@within(b1="[0, 1]", b2="[0, 1)", eps="(0, inf)", weight_decay="[0, inf)")
def acprop(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """ACProp: the gradient divided by the deviation of the gradients before it from their mean.

        t = 1:           update = -lr (g / (1 + eps) + weight_decay p)
        t = 2, 3, ...:   update = -lr (g / (sqrt(v / (1 - b2^(t-1))) + eps) + weight_decay p)
        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) (g - m)^2 + eps        after the update

    Args:
      b1: decay rate of the mean, in [0, 1]; the mean enters v alone.
      b2: decay rate of v, in [0, 1).
      eps: in the unit of g^2 inside v and of g outside, above 0. A gradient that follows zeros is
        divided by about sqrt(eps / (1 - b2)): take a larger one for sparse gradients.
      weight_decay: decoupled, per unit of lr.
      mask: which leaves decay; None is all of them.

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
        "acprop", AdamState, _rule, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )


def _rule(g, m, v, *, t, b1, b2, eps):
    v_hat = jnp.where(t == 1, 1, v / bias_correction(b2, jnp.maximum(t - 1, 1)))
    m = b1 * m + (1 - b1) * g
    new_v = b2 * v + (1 - b2) * jnp.square(g - m) + eps
    return g / (safe_sqrt(v_hat) + eps), m, new_v
