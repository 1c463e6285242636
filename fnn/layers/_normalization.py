"""The core of all norms: normalization with its derivative, the affine map, the checks."""

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


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def normalize(
    x: Float[Array, "*n"], eps: Scalar, axes: Axes, saved_dtype: Any
) -> Float[Array, "*n"]:
    """(x - mean) / sqrt(var + eps), with the mean and the variance over `axes`.

    Its own derivative saves the normalized input n alone; otherwise XLA would recompute the
    variance in every consumer on a CPU.

        dn = (dx - mean(dx) - n mean(n dx)) / sqrt(var + eps) - n deps / 2 (var + eps)

    Args:
      x: in the dtype of the statistics.
      eps: added to the variance; a scalar of the dtype of x.
      saved_dtype: of n for the backward pass; 16 bits for a layer whose inputs have 16.

    Returns: the shape and dtype of x. Where x is constant over `axes`, exactly 0.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3, for the derivative.
    """
    return _with_saved(x, eps, axes, saved_dtype)[0]


def moments(x: Float[Array, "*n"], axes: Axes) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, which are kept with size 1."""
    shift, scale, _, offset, var = _shifted_moments(x, axes)
    return shift + scale * offset, scale * (scale * var)


def _shifted_moments(x: Array, axes: Axes) -> tuple[Array, ...]:
    """shift, scale, y = (x - shift) / scale, and mean and variance of y."""
    # Shifted by one of its elements, so that the rounding error is relative to the spread of x. At
    # mean 1e4 a plain mean is off by 1e-3, and a constant is not its own mean.
    window = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    shift = lax.stop_gradient(x[window])
    shifted = x - shift
    scale = huge(shifted, axes)
    shifted = shifted / scale
    offset = shifted.mean(axis=axes, keepdims=True)
    var = jnp.square(shifted - offset).mean(axis=axes, keepdims=True)
    return shift, scale, shifted, offset, var


def _with_saved(
    x: Array, eps: Scalar, axes: Axes, saved_dtype: Any
) -> tuple[Array, tuple[Array, Array]]:
    _, scale, shifted, offset, var = _shifted_moments(x, axes)
    rstd = lax.rsqrt(var + eps / scale / scale)
    normalized = shifted * rstd - offset * rstd
    return normalized, (normalized.astype(saved_dtype), rstd / scale)


def _normalize_jvp(
    axes: Axes, saved_dtype: Any, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (x, eps), (dx, deps) = primals, tangents
    normalized, saved = _with_saved(x, eps, axes, saved_dtype)
    by_x = _by_x(axes)
    return normalized, linear_sum((by_x, by_x, saved, dx), (*_BY_EPS, saved, deps))


normalize.defjvp(_normalize_jvp, symbolic_zeros=True)


@functools.cache  # because JAX's compilation cache is keyed by the identity of the function
def _by_x(axes: Axes) -> Callable[..., Array]:
    """The derivative of `normalize` by x: symmetric, so its own transpose."""

    def by_x(saved: tuple[Array, Array], dx: Array) -> Array:
        normalized, rstd = _wide(saved)
        mean = dx.mean(axis=axes, keepdims=True)
        along = (dx * normalized).mean(axis=axes, keepdims=True)
        return rstd * (dx - mean - normalized * along)

    return by_x


def _wide(saved: tuple[Array, ...]) -> tuple[Array, ...]:
    """What was saved, with n in the dtype of the statistics."""
    normalized, *statistics = saved
    return (normalized.astype(statistics[0].dtype), *statistics)


def _by_eps(saved: tuple[Array, Array], deps: Array) -> Array:
    normalized, rstd = _wide(saved)
    return -0.5 * (deps * normalized * jnp.square(rstd))


def _by_eps_transposed(saved: tuple[Array, Array], g: Array) -> Array:
    return _by_eps(saved, g).sum()


_BY_EPS = _by_eps, _by_eps_transposed


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def normalize_and_scale(
    x: Float[Array, "*batch n"], scale: Float[Array, " n"], eps: Scalar, saved_dtype: Any
) -> Float[Array, "*batch n"]:
    """`normalize` over the last axis, times `scale`, with one derivative for both.

    In the backward pass, the gradient of the scale (column sums) and the row sums for the gradient
    of x are of one array, g * normalized, and no other of its size is materialized.
    """
    return _with_saved(x, eps, (x.ndim - 1,), saved_dtype)[0] * _as_row(scale, x)


def _as_row(vector: Any, x: Array) -> Array:
    """A vector with the rank of x, along its last axis."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def _scaled_jvp(saved_dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, scale, eps), (dx, dscale, deps) = primals, tangents
    normalized, saved = _with_saved(x, eps, (x.ndim - 1,), saved_dtype)
    return normalized * _as_row(scale, x), linear_sum(
        (_scaled_by_x, _scaled_by_x_transposed, (*saved, scale), dx),
        (_scaled_by_scale, _scaled_by_scale_transposed, saved, dscale),
        (_scaled_by_eps, _scaled_by_eps_transposed, (*saved, scale), deps),
    )


normalize_and_scale.defjvp(_scaled_jvp, symbolic_zeros=True)


