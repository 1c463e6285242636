"""What all norms share: the maths of normalising, the affine map after it, the checks before it."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.types import Params, Scalar

Axes = tuple[int, ...]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def normalise(x: Float[Array, "*n"], eps: Scalar, axes: Axes) -> Float[Array, "*n"]:
    """(x - mean) / sqrt(var + eps), with the mean and the variance over `axes`.

    Written with its own derivative, which saves the normalised input instead of every step of the
    variance: on a CPU, XLA computes those again in each consumer, at half of a small GPT's step.

    Args:
      x: in the dtype in which the statistics are wanted.
      eps: added to the variance; a scalar of the dtype of x.

    Returns: the shape and dtype of x. Where x is constant over `axes`, exactly 0.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3, for the derivative.

    >>> normalise(jnp.array([[1.0, 3.0]]), 0.0, (1,)).tolist()
    [[-1.0, 1.0]]
    """
    return _normalise_forward(x, eps, axes)[0]


def moments(x: Float[Array, "*n"], axes: Axes) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, which are kept with size 1.

    >>> mean, var = moments(jnp.array([[1.0, 3.0]]), (1,))
    >>> mean.tolist(), var.tolist()
    ([[2.0]], [[1.0]])
    """
    shift, _, offset, var = _shifted_moments(x, axes)
    return shift + offset, var


def _shifted_moments(x: Array, axes: Axes) -> tuple[Array, Array, Array, Array]:
    # Shifted by an element of its own before the mean is taken: what rounds is then as small as
    # the spread of x. At mean 1e4 a plain mean is off by 1e-3, and a constant is not its own mean.
    window = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    shift = lax.stop_gradient(x[window])
    shifted = x - shift
    offset = shifted.mean(axis=axes, keepdims=True)
    var = jnp.square(shifted - offset).mean(axis=axes, keepdims=True)
    return shift, shifted, offset, var


def _normalise_forward(x: Array, eps: Scalar, axes: Axes) -> tuple[Array, tuple[Array, Array]]:
    _, shifted, offset, var = _shifted_moments(x, axes)
    rstd = lax.rsqrt(var + eps)
    normalised = shifted * rstd - offset * rstd
    return normalised, (normalised, rstd)


def _normalise_backward(axes: Axes, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    normalised, rstd = saved
    mean = g.mean(axis=axes, keepdims=True)
    along = (g * normalised).mean(axis=axes, keepdims=True)
    return rstd * (g - mean - normalised * along), _by_eps(normalised, rstd, g)


def _by_eps(normalised: Array, rstd: Array, g: Array) -> Array:
    return -0.5 * (g * normalised * jnp.square(rstd)).sum()


normalise.defvjp(_normalise_forward, _normalise_backward)


@jax.custom_vjp
def normalise_rows(
    x: Float[Array, "rows n"], scale: Float[Array, " n"], eps: Scalar
) -> Float[Array, "rows n"]:
    """`normalise(x, eps, (1,)) * scale`, with the scale inside the derivative.

    With p = g * normalised, both the scale's gradient (sums of the columns of p) and the sums of
    the rows that x's needs (p scale) are of one array, and no other of its size is written.

    >>> normalise_rows(jnp.array([[1.0, 3.0]]), jnp.array([1.0, 2.0]), 0.0).tolist()
    [[-1.0, 2.0]]
    """
    return _rows_forward(x, scale, eps)[0]


def _rows_forward(x: Array, scale: Array, eps: Scalar) -> tuple[Array, tuple[Array, ...]]:
    normalised, saved = _normalise_forward(x, eps, (1,))
    return normalised * scale[None], (*saved, scale)


def _rows_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    normalised, rstd, scale = saved
    p = g * normalised
    mean, along = (_means_of_rows(a, scale) for a in (g, p))
    scaled = g * scale[None]
    by_x = rstd * (scaled - mean - normalised * along)
    return by_x, p.sum(axis=0), _by_eps(normalised, rstd, scaled)


def _means_of_rows(x: Array, weights: Array) -> Array:
    """As a product, not as a sum of products: that would be written out for XLA's sums on a CPU."""
    return jnp.dot(x, weights[:, None] / len(weights), precision=lax.Precision.HIGHEST)


normalise_rows.defvjp(_rows_forward, _rows_backward)


@jax.custom_vjp
def normalise_rms(x: Float[Array, "*n"], eps: Scalar) -> Float[Array, "*n"]:
    """x / sqrt(mean of x^2 + eps) over the last axis; the derivative saves the result alone.

    >>> normalise_rms(jnp.array([[2.0, 2.0]]), 0.0).tolist()
    [[1.0, 1.0]]
    """
    return _normalise_rms_forward(x, eps)[0]


def _normalise_rms_forward(x: Array, eps: Scalar) -> tuple[Array, tuple[Array, Array]]:
    scale = lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + eps)
    normalised = x * scale
    return normalised, (normalised, scale)


def _normalise_rms_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    normalised, scale = saved
    along = (g * normalised).mean(axis=-1, keepdims=True)
    return scale * (g - normalised * along), _by_eps(normalised, scale, g)


normalise_rms.defvjp(_normalise_rms_forward, _normalise_rms_backward)


def affine_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of the affine map after a norm: scale of ones and bias of zeros, where wanted.

    >>> affine_init(2, bias=False)['scale'].tolist()
    [1.0, 1.0]
    """
    params = {"scale": jnp.ones(features)} if scale else {}
    return {**params, "bias": jnp.zeros(features)} if bias else params


def affine(params: Params, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x * scale + bias over the last axis, with those of the two that `params` holds.

    >>> affine({'scale': jnp.array([2.0])}, jnp.ones((1, 1))).tolist()
    [[2.0]]
    """
    axes = tuple(range(x.ndim - 1))
    if "scale" in params:
        x = x * jnp.expand_dims(params["scale"].astype(x.dtype), axes)
    if "bias" in params:
        x = x + jnp.expand_dims(params["bias"].astype(x.dtype), axes)
    return x


def expect_features(where: str, vectors: Params, x: Array) -> None:
    """Check that x has a batch axis, and in its last axis the features of every vector.

    Raises: ValueError that begins with `where`.

    >>> expect_features('layer_norm', {'scale': jnp.ones(2)}, jnp.ones((1, 3)))
    Traceback (most recent call last):
        ...
    ValueError: layer_norm: expected x of shape (batch, ..., 2), got (1, 3); give it the features \
that its parameters were made for
    """
    for vector in vectors.values():
        if x.ndim < 2 or x.shape[-1] != vector.shape[0]:
            raise ValueError(
                f"{where}: expected x of shape (batch, ..., {vector.shape[0]}), got {x.shape}; "
                "give it the features that its parameters were made for"
            )
