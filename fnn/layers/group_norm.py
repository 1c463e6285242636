"""Normalisation within one example: over groups of features, and over each feature by itself."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.layers.axes import between, expect_axes
from fnn.layers.normalise import affine, affine_init, expect_features, normalise
from fnn.types import Params, Scalar


def group_norm_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of `group_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    Args:
      scale, bias: whether there is one.

    >>> sorted(group_norm_init(2))
    ['bias', 'scale']
    """
    return affine_init(features, scale=scale, bias=bias)


@within(eps="[0, inf)")
def group_norm(
    params: Params,
    x: Float[Array, "batch *window features"],
    groups: int,
    *,
    eps: Scalar = 1e-6,
    ndim: int | None = None,
) -> Float[Array, "batch *window features"]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each group of features.

    Args:
      x: (batch, ..., features); the statistics of an example's group are over the window and the
        features / groups neighbouring features of the group, in at least float32.
      groups: how many groups; a divisor of the features.
      eps: added to the variance, in the unit of x squared.
      ndim: how many window axes there are, 2 for images; None takes any number.

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
    if groups < 1 or x.shape[-1] % groups:
        raise ValueError(
            f"group_norm: expected groups that divide the {x.shape[-1]} features, got {groups}; "
            "use a divisor"
        )
    split = (*x.shape[:-1], groups, x.shape[-1] // groups)
    wide = x.astype(at_least_float32(x)).reshape(split)
    axes = (*range(1, x.ndim - 1), x.ndim)  # the window, and the features of a group
    normalised = normalise(wide, jnp.asarray(eps, wide.dtype), axes)
    return affine(params, normalised.reshape(x.shape)).astype(x.dtype)


def instance_norm_init(features: int, *, scale: bool = True, bias: bool = True) -> Params:
    """Parameters of `instance_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    Args:
      scale, bias: whether there is one.

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
      ndim: how many axes of positions there are, 2 for images; None takes any number.

    Returns: the shape and dtype of x. A constant map gives the bias.
    Raises: ValueError if the last axis of x does not fit the parameters, there are not `ndim` axes
      of positions, or there is only one position, whose normalised value would always be 0.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022. eps as in Flax; PyTorch has 1e-5,
      and no scale and bias unless asked.

    >>> x = jnp.array([[[1.0, 5.0], [3.0, 5.0]]])
    >>> instance_norm(instance_norm_init(2), x).round(3).tolist()
    [[[-1.0, 0.0], [1.0, 0.0]]]
    """
    axes = between("instance_norm", x, ndim)
    expect_features("instance_norm", params, x)
    if math.prod(x.shape[1:-1]) < 2:
        raise ValueError(
            f"instance_norm: expected x of shape (batch, ..., features) with at least two "
            f"positions between, got {x.shape}; a single one is always normalised to 0: use "
            "layer_norm"
        )
    wide = x.astype(at_least_float32(x))
    normalised = normalise(wide, jnp.asarray(eps, wide.dtype), axes)
    return affine(params, normalised).astype(x.dtype)
