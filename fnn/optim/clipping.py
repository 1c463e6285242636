"""Gradient clipping."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import tree
from fnn.autodiff import safe_norm
from fnn.dtypes import at_least_float32
from fnn.expect import expect_alike, within
from fnn.tree import Mask
from fnn.types import Scalar, Transform


@within(max_norm="(0, inf]")
def clip_by_global_norm(max_norm: Scalar) -> Transform:
    """Scale all gradients together so that their global norm is at most `max_norm`.

        g <- g min(1, max_norm / ||g||)

    Args:
      max_norm: in the unit of the gradient, above 0; may be traced.

    State: (). Zero gradients stay zero. An infinite gradient gives NaN: a clip is no cure for it.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1.

    >>> clip = clip_by_global_norm(1.0)
    >>> clip.update({'w': jnp.array([3.0, 4.0])}, (), {})[0]['w'].round(2).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    def update(grads, state, params):
        norm = tree.scaled_norm(grads)
        return jax.tree.map(lambda g: _at_most(g, *norm, max_norm), grads), state

    return Transform(init=lambda params: (), update=update)


@within(max_value="(0, inf]")
def clip_by_value(max_value: Scalar) -> Transform:
    """Cut each element of the gradients to [-max_value, max_value].

    >>> clip_by_value(1.0).update({'w': jnp.array([3.0, -0.5])}, (), {})[0]['w'].tolist()
    [1.0, -0.5]
    """

    def update(grads, state, params):
        def clip(g: Array) -> Array:
            limit = jnp.asarray(max_value, g.dtype)
            return jnp.clip(g, -limit, limit)

        return jax.tree.map(clip, grads), state

    return Transform(init=lambda params: (), update=update)


@within(max_norm="(0, inf]")
def clip_by_leaf_norm(max_norm: Scalar) -> Transform:
    """Scale each leaf of the gradients so that its own norm is at most `max_norm`.

        g <- g min(1, max_norm / ||g||)   for each leaf g

    Unlike the clip by the global norm, it turns the gradient; in return, one leaf that explodes
    leaves the others as they are.

    Args:
      max_norm: in the unit of the gradient, above 0.

    State: (). Zero gradients stay zero, gradients that are not finite are NaN.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1, leaf by leaf.
    Compat: Optax's clip_by_block_rms limits the root mean square, the norm over sqrt(size).

    >>> grads = {'a': jnp.array([3.0, 4.0]), 'b': jnp.array([0.5])}
    >>> clip = clip_by_leaf_norm(1.0)
    >>> {k: g.round(2).tolist() for k, g in clip.update(grads, (), {})[0].items()}
    {'a': [0.6000000238418579, 0.800000011920929], 'b': [0.5]}
    """

    def update(grads, state, params):
        return jax.tree.map(lambda g: _at_most(g, *tree.scaled_norm(g), max_norm), grads), state

    return Transform(init=lambda params: (), update=update)


@within(clipping="(0, inf]", eps="(0, inf)")
def adaptive_clip(
    clipping: Scalar = 0.01, *, eps: Scalar = 1e-3, mask: Mask | None = None
) -> Transform:
    """Limit the gradient of each unit by the size of the unit's weights (AGC).

        g_i <- g_i min(1, clipping max(||w_i||, eps) / ||g_i||)

    A unit is what has one output: a column of a kernel (in, out), a filter of a kernel
    (*window, in, out): all axes but the last. A vector or scalar is one unit.

    Args:
      clipping: largest norm of the gradient as a share of the weights'; smaller for larger batches,
        0.01 for batches of 4096 images.
      eps: the least norm that weights count with, so that zeros can grow; above 0.
      mask: which leaves to clip; None is all of them. The paper leaves out the last layer.

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

    def leaf(g: Array, p: Array, marked: bool) -> Array:
        if not marked:
            return g
        size = jnp.maximum(_unit_norms(p), jnp.asarray(eps, at_least_float32(p)))
        norm = _unit_norms(g)
        return _at_most(g, jnp.ones_like(norm), norm, jnp.asarray(clipping, size.dtype) * size)

    def update(grads, state, params):
        expect_alike("adaptive_clip: params and grads", params, grads)
        marked = jax.tree.map(lambda _: True, params) if mask is None else mask(params)
        return jax.tree.map(leaf, grads, params, marked), state

    return Transform(init=lambda params: (), update=update)


def zero_not_finite() -> Transform:
    """Zeros in place of NaN and infinity, element by element.

    It keeps a run alive, and hides what broke it: prefer to skip the step where that will do.

    State: ().
    Compat: Optax's zero_nans leaves infinities, and records which leaves had a NaN.

    >>> grads = {'w': jnp.array([1.0, jnp.nan, -jnp.inf])}
    >>> zero_not_finite().update(grads, (), {})[0]['w'].tolist()
    [1.0, 0.0, 0.0]
    """

    def update(grads, state, params):
        return jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), grads), state

    return Transform(init=lambda params: (), update=update)


def _at_most(
    g: Array,
    scale: Float[Array, "..."],
    norm: Float[Array, "..."],
    limit: Scalar | Float[Array, "..."],
) -> Array:
    """g, scaled down where its norm, scale * norm, is over the limit; 0 / 0 never arises."""
    limit, wide = jnp.asarray(limit, norm.dtype), g.astype(norm.dtype)
    over = norm > limit / scale
    # A NaN norm is not over any limit, and the NaN passes on as it should.
    cut = wide / scale * (limit / jnp.where(over, norm, 1))
    return jnp.where(over, cut, wide).astype(g.dtype)


def _unit_norms(x: Array) -> Float[Array, "..."]:
    """Norms over all axes but the last, which are kept with size 1; of a vector, over its axis."""
    x = x.astype(at_least_float32(x))
    axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
    return safe_norm(x, axes)
