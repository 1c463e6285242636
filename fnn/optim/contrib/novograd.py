"""Momentum over gradients of unit length, leaf by leaf."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import decay_weights, from_direction, moving_average
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NovogradState:
    """The momentum, and one second moment for each leaf."""

    step: Int[Array, ""]  # updates made so far, int32
    m: Params  # in at least float32
    v: Params  # scalars: running means of the squared norms


@within(b1="[0, 1)", b2="[0, 1)", eps="(0, inf)", weight_decay="[0, inf)")
def novograd(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """NovoGrad: momentum over gradients that are divided by their leaf's norm.

        v <- b2 v + (1 - b2) ||g||^2,   ||g||^2 in the first step, for each leaf
        m <- b1 m + g / (sqrt(v) + eps) + weight_decay p
        update = -lr m

    A leaf of n elements moves by 1 / sqrt(n) of what Adam would move it by. lr: 0.01.

    Args:
      b1: momentum, in [0, 1); m is not a mean, and up to 1 / (1 - b1) long.
      b2: decay rate of the squared norms, in [0, 1).
      eps: outside the square root, in the unit of g, above 0.
      weight_decay: per unit of lr; it passes through the momentum.
      mask: which leaves decay; None is all of them.

    State: NovogradState: the memory of SGD with momentum, not of Adam.
    Source: Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1, which has b1 = 0.95 and b2 = 0.98.
      Compat: as Optax, with its defaults; it has no mask.

    >>> opt, params = novograd(b2=0.75), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -4.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()   # of length 1
    [-0.6000000238418579, 0.800000011920929]
    """

    def init(params):
        v = jax.tree.map(lambda p: jnp.zeros((), dtypes.at_least_float32(p)), params)
        return NovogradState(step=jnp.int32(0), m=tree.zeros_like(params), v=v)

    def direction(grads, state, params):
        def moment(v: Array, g: Array) -> Array:
            square = tree.squared_norms(g)[0].astype(v.dtype)
            return jnp.where(state.step == 0, square, moving_average(b2, v, square))

        v = jax.tree.map(moment, state.v, grads)
        unit = jax.tree.map(lambda g, v: g / (safe_sqrt(v) + jnp.asarray(eps, v.dtype)), grads, v)
        step = decay_weights(unit, params, weight_decay, mask)
        m = jax.tree.map(lambda m, u: jnp.asarray(b1, m.dtype) * m + u, state.m, step)
        return m, NovogradState(step=state.step + 1, m=m, v=v)

    return from_direction("novograd", init, direction)
