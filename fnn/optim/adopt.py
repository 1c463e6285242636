"""Adam that divides before it averages, and by the moment without the newest gradient."""

import jax.numpy as jnp

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim.adam import AdamState
from fnn.optim.base import elementwise
from fnn.types import Optimizer, Scalar
from fnn.xla import written_after


@within(b1="[0, 1)", b2="[0, 1)", eps="(0, inf)")
def adopt(*, b1: Scalar = 0.9, b2: Scalar = 0.9999, eps: Scalar = 1e-6) -> Optimizer:
    """ADOPT: Adam that converges with any b2.

        t = 0:           v <- g^2, no step
        t = 1, 2, ...:   m <- b1 m + (1 - b1) clip(g / max(sqrt(v), eps), -c, c),   c = t^(1/4)
                         update = -lr m
                         v <- b2 v + (1 - b2) g^2

    Begin with lr 0.01.

    Args:
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: the least divisor, in the unit of g, above 0.

    State: AdamState; m is of the quotients, and has no unit.
    Source: Taniguchi et al. 2024, arXiv:2411.02853, Algorithm 2. As Optax.
    Measured: digits 98.8 % at lr 0.032; Rosenbrock in ten dimensions 1.5e-11 at lr 3.2.

    >>> opt, params = adopt(b1=0.5), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (2.0, 1.0, 8.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(round(updates['w'].item(), 3))
    >>> steps
    [0.0, -0.25, -0.72]
    """

    return elementwise("adopt", AdamState, _rule, b1=b1, b2=b2, eps=eps)


def _rule(g, m, v, *, t, b1, b2, eps):
    steps = t - 1  # before this one; at the first v is only initialized
    limit = safe_sqrt(safe_sqrt(steps))
    m = b1 * m + (1 - b1) * jnp.clip(g / jnp.maximum(safe_sqrt(v), eps), -limit, limit)
    v = jnp.where(steps == 0, g * g, b2 * v + (1 - b2) * g * g)
    return m, m, written_after(v, m)
