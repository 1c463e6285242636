"""Layer, batch, group, instance and RMS normalization."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.layers._axes import expect_axes, window_axes
from fnn.layers._normalization import (
    affine,
    affine_init,
    expect_features,
    moments,
    normalize,
    normalize_and_scale,
    normalize_rms,
)
from fnn.types import ModelState, Params, Scalar
from fnn.xla import by_rows


def layer_norm_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of `layer_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    Args:
      scale, bias: whether to have one.

    >>> layer_norm_init(2)['scale'].tolist()
    [1.0, 1.0]
    """
    return affine_init(features, scale=scale, bias=bias)


@within(eps="[0, inf)")
def layer_norm(
    params: Params, x: Float[Array, "*batch features"], *, eps: Scalar = 1e-6
) -> Float[Array, "*batch features"]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each row.

    Args:
      x: (..., features); normalized over the last axis, in at least float32.
      eps: added to the variance, in the unit of x squared.

    Returns: the shape and dtype of x. A constant row gives the bias.
    Raises: ValueError if the last axis of x does not fit the parameters.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450. eps as in Flax; PyTorch has 1e-5, Keras 1e-3.

    >>> layer_norm(layer_norm_init(2), jnp.array([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """
    expect_features("layer_norm", params, x)
    wide = x.astype(at_least_float32(x))
    eps = jnp.asarray(eps, wide.dtype)
    if "scale" not in params:
        normalized = normalize(wide, eps, (x.ndim - 1,), x.dtype)
        return affine(params, normalized, x.dtype).astype(x.dtype)
    scale = params["scale"].astype(wide.dtype)
    y = by_rows(lambda rows: normalize_and_scale(rows, scale, eps, x.dtype), wide)
    shift = {name: p for name, p in params.items() if name == "bias"}
    return affine(shift, y, x.dtype).astype(x.dtype)


def batch_norm_init(
    features: int, *, scale: bool = True, bias: bool = True
) -> tuple[Params, ModelState]:
    """Parameters {'scale', 'bias'} and running statistics {'mean', 'var'} of `batch_norm`.

    Args:
      scale, bias: whether to have one.

    >>> params, state = batch_norm_init(2)
    >>> state['var'].tolist()
    [1.0, 1.0]
    """
    params = affine_init(features, scale=scale, bias=bias)
    return params, {
        "mean": jnp.zeros(features, jnp.float32),
        "var": jnp.ones(features, jnp.float32),
    }


@within(decay="[0, 1]", eps="[0, inf)")
def batch_norm(
    params: Params,
    state: ModelState,
    x: Float[Array, "batch *window features"],
    *,
    train: bool,
    decay: Scalar = 0.99,
    eps: Scalar = 1e-5,
) -> tuple[Float[Array, "batch *window features"], ModelState]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each feature.

    Args:
      x: (batch, ..., features); the statistics are over all axes but the last.
      train: True uses the batch statistics and updates the running ones; False uses the running.
      decay: of the running statistics, in [0, 1]; 1 - momentum in PyTorch.
      eps: added to the variance, in the unit of x squared.

    Returns: y of the shape and dtype of x, and the state {'mean', 'var'}, each (features,) in at
      least float32: decay * old + (1 - decay) * batch.
    Raises: ValueError if the last axis of x does not fit the parameters, and if train=True gets
      no example, or one value per feature, whose variance is 0. Warns for two: -1 and 1.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167. Deviates: the running variance is the biased
      one (as in Flax and Keras), so that training and evaluation on one repeated batch agree;
      PyTorch keeps the unbiased one.

    >>> params, state = batch_norm_init(1)
    >>> x = jnp.array([[1.0], [3.0], [1.0], [3.0]])
    >>> y, state = batch_norm(params, state, x, train=True, decay=0.5)
    >>> y.round(3).ravel().tolist(), state['mean'].tolist()
    ([-1.0, 1.0, -1.0, 1.0], [1.0])
    """
    expect_features("batch_norm", {**params, **state}, x)
    wide = x.astype(at_least_float32(x))
    if train and not math.prod(x.shape[:-1]):
        raise ValueError(
            f"batch_norm: expected at least one example to take statistics of, got x of shape "
            f"{x.shape}; drop empty batches"
        )
    if train:
        _expect_several(x)
        normalized, state = _by_batch(wide, state, jnp.asarray(eps, wide.dtype), decay, x.dtype)
    else:
        normalized = _by_running(wide, state, eps)
    return affine(params, normalized, x.dtype).astype(x.dtype), state


def _expect_several(x: Array) -> None:
    values = math.prod(x.shape[:-1])
    remedy = "use larger batches (or parts of them), or layer_norm or group_norm"
    if values == 1:
        raise ValueError(
            f"batch_norm: expected several values of each feature to train with, got one, in x of "
            f"shape {x.shape}: it would always be normalized to 0; {remedy}"
        )
    if values == 2:
        warnings.warn(
            f"batch_norm: got two values of each feature to train with, in x of shape {x.shape}: "
            f"they are always normalized to -1 and 1; {remedy}",
            stacklevel=3,
        )


def _by_batch(
    x: Array, state: ModelState, eps: Array, decay: Scalar, saved_dtype: Any
) -> tuple[Array, ModelState]:
    axes = tuple(range(x.ndim - 1))
    # XLA merges these moments with those inside `normalize`.
    new = dict(zip(("mean", "var"), moments(x, axes), strict=True))
    state = jax.tree.map(
        lambda old, kept: decay * old + (1 - decay) * kept.reshape(old.shape), state, new
    )
    return normalize(x, eps, axes, saved_dtype), state


def _by_running(x: Array, state: ModelState, eps: Scalar) -> Array:
    axes = tuple(range(x.ndim - 1))
    gain = lax.rsqrt(state["var"] + eps)
    return (x - jnp.expand_dims(state["mean"], axes)) * jnp.expand_dims(gain, axes)


def group_norm_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of `group_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    Args:
      scale, bias: whether to have one.

    >>> sorted(group_norm_init(2))
    ['bias', 'scale']
    """
    return affine_init(features, scale=scale, bias=bias)


@within(eps="[0, inf)")
def group_norm(
    params: Params,
    x: Float[Array, "batch *window features"],
    num_groups: int,
    *,
    eps: Scalar = 1e-6,
    ndim: int | None = None,
) -> Float[Array, "batch *window features"]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each group of features.

    Args:
      x: (batch, ..., features); the statistics of an example's group are over the window and the
        features / num_groups neighboring features of the group, in at least float32.
      num_groups: a divisor of the features.
      eps: added to the variance, in the unit of x squared.
      ndim: number of window axes, 2 for images; None takes any number.

    Returns: the shape and dtype of x. A constant group gives the bias.
    Raises: ValueError if the last axis of x does not fit the parameters, the groups do not divide
      it, or there are not `ndim` window axes.
    Source: Wu & He 2018, arXiv:1803.08494, section 3. eps as in Flax; PyTorch has 1e-5, Keras 1e-3.

    >>> x = jnp.array([[1.0, 3.0, 10.0, 10.0]])
    >>> group_norm(group_norm_init(4), x, 2).round(3).tolist()
    [[-1.0, 1.0, 0.0, 0.0]]
    """
    if ndim is not None:
        expect_axes("group_norm", x, ndim)
    expect_features("group_norm", params, x)
    if num_groups < 1 or x.shape[-1] % num_groups:
        raise ValueError(
            f"group_norm: expected num_groups to divide the {x.shape[-1]} features, got "
            f"{num_groups}; use a divisor"
        )
    split = (*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    wide = x.astype(at_least_float32(x)).reshape(split)
    axes = (*range(1, x.ndim - 1), x.ndim)  # the window, and the features of a group
    normalized = normalize(wide, jnp.asarray(eps, wide.dtype), axes, x.dtype)
    return affine(params, normalized.reshape(x.shape), x.dtype).astype(x.dtype)


def instance_norm_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of `instance_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    Args:
      scale, bias: whether to have one.

    >>> instance_norm_init(2, scale=False, bias=False)
    {}
    """
    return affine_init(features, scale=scale, bias=bias)


@within(eps="[0, inf)")
def instance_norm(
    params: Params,
    x: Float[Array, "batch *window features"],
    *,
    eps: Scalar = 1e-6,
    ndim: int | None = None,
) -> Float[Array, "batch *window features"]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each feature's map.

    Args:
      x: (batch, ..., features) with more than one position between; the statistics of each example
        and feature are over the positions, in at least float32.
      eps: added to the variance, in the unit of x squared.
      ndim: number of window axes, 2 for images; None takes any number.

    Returns: the shape and dtype of x. A constant map gives the bias.
    Raises: ValueError if the last axis of x does not fit the parameters, there are not `ndim`
      window axes, or there is only one position, whose normalized value would always be 0.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022. eps as in Flax; PyTorch has 1e-5,
      and no scale and bias unless asked.

    >>> x = jnp.array([[[1.0, 5.0], [3.0, 5.0]]])
    >>> instance_norm(instance_norm_init(2), x).round(3).tolist()
    [[[-1.0, 0.0], [1.0, 0.0]]]
    """
    axes = window_axes("instance_norm", x, ndim)
    expect_features("instance_norm", params, x)
    if math.prod(x.shape[1:-1]) < 2:
        raise ValueError(
            f"instance_norm: expected x of shape (batch, ..., features) with at least two "
            f"positions between, got {x.shape}; a single one is always normalized to 0: use "
            "layer_norm"
        )
    wide = x.astype(at_least_float32(x))
    normalized = normalize(wide, jnp.asarray(eps, wide.dtype), axes, x.dtype)
    return affine(params, normalized, x.dtype).astype(x.dtype)


def rms_norm_init(features: int) -> Params:
    """Parameters of `rms_norm`: {'scale': ones of shape (features,)}, float32.

    >>> rms_norm_init(2)['scale'].tolist()
    [1.0, 1.0]
    """
    return affine_init(features, bias=False)


@within(eps="[0, inf)")
def rms_norm(
    params: Params, x: Float[Array, "*batch features"], *, eps: Scalar = 1e-6
) -> Float[Array, "*batch features"]:
    """x / sqrt(mean of x^2 + eps) * scale, with the mean of each row.

    Args:
      x: (..., features); normalized over the last axis, in at least float32.
      eps: added to the mean square, in the unit of x squared.

    Returns: the shape and dtype of x. A row of zeros gives zeros.
    Raises: ValueError if the last axis of x does not fit the parameters.
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, equation 4. eps as in Flax and Keras; PyTorch
      takes the spacing of the dtype at 1, 1.2e-7 in float32.

    >>> rms_norm(rms_norm_init(2), jnp.array([[3.0, 3.0]])).round(3).tolist()
    [[1.0, 1.0]]
    """
    expect_features("rms_norm", params, x)
    wide = x.astype(at_least_float32(x))
    normalized = normalize_rms(wide, jnp.asarray(eps, wide.dtype), x.dtype)
    return affine(params, normalized, x.dtype).astype(x.dtype)
