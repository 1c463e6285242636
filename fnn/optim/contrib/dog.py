"""DoG and DoWG: gradient descent with a step size of distance over gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes, tree
from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import from_direction
from fnn.optim._wrap import wide_copy
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DistanceOverGradientsState:
    """The first parameters, the largest distance from them, and the sum of squared gradients."""

    start: Params  # in at least float32
    distance: Float[Array, ""]  # the largest so far
    total: Float[Array, ""]  # of the squared norms of the gradients; in `dowg` weighted


@within(relative_distance="(0, inf)", eps="[0, inf)")
def dog(*, relative_distance: Scalar = 1e-6, eps: Scalar = 1e-8) -> Optimizer:
    """DoG: gradient descent with the largest distance over the root of the squared gradients.

        d <- max(d, ||p - p_0||)        d = relative_distance (1 + ||p_0||) before the first step
        v <- v + ||g||^2
        update = -lr d / sqrt(v + eps) g

    The norms are global. Use lr = 1, without tuning, and evaluate an average of the parameters, as
    `ema(dog())` does.

    Args:
      relative_distance: first step, relative to the norm of the parameters, above 0 and smaller
        than any reasonable one; 1e-4 for models with batch norm.
      eps: added to the sum of squares, in its unit.

    State: DistanceOverGradientsState. In bfloat16 wrap it in `master_weights`, or rounding loses
      the first steps.
    Source: Ivgi, Hinder & Carmon 2023, arXiv:2302.12022, equation DoG with the first distance of
      section 4.1. Compat: `optax.contrib.dog`; its weight_decay is `chain(add_l2(...), dog())`.

    >>> opt, params = dog(relative_distance=0.5, eps=0.0), {'w': jnp.array([3.0])}
    >>> updates, _ = opt.update({'w': jnp.array([8.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].tolist()    # half of 1 + 3, for gradients of any size
    [-2.0]
    """

    def first(params: Params) -> Array:
        norm = tree.global_norm(params)
        return jnp.asarray(relative_distance, norm.dtype) * (1 + norm)

    def rate(d: Array, total: Array, square: Array) -> tuple[Array, Array]:
        total = total + square
        return d / safe_sqrt(total + jnp.asarray(eps, d.dtype)), total

    return _over_gradients("dog", first, rate)


@within(first_distance="(0, inf)", eps="[0, inf)")
def dowg(*, first_distance: Scalar = 1e-2, eps: Scalar = 1e-4) -> Optimizer:
    """DoWG: `dog` with gradients weighted by the squared distance.

        d <- max(d, ||p - p_0||)        d = first_distance before the first step
        v <- v + d^2 ||g||^2
        update = -lr d^2 / (sqrt(v) + eps) g

    Gradients near the start count less, so that the step size grows faster.

    Args:
      first_distance: in the unit of p, above 0 and smaller than any reasonable one.
      eps: outside the square root, in the unit of p times that of g.

    State: DistanceOverGradientsState.
    Source: Khaled, Mishchenko & Jin 2023, arXiv:2305.16284, Algorithm 1. Deviates: eps, as in
      Optax. Compat: `optax.contrib.dowg(init_estim_sq_dist=first_distance**2)`; its weight_decay is
      `chain(add_l2(...), dowg())`.

    >>> opt, params = dowg(first_distance=0.5, eps=0.0), {'w': jnp.array([3.0])}
    >>> updates, _ = opt.update({'w': jnp.array([8.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].tolist()
    [-0.5]
    """

    def first(params: Params) -> Array:
        return jnp.array(first_distance, dtypes.widest(params), copy=True)

    def rate(d: Array, total: Array, square: Array) -> tuple[Array, Array]:
        total = total + d**2 * square
        return d**2 / (safe_sqrt(total) + jnp.asarray(eps, d.dtype)), total

    return _over_gradients("dowg", first, rate)


def _over_gradients(
    name: str,
    first: Callable[[Params], Array],
    rate: Callable[[Array, Array, Array], tuple[Array, Array]],
) -> Optimizer:
    """`rate`: distance, total, squared norm of the gradient -> rate, total."""

    def init(params: Params) -> DistanceOverGradientsState:
        distance = first(params)
        return DistanceOverGradientsState(
            start=wide_copy(params), distance=distance, total=jnp.zeros_like(distance)
        )

    def direction(
        grads: Params, state: DistanceOverGradientsState, params: Params
    ) -> tuple[Params, DistanceOverGradientsState]:
        away = jax.tree.map(jnp.subtract, dtypes.wide(params), state.start)
        distance = jnp.maximum(state.distance, tree.global_norm(away))
        step, total = rate(distance, state.total, tree.squared_norms(grads)[0])
        new = DistanceOverGradientsState(start=state.start, distance=distance, total=total)
        return tree.scale(step, grads), new

    return from_direction(name, init, direction)
