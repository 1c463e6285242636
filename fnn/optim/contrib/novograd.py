"""NovoGrad: momentum over layer-wise normalized gradients."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import dtypes, tree
from fnn.expect import within
from fnn.optim._base import decay_weights, from_direction, moving_average, over_root
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
    """NovoGrad: momentum over gradients normalized by their leaf's running norm.

        v <- b2 v + (1 - b2) ||g||^2,   ||g||^2 in the first step, for each leaf
        m <- b1 m + g / (sqrt(v) + eps) + weight_decay p
        update = -lr m

    A leaf of n elements moves by 1 / sqrt(n) of Adam's step. lr: 0.01.

    Args:
      b1: momentum, in [0, 1); m is a sum, with a norm up to 1 / (1 - b1).
      b2: decay rate of the squared norms, in [0, 1).
      eps: outside the square root, in the unit of g, above 0.
      weight_decay: per unit of lr; it enters the momentum.
      mask: which leaves decay; None is all of them.

    State: NovogradState: the memory of SGD with momentum, not of Adam.
    Source: Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1, which has b1 = 0.95 and b2 = 0.98.
      Compat: Optax, with its defaults; it has no mask.

    >>> opt, params = novograd(b2=0.75), {'w': jnp.zeros(2)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0, -4.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3)   # of norm 1
    Array([-0.6,  0.8], dtype=float32)
    """

    def init(params: Params) -> NovogradState:
        v = jax.tree.map(lambda p: jnp.zeros((), dtypes.at_least_float32(p)), params)
        return NovogradState(step=jnp.int32(0), m=tree.zeros_like(params), v=v)

    def direction(
        grads: Params, state: NovogradState, params: Params
    ) -> tuple[Params, NovogradState]:
        def moment(v: Array, g: Array) -> Array:
            square = tree.squared_norms(g)[0].astype(v.dtype)
            return jnp.where(state.step == 0, square, moving_average(b2, v, square))

        v = jax.tree.map(moment, state.v, grads)
        u = decay_weights(over_root(grads, v, eps), params, weight_decay, mask)
        m = jax.tree.map(lambda m, u: jnp.asarray(b1, m.dtype) * m + u, state.m, u)
        return m, NovogradState(step=state.step + 1, m=m, v=v)

    return from_direction("novograd", init, direction)
