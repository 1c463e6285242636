"""What all norms share: the maths of normalizing, the affine map after it, the checks before it."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.autodiff import huge, linear_sum
from fnn.expect import expect_floats
from fnn.types import Params, Scalar

Axes = tuple[int, ...]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def normalize(x: Float[Array, "*n"], eps: Scalar, axes: Axes) -> Float[Array, "*n"]:
    """(x - mean) / sqrt(var + eps), with the mean and the variance over `axes`.

    Written with its own derivative, which saves the normalized input n instead of every step of the
    variance: on a CPU, XLA computes those again in each consumer, at half of a small GPT's step.

        dn = (dx - mean(dx) - n mean(n dx)) / sqrt(var + eps) - n deps / 2 (var + eps)

    Args:
      x: in the dtype in which the statistics are wanted.
      eps: added to the variance; a scalar of the dtype of x.

    Returns: the shape and dtype of x. Where x is constant over `axes`, exactly 0.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3, for the derivative.

    >>> normalize(jnp.array([[1.0, 3.0]]), 0.0, (1,)).tolist()
    [[-1.0, 1.0]]
    """
    return _with_saved(x, eps, axes)[0]


def moments(x: Float[Array, "*n"], axes: Axes) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, which are kept with size 1.

    >>> mean, var = moments(jnp.array([[1.0, 3.0]]), (1,))
    >>> mean.tolist(), var.tolist()
    ([[2.0]], [[1.0]])
    """
    shift, scale, _, offset, var = _shifted_moments(x, axes)
    return shift + scale * offset, scale * (scale * var)


def _shifted_moments(x: Array, axes: Axes) -> tuple[Array, ...]:
    """A shift and a scale, (x - shift) / scale, and mean and variance of that."""
    # Shifted by an element of its own before the mean is taken: what rounds is then as small as
    # the spread of x. At mean 1e4 a plain mean is off by 1e-3, and a constant is not its own mean.
    window = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    shift = lax.stop_gradient(x[window])
    shifted = x - shift
    scale = huge(shifted, axes)
    shifted = shifted / scale
    offset = shifted.mean(axis=axes, keepdims=True)
    var = jnp.square(shifted - offset).mean(axis=axes, keepdims=True)
    return shift, scale, shifted, offset, var


def _with_saved(x: Array, eps: Scalar, axes: Axes) -> tuple[Array, tuple[Array, Array]]:
    _, scale, shifted, offset, var = _shifted_moments(x, axes)
    rstd = lax.rsqrt(var + eps / scale / scale)
    normalized = shifted * rstd - offset * rstd
    return normalized, (normalized, rstd / scale)


def _normalize_jvp(axes: Axes, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, eps), (dx, deps) = primals, tangents
    normalized, saved = _with_saved(x, eps, axes)
    by_x = _by_x(axes)
    return normalized, linear_sum((by_x, by_x, saved, dx), (*_BY_EPS, saved, deps))


normalize.defjvp(_normalize_jvp, symbolic_zeros=True)


@functools.cache  # made once: JAX finds what it has compiled by the identity of the function
def _by_x(axes: Axes) -> Callable[..., Array]:
    """The derivative of `normalize` by x, a symmetric map and so its own transpose."""

    def by_x(saved: tuple[Array, Array], dx: Array) -> Array:
        normalized, rstd = saved
        mean = dx.mean(axis=axes, keepdims=True)
        along = (dx * normalized).mean(axis=axes, keepdims=True)
        return rstd * (dx - mean - normalized * along)

    return by_x


def _by_eps(saved: tuple[Array, Array], deps: Array) -> Array:
    normalized, rstd = saved
    return -0.5 * (deps * normalized * jnp.square(rstd))


def _by_eps_transposed(saved: tuple[Array, Array], g: Array) -> Array:
    return _by_eps(saved, g).sum()


_BY_EPS = _by_eps, _by_eps_transposed


@jax.custom_jvp
def normalize_and_scale(
    x: Float[Array, "*batch n"], scale: Float[Array, " n"], eps: Scalar
) -> Float[Array, "*batch n"]:
    """`normalize` over the last axis, times `scale`, with the scale inside the derivative.

    In the backward pass, with p = g * normalized, both the scale's gradient (sums of the columns of
    p) and the sums of the rows that x's needs (p scale) are of one array, and no other of its size
    is materialized.

    >>> normalize_and_scale(jnp.array([[1.0, 3.0]]), jnp.array([1.0, 2.0]), 0.0).tolist()
    [[-1.0, 2.0]]
    """
    return _with_saved(x, eps, (x.ndim - 1,))[0] * _as_row(scale, x)