def _scaled_by_x(saved: tuple[Array, ...], dx: Array) -> Array:
    normalized, rstd, scale = _wide(saved)
    return _by_x((dx.ndim - 1,))((normalized, rstd), dx) * _as_row(scale, dx)


def _scaled_by_x_transposed(saved: tuple[Array, ...], g: Array) -> Array:
    normalized, rstd, scale = _wide(saved)
    mean, along = (_weighted_mean(a, scale) for a in (g, g * normalized))
    return rstd * (g * _as_row(scale, g) - mean - normalized * along)


def _weighted_mean(x: Array, weights: Array) -> Array:
    """The mean of `weights * x` over the last axis, as a product that does not materialize it."""
    return jnp.dot(x, weights[:, None] / len(weights), precision=lax.Precision.HIGHEST)


def _scaled_by_scale(saved: tuple[Array, Array], dscale: Array) -> Array:
    normalized, _ = _wide(saved)
    return normalized * _as_row(dscale, normalized)


def _scaled_by_scale_transposed(saved: tuple[Array, Array], g: Array) -> Array:
    normalized, _ = _wide(saved)
    return (g * normalized).sum(axis=tuple(range(g.ndim - 1)))


def _scaled_by_eps(saved: tuple[Array, ...], deps: Array) -> Array:
    normalized, rstd, scale = saved
    return _by_eps((normalized, rstd), deps) * _as_row(scale, normalized)


def _scaled_by_eps_transposed(saved: tuple[Array, ...], g: Array) -> Array:
    normalized, rstd, scale = saved
    return _by_eps_transposed((normalized, rstd), g * _as_row(scale, g))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def normalize_rms(x: Float[Array, "*n"], eps: Scalar, saved_dtype: Any) -> Float[Array, "*n"]:
    """x / sqrt(mean of x^2 + eps) over the last axis; the derivative saves the result alone.

    Args:
      saved_dtype: as in `normalize`.
    """
    return _rms_with_saved(x, eps, saved_dtype)[0]


def _rms_with_saved(x: Array, eps: Scalar, saved_dtype: Any) -> tuple[Array, tuple[Array, Array]]:
    scale = huge(x, -1)
    small = x / scale
    rrms = lax.rsqrt(jnp.square(small).mean(axis=-1, keepdims=True) + eps / scale / scale)
    normalized = small * rrms
    return normalized, (normalized.astype(saved_dtype), rrms / scale)


def _normalize_rms_jvp(saved_dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, eps), (dx, deps) = primals, tangents
    normalized, saved = _rms_with_saved(x, eps, saved_dtype)
    return normalized, linear_sum((_rms_by_x, _rms_by_x, saved, dx), (*_BY_EPS, saved, deps))


normalize_rms.defjvp(_normalize_rms_jvp, symbolic_zeros=True)


def _rms_by_x(saved: tuple[Array, Array], dx: Array) -> Array:
    """Its own transpose."""
    normalized, scale = _wide(saved)
    along = (dx * normalized).mean(axis=-1, keepdims=True)
    return scale * (dx - normalized * along)


def affine_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of the affine map after a norm: a scale of ones and a bias of zeros."""
    params = {"scale": jnp.ones(features, jnp.float32)} if scale else {}
    return {**params, "bias": jnp.zeros(features, jnp.float32)} if bias else params


def affine(params: Params, x: Float[Array, "*n"], saved_dtype: Any) -> Float[Array, "*n"]:
    """x * scale + bias over the last axis, with those of the two in `params`.

    Args:
      saved_dtype: of x for the backward pass, as in `normalize`.
    """
    if "scale" in params:
        scale = params["scale"].astype(x.dtype)
        is_narrow = x.dtype != saved_dtype
        x = _times_row(x, scale, saved_dtype) if is_narrow else x * _as_row(scale, x)
    if "bias" in params:
        x = x + _as_row(params["bias"].astype(x.dtype), x)
    return x


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _times_row(x: Array, row: Array, saved_dtype: Any) -> Array:
    """x times a row over its last axis; the derivative saves x as `saved_dtype`."""
    return x * _as_row(row, x)


def _times_row_jvp(saved_dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, row), (dx, drow) = primals, tangents
    return x * _as_row(row, x), linear_sum(
        (_row_times, _row_times, row, dx),
        (_array_times, _array_times_transposed, x.astype(saved_dtype), drow),
    )


_times_row.defjvp(_times_row_jvp, symbolic_zeros=True)


def _row_times(row: Array, dx: Array) -> Array:
    """Its own transpose."""
    return dx * _as_row(row, dx)


def _array_times(x: Array, drow: Array) -> Array:
    return x.astype(drow.dtype) * _as_row(drow, x)


def _array_times_transposed(x: Array, g: Array) -> Array:
    return (g * x.astype(g.dtype)).sum(axis=tuple(range(g.ndim - 1)))


def expect_features(where: str, vectors: Params, x: Array) -> None:
    """Check that x has floats, a batch axis, and the features of every vector last."""
    expect_floats(where, x)
    for vector in vectors.values():
        if x.ndim < 2 or x.shape[-1] != vector.shape[0]:
            raise ValueError(
                f"{where}: expected x of shape (batch, ..., {vector.shape[0]}), got {x.shape}; "
                "give it the features that its parameters were made for"
            )
