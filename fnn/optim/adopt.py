"""Adam that divides before it averages, and by the moment without the newest gradient."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn.optim.base import from_direction, once_read
from fnn.optim.moments import AdamState, adam_init, by_dtype, means
from fnn.tree import safe_sqrt
from fnn.types import Optimizer, Scalar


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

    def direction(grads, state, params):
        factors = by_dtype(grads, lambda dtype: _factors(state.step, b2, dtype))

        def quotient(g, v):
            limit = factors[g.dtype][2]
            divisor = jnp.maximum(safe_sqrt(v), jnp.asarray(eps, v.dtype))
            return jnp.clip(g / divisor, -limit, limit)

        def remember(v, g):
            keep, take, _ = factors[v.dtype]
            return keep * v + jnp.square(take * g)

        m = means(b1, state.m, jax.tree.map(quotient, grads, state.v))
        v = jax.tree.map(remember, state.v, grads)
        return m, AdamState(step=state.step + 1, m=m, v=once_read(v, m))

    return from_direction("adopt", adam_init, direction)


def _factors(step: Int[Array, ""], b2: Scalar, dtype: Any) -> tuple[Array, Array, Array]:
    """What v keeps, the root of what it takes, and the limit of the quotients, 0 at first."""
    first = step == 0
    keep = jnp.where(first, 0, jnp.asarray(b2, dtype))
    take = jnp.where(first, 1, safe_sqrt(jnp.asarray(1 - b2, dtype)))
    return keep, take, jnp.sqrt(jnp.sqrt(step.astype(dtype)))
