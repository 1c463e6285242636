"""MADGRAD: momentumized, adaptive dual averaging."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import from_update
from fnn.optim._wrap import wide_copy
from fnn.types import Objective, Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MadgradState:
    """The first parameters and the weighted sums of all gradients, in at least float32."""

    step: Int[Array, ""]  # updates made so far, int32
    start: Params
    s: Params  # of the gradients
    v: Params  # of their squares


@within(momentum="[0, 1)", eps="(0, inf)")
def madgrad(*, momentum: Scalar = 0.9, eps: Scalar = 1e-6) -> Optimizer:
    """MADGRAD: dual averaging scaled by the cube root of the sum of squares, with momentum.

        w = lr sqrt(t),   t = 1, 2, ...
        s <- s + w g        v <- v + w g^2
        z = p_0 - s / (cbrt(v) + eps)
        p + update = momentum p + (1 - momentum) z

    lr: about that of SGD with momentum, or Adam's; try 0.01. It needs less weight decay than both.

    Args:
      momentum: weight of p in the average with z, in [0, 1).
      eps: in the unit of cbrt(v), above 0.

    State: MadgradState, three trees like params.
    Source: Defazio & Jelassi 2022, arXiv:2101.11075, Algorithm 1, where c = 1 - momentum. Compat:
      `optax.contrib.madgrad` adds eps to lr as well, and its weight_decay is
      `chain(add_l2(...), madgrad())`.

    >>> opt, params = madgrad(momentum=0.5, eps=1e-9), {'w': jnp.array([1.0])}
    >>> updates, _ = opt.update({'w': jnp.array([8.0])}, opt.init(params), params, 0.125)
    >>> updates['w'].tolist()    # s = 1, v = 8: the mean of 1 and 1 - 1 / 2
    [-0.25]
    """

    def init(params: Params) -> MadgradState:
        s, v = tree.zeros_like(params), tree.zeros_like(params)
        return MadgradState(step=jnp.int32(0), start=wide_copy(params), s=s, v=v)

    def update(
        grads: Params, state: MadgradState, params: Params, lr: Any, _: Objective | None
    ) -> tuple[Params, MadgradState]:
        def weight(g: Array) -> Array:
            return jnp.asarray(lr, g.dtype) * safe_sqrt((state.step + 1).astype(g.dtype))

        def leaf(p: Array, start: Array, s: Array, v: Array) -> Array:
            z = start - s / (_cube_root(v) + jnp.asarray(eps, v.dtype))
            return (1 - jnp.asarray(momentum, p.dtype)) * (z - p)

        s = jax.tree.map(lambda s, g: s + weight(g) * g, state.s, grads)
        v = jax.tree.map(lambda v, g: v + weight(g) * jnp.square(g), state.v, grads)
        updates = jax.tree.map(leaf, dtypes.wide(params), state.start, s, v)
        return updates, MadgradState(step=state.step + 1, start=state.start, s=s, v=v)

    return from_update("madgrad", init, update)


def _cube_root(v: Array) -> Array:
    """Cube root of v >= 0, with the derivative 0 at 0."""
    return jnp.where(v > 0, jnp.cbrt(jnp.where(v > 0, v, 1)), 0)
