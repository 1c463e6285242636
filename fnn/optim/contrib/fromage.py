"""Steps that are a fraction of each leaf's norm."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import from_update
from fnn.types import Optimizer, Scalar


@within(min_norm="(0, inf)")
def fromage(*, min_norm: Scalar = 1e-6) -> Optimizer:
    """Fromage: a step of lr times the norm of the leaf, then back onto a sphere.

        p + update = (p - lr (||p|| / ||g||) g) / sqrt(1 + lr^2)        for each leaf

    lr is the relative size of a step: 0.01, for most networks. Where g is orthogonal to p, ||p||
    stays as it is; without the division it would grow with every step.

    Args:
      min_norm: norms below it count as this, above 0. A leaf of zeros moves by lr min_norm: give
        biases that start at 0 to another optimizer, by `groups`.

    State: ().
    Source: Bernstein et al. 2020, arXiv:2002.03432, Algorithm 1. Deviates: min_norm, as Optax has
      it. Compat: as Optax; the authors' code moves a leaf of zeros by -lr g.

    >>> opt, params = fromage(), {'w': jnp.array([4.0, 0.0])}
    >>> opt.update({'w': jnp.array([0.0, 9.0])}, (), params, 0.75)[0]['w'].round(3).tolist()
    [-0.800000011920929, -2.4000000953674316]
    """

    def norm(x: Array, dtype) -> Array:
        return jnp.maximum(tree.global_norm(x).astype(dtype), jnp.asarray(min_norm, dtype))

    def update(grads, state, params, lr, objective=None):
        def leaf(g: Array, p: Array) -> Array:
            rate = jnp.asarray(lr, g.dtype)
            root = safe_sqrt(1 + rate**2)
            # 1 / root - 1, of which float32 would keep three digits at lr 0.01.
            shrink = -(rate**2) / (root * (1 + root))
            ratio = norm(p, g.dtype) / norm(g, g.dtype)
            return shrink * p.astype(g.dtype) - rate / root * ratio * g

        return jax.tree.map(leaf, grads, params), state

    return from_update("fromage", lambda params: (), update)