def _as_row(vector: Any, x: Array) -> Array:
    """A vector with the rank of x, along its last axis."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def _scaled_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, scale, eps), (dx, dscale, deps) = primals, tangents
    normalized, saved = _with_saved(x, eps, (x.ndim - 1,))
    return normalized * _as_row(scale, x), linear_sum(
        (_scaled_by_x, _scaled_by_x_transposed, (*saved, scale), dx),
        (_scaled_by_scale, _scaled_by_scale_transposed, normalized, dscale),
        (_scaled_by_eps, _scaled_by_eps_transposed, (*saved, scale), deps),
    )


normalize_and_scale.defjvp(_scaled_jvp, symbolic_zeros=True)


def _scaled_by_x(saved: tuple[Array, ...], dx: Array) -> Array:
    normalized, rstd, scale = saved
    return _by_x((dx.ndim - 1,))((normalized, rstd), dx) * _as_row(scale, dx)


def _scaled_by_x_transposed(saved: tuple[Array, ...], g: Array) -> Array:
    normalized, rstd, scale = saved
    mean, along = (_weighted_mean(a, scale) for a in (g, g * normalized))
    return rstd * (g * _as_row(scale, g) - mean - normalized * along)


def _weighted_mean(x: Array, weights: Array) -> Array:
    """The mean of `weights * x` over the last axis, as a product: a sum would materialize it."""
    return jnp.dot(x, weights[:, None] / len(weights), precision=lax.Precision.HIGHEST)


def _scaled_by_scale(normalized: Array, dscale: Array) -> Array:
    return normalized * _as_row(dscale, normalized)


def _scaled_by_scale_transposed(normalized: Array, g: Array) -> Array:
    return (g * normalized).sum(axis=tuple(range(g.ndim - 1)))


def _scaled_by_eps(saved: tuple[Array, ...], deps: Array) -> Array:
    normalized, rstd, scale = saved
    return _by_eps((normalized, rstd), deps) * _as_row(scale, normalized)


def _scaled_by_eps_transposed(saved: tuple[Array, ...], g: Array) -> Array:
    normalized, rstd, scale = saved
    return _by_eps_transposed((normalized, rstd), g * _as_row(scale, g))


@jax.custom_jvp
def normalize_rms(x: Float[Array, "*n"], eps: Scalar) -> Float[Array, "*n"]:
    """x / sqrt(mean of x^2 + eps) over the last axis; the derivative saves the result alone.

    >>> normalize_rms(jnp.array([[2.0, 2.0]]), 0.0).tolist()
    [[1.0, 1.0]]
    """
    return _rms_with_saved(x, eps)[0]


def _rms_with_saved(x: Array, eps: Scalar) -> tuple[Array, tuple[Array, Array]]:
    scale = huge(x, -1)
    small = x / scale
    rrms = lax.rsqrt(jnp.square(small).mean(axis=-1, keepdims=True) + eps / scale / scale)
    normalized = small * rrms
    return normalized, (normalized, rrms / scale)


def _normalize_rms_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, eps), (dx, deps) = primals, tangents
    normalized, saved = _rms_with_saved(x, eps)
    return normalized, linear_sum((_rms_by_x, _rms_by_x, saved, dx), (*_BY_EPS, saved, deps))


normalize_rms.defjvp(_normalize_rms_jvp, symbolic_zeros=True)


def _rms_by_x(saved: tuple[Array, Array], dx: Array) -> Array:
    """Its own transpose."""
    normalized, scale = saved
    along = (dx * normalized).mean(axis=-1, keepdims=True)
    return scale * (dx - normalized * along)


def affine_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of the affine map after a norm: scale of ones and bias of zeros, where wanted.

    >>> affine_init(2, bias=False)['scale'].tolist()
    [1.0, 1.0]
    """
    params = {"scale": jnp.ones(features, jnp.float32)} if scale else {}
    return {**params, "bias": jnp.zeros(features, jnp.float32)} if bias else params


def affine(params: Params, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x * scale + bias over the last axis, with those of the two that `params` holds.

    >>> affine({'scale': jnp.array([2.0])}, jnp.ones((1, 1))).tolist()
    [[2.0]]
    """
    if "scale" in params:
        x = x * _as_row(params["scale"].astype(x.dtype), x)
    if "bias" in params:
        x = x + _as_row(params["bias"].astype(x.dtype), x)
    return x


def expect_features(where: str, vectors: Params, x: Array) -> None:
    """Check that x has floats, a batch axis, and in its last axis the features of every vector.

    Raises: ValueError that begins with `where`.

    >>> expect_features('layer_norm', {'scale': jnp.ones(2)}, jnp.ones((1, 3)))
    Traceback (most recent call last):
        ...
    ValueError: layer_norm: expected x of shape (batch, ..., 2), got (1, 3); give it the features \
that its parameters were made for
    """
    expect_floats(where, x)
    for vector in vectors.values():
        if x.ndim < 2 or x.shape[-1] != vector.shape[0]:
            raise ValueError(
                f"{where}: expected x of shape (batch, ..., {vector.shape[0]}), got {x.shape}; "
                "give it the features that its parameters were made for"
            )
