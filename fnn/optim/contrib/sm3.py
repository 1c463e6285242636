"""SM3: Adagrad with sums of squares factored over the axes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn import tree
from fnn.expect import within
from fnn.optim._base import from_direction, moving_average
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SM3State:
    """The momentum, and for each axis of a leaf the maxima of its sums of squares."""

    m: Params  # in at least float32
    largest: Params  # for each leaf a list, whose i-th array has size 1 in all axes but the i-th


@within(momentum="[0, 1)", eps="[0, inf)")
def sm3(*, momentum: Scalar = 0.9, eps: Scalar = 1e-8) -> Optimizer:
    """SM3: Adagrad with sums of squares bounded by one value per row and one per column.

        v_ij = min(r_i, c_j) + g_ij^2        r_i <- max_j v_ij        c_j <- max_i v_ij
        m <- momentum m + (1 - momentum) g / sqrt(v + eps),   0 where v is 0
        update = -lr m

    A leaf of k axes has k vectors in place of r and c. For vectors and scalars, v is kept whole, so
    it is Adagrad. lr: as Adagrad's, 0.1.

    Args:
      momentum: decay rate of m, in [0, 1).
      eps: inside the square root, in the unit of g^2, at least 0.

    State: SM3State: for a matrix of m rows and n columns m n + m + n elements.
    Source: Anil et al. 2019, arXiv:1901.11150, Algorithm SM3-II with the momentum of section 4.
      Deviates: eps, as in Optax, which fixes it at 1e-8 and has no scalars.

    >>> opt, params = sm3(momentum=0.0), {'w': jnp.zeros((2, 2))}
    >>> grads = {'w': jnp.array([[3.0, 0.0], [0.0, 4.0]])}
    >>> _, state = opt.update(grads, opt.init(params), params, 1.0)
    >>> updates, _ = opt.update({'w': jnp.ones((2, 2))}, state, params, 1.0)
    >>> (1 / updates['w'] ** 2).round(2).tolist()    # v: min(9, 16) + 1, and 16 + 1
    [[10.0, 10.0], [10.0, 17.0]]
    """

    def init(params: Params) -> SM3State:
        zeros = tree.zeros_like(params)  # not those of m, which may be donated with it
        return SM3State(m=tree.zeros_like(params), largest=jax.tree.map(_maxima, zeros))

    def direction(grads: Params, state: SM3State, params: Params) -> tuple[Params, SM3State]:
        def add_square(g: Array, bounds: Sequence[Array]) -> Array:
            return functools.reduce(jnp.minimum, bounds) + jnp.square(g)

        def scaled(g: Array, v: Array) -> Array:
            return g * lax.rsqrt(jnp.where(v > 0, v, 1) + jnp.asarray(eps, v.dtype))

        v = jax.tree.map(add_square, grads, state.largest)
        m = moving_average(momentum, state.m, jax.tree.map(scaled, grads, v))
        return m, SM3State(m=m, largest=jax.tree.map(_maxima, v))

    return from_direction("sm3", init, direction)


def _maxima(v: Array) -> list[Array]:
    """For each axis, the maxima over all others; a vector or scalar itself."""
    if v.ndim < 2:
        return [v]
    axes = range(v.ndim)
    return [v.max([j for j in axes if j != i], keepdims=True, initial=0) for i in axes]
