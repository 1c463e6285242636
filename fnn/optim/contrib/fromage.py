"""Fromage: steps relative to the norm of each leaf."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import from_update
from fnn.types import Objective, Optimizer, Params, Scalar


@within(min_norm="(0, inf)")
def fromage(*, min_norm: Scalar = 1e-6) -> Optimizer:
    """Fromage: a step of lr times the norm of the leaf, then a projection back onto a sphere.

        p + update = (p - lr (||p|| / ||g||) g) / sqrt(1 + lr^2)        for each leaf

    lr is the relative size of a step: 0.01 for most networks. Where g is orthogonal to p, ||p|| is
    constant; without the division it would grow with every step.

    Args:
      min_norm: lower bound of both norms, above 0. A leaf of zeros moves by lr min_norm: give
        biases that start at 0 to another optimizer with `groups`.

    State: ().
    Source: Bernstein et al. 2020, arXiv:2002.03432, Algorithm 1. Deviates: min_norm, as in
      Optax. Compat: Optax; the authors' code moves a leaf of zeros by -lr g.

    >>> opt, params = fromage(), {'w': jnp.array([4.0, 0.0])}
    >>> opt.update({'w': jnp.array([0.0, 9.0])}, (), params, 0.75)[0]['w'].round(3)
    Array([-0.8, -2.4], dtype=float32)
    """

    def norm(x: Array, dtype: Any) -> Array:
        return jnp.maximum(tree.global_norm(x).astype(dtype), jnp.asarray(min_norm, dtype))

    def update(
        grads: Params, state: Any, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, Any]:
        def leaf(g: Array, p: Array) -> Array:
            rate = jnp.asarray(lr, g.dtype)
            root = safe_sqrt(1 + rate**2)
            # 1 / root - 1, of which float32 would keep three digits at lr 0.01.
            shrink = -(rate**2) / (root * (1 + root))
            ratio = norm(p, g.dtype) / norm(g, g.dtype)
            return shrink * p.astype(g.dtype) - rate / root * ratio * g

        return jax.tree.map(leaf, grads, params), state

    return from_update("fromage", lambda params: (), update)
