"""Gradient clipping."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import tree
from fnn.autodiff import safe_norm
from fnn.dtypes import at_least_float32
from fnn.expect import expect_alike, within
from fnn.optim._base import marked
from fnn.tree import Mask
from fnn.types import Params, Scalar, Transform


@within(max_norm="(0, inf]")
def clip_by_global_norm(max_norm: Scalar) -> Transform:
    """Scale all gradients together so that their global norm is at most `max_norm`.

        g <- g min(1, max_norm / ||g||)

    Args:
      max_norm: in the unit of the gradient, above 0; may be traced.

    State: (). Zero gradients stay zero. An infinite gradient gives NaN.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1.

    >>> clip = clip_by_global_norm(1.0)
    >>> [float(f"{g:.3g}") for g in clip.update({'w': jnp.array([3.0, 4.0])}, (), {})[0]['w']]
    [0.6, 0.8]
    """

    def clip(grads: Params) -> Params:
        norm = tree.scaled_norm(grads)
        return jax.tree.map(lambda g: _clip_norm(g, *norm, max_norm), grads)

    return _stateless(clip)


@within(max_value="(0, inf]")
def clip_by_value(max_value: Scalar) -> Transform:
    """Clip each element of the gradients to [-max_value, max_value].

    >>> clip_by_value(1.0).update({'w': jnp.array([3.0, -0.5])}, (), {})[0]['w'].tolist()
    [1.0, -0.5]
    """

    def clip(g: Array) -> Array:
        limit = jnp.asarray(max_value, g.dtype)
        return jnp.clip(g, -limit, limit)

    return _stateless(lambda grads: jax.tree.map(clip, grads))


@within(max_norm="(0, inf]")
def clip_by_leaf_norm(max_norm: Scalar) -> Transform:
    """Scale each leaf of the gradients so that its own norm is at most `max_norm`.

        g <- g min(1, max_norm / ||g||)   for each leaf g

    Unlike clipping by the global norm it changes the direction, but a leaf that explodes leaves the
    others unchanged.

    Args:
      max_norm: in the unit of the gradient, above 0.

    State: (). Zero gradients stay zero, non-finite gradients are NaN.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1, leaf by leaf.
    Compat: Optax's clip_by_block_rms limits the root mean square, the norm over sqrt(size).

    >>> grads = {'a': jnp.array([3.0, 4.0]), 'b': jnp.array([0.5])}
    >>> clip = clip_by_leaf_norm(1.0)
    >>> {k: [float(f"{x:.3g}") for x in g] for k, g in clip.update(grads, (), {})[0].items()}
    {'a': [0.6, 0.8], 'b': [0.5]}
    """

    def clip(g: Array) -> Array:
        return _clip_norm(g, *tree.scaled_norm(g), max_norm)

    return _stateless(lambda grads: jax.tree.map(clip, grads))


@within(clipping="(0, inf]", eps="(0, inf)")
def adaptive_clip(
    clipping: Scalar = 0.01, *, eps: Scalar = 1e-3, mask: Mask | None = None
) -> Transform:
    """Adaptive gradient clipping (AGC): limit each unit's gradient relative to its weights.

        g_i <- g_i min(1, clipping max(||w_i||, eps) / ||g_i||)

    A unit is a column of a kernel (in, out) or a filter of a kernel (*window, in, out), over all
    axes but the last. A vector or scalar is one unit.

    Args:
      clipping: largest ratio of the gradient's norm to the weights'; smaller for larger batches,
        0.01 for batches of 4096 images.
      eps: least norm of the weights, so that zeros can grow; above 0.
      mask: which leaves to clip; None is all of them. The paper does not clip the last layer.

    State: ().
    Raises: ValueError, in update, if gradients and parameters differ in structure or shape.
    Source: Brock et al. 2021, arXiv:2102.06171, section 4.1.
    Compat: Optax takes kernels of three axes as (in, ...) and drops axes of size 1 first; on
      vectors, matrices and the kernels of images the two agree.

    >>> clip, params = adaptive_clip(0.1), {'kernel': jnp.array([[3.0, 0.0], [4.0, 0.0]])}
    >>> clip.update({'kernel': jnp.ones((2, 2))}, (), params)[0]['kernel'].round(4)
    Array([[3.536e-01, 1.000e-04],
           [3.536e-01, 1.000e-04]], dtype=float32)
    """

    def leaf(g: Array, p: Array, is_clipped: bool) -> Array:
        if not is_clipped:
            return g
        size = jnp.maximum(_unit_norms(p), jnp.asarray(eps, at_least_float32(p)))
        norm = _unit_norms(g)
        return _clip_norm(g, jnp.ones_like(norm), norm, jnp.asarray(clipping, size.dtype) * size)

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        expect_alike("adaptive_clip: params and grads", params, grads)
        return jax.tree.map(leaf, grads, params, marked(mask, params)), state

    return Transform(init=lambda params: (), update=update)


def zero_not_finite() -> Transform:
    """Replace NaN and infinite elements of the gradients by 0.

    This hides the cause: prefer `skip_not_finite` where skipping the step is enough.

    State: ().
    Compat: Optax's zero_nans leaves infinities, and records which leaves had a NaN.

    >>> grads = {'w': jnp.array([1.0, jnp.nan, -jnp.inf])}
    >>> zero_not_finite().update(grads, (), {})[0]['w'].tolist()
    [1.0, 0.0, 0.0]
    """
    return _stateless(lambda grads: jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), grads))


def _stateless(function: Callable[[Params], Params]) -> Transform:
    """A transform without state that depends on the gradients alone."""
    return Transform(lambda params: (), lambda grads, state, params: (function(grads), state))


def _clip_norm(
    g: Array,
    scale: Float[Array, "..."],
    norm: Float[Array, "..."],
    limit: Scalar | Float[Array, "..."],
) -> Array:
    """g, scaled down where its norm, scale * norm, is above the limit; without 0 / 0."""
    limit, wide = jnp.asarray(limit, norm.dtype), g.astype(norm.dtype)
    over = norm > limit / scale
    # A NaN norm is not above any limit, so the NaN passes through as it should.
    clipped = wide / scale * (limit / jnp.where(over, norm, 1))
    return jnp.where(over, clipped, wide).astype(g.dtype)


def _unit_norms(x: Array) -> Float[Array, "..."]:
    """Norms over all axes but the last, which are kept with size 1; of a vector, over its axis."""
    x = x.astype(at_least_float32(x))
    axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
    return safe_norm(x, axes)
