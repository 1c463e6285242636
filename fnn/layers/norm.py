"""Layer and batch normalisation."""

import math
import warnings

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.layers.normalise import (
    affine,
    affine_init,
    expect_features,
    moments,
    normalise,
    normalise_and_scale,
)
from fnn.types import ModelState, Params, Scalar
from fnn.xla import by_rows


def layer_norm_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of `layer_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    Args:
      scale, bias: whether there is one.

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
      x: (..., features); normalised over the last axis, in at least float32.
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
        return affine(params, normalise(wide, eps, (x.ndim - 1,))).astype(x.dtype)
    scale = params["scale"].astype(wide.dtype)
    y = by_rows(lambda rows: normalise_and_scale(rows, scale, eps), wide)
    shift = {name: p for name, p in params.items() if name == "bias"}
    return affine(shift, y).astype(x.dtype)


def batch_norm_init(
    features: int, *, scale: bool = True, bias: bool = True
) -> tuple[Params, ModelState]:
    """Parameters {'scale', 'bias'} and running statistics {'mean', 'var'} of `batch_norm`.

    Args:
      scale, bias: whether there is one.

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
      train: True uses the batch's statistics and moves the running ones; False uses the running.
      decay: share of the running statistics that a step keeps, in [0, 1].
      eps: added to the variance, in the unit of x squared.

    Returns: y of the shape and dtype of x, and the state {'mean', 'var'}, each (features,) in at
      least float32: decay * old + (1 - decay) * batch.
    Raises: ValueError if the last axis of x does not fit the parameters, and if train=True finds
      no example, or one value for a feature, whose variance is 0. Warns of two: -1 and 1.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167. Deviates: the running variance is the biased
      one (as in Flax and Keras), so that training on one repeated batch and evaluating agree;
      PyTorch keeps the unbiased one, and counts decay as 1 - momentum.

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
            f"{x.shape}; leave out empty batches"
        )
    if train:
        _expect_several(x)
        normalised, state = _by_batch(wide, state, jnp.asarray(eps, wide.dtype), decay)
    else:
        normalised = _by_running(wide, state, eps)
    return affine(params, normalised).astype(x.dtype), state


def _expect_several(x: Array) -> None:
    values = math.prod(x.shape[:-1])
    remedy = "use larger batches (or parts of them), or layer_norm or group_norm"
    if values == 1:
        raise ValueError(
            f"batch_norm: expected several values of each feature to train with, got one, in x of "
            f"shape {x.shape}: it would always be normalised to 0; {remedy}"
        )
    if values == 2:
        warnings.warn(
            f"batch_norm: got two values of each feature to train with, in x of shape {x.shape}: "
            f"they are always normalised to -1 and 1; {remedy}",
            stacklevel=3,
        )


def _by_batch(x: Array, state: ModelState, eps: Array, decay: Scalar) -> tuple[Array, ModelState]:
    axes = tuple(range(x.ndim - 1))
    # XLA computes these moments once, together with those inside `normalise`.
    new = dict(zip(("mean", "var"), moments(x, axes), strict=True))
    state = jax.tree.map(
        lambda old, kept: decay * old + (1 - decay) * kept.reshape(old.shape), state, new
    )
    return normalise(x, eps, axes), state


def _by_running(x: Array, state: ModelState, eps: Scalar) -> Array:
    axes = tuple(range(x.ndim - 1))
    gain = lax.rsqrt(state["var"] + eps)
    return (x - jnp.expand_dims(state["mean"], axes)) * jnp.expand_dims(gain, axes)
