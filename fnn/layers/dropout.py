"""Dropout: parts of x become 0 while training, the rest grows to keep the mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats, within
from fnn.types import PRNGKey, Scalar
from fnn.xla import Dim


@within(rate="[0, 1]")
def dropout(key: PRNGKey, x: Float[Array, "*n"], rate: Scalar) -> Float[Array, "*n"]:
    """Each element becomes 0 with probability `rate`, and x / (1 - rate) otherwise.

    The scaling (inverted dropout) keeps the mean, so evaluation simply leaves the layer out.

    Args:
      key: consumed.
      rate: drop probability in [0, 1]; may be traced. Its derivative is that of the scaling, with
        the mask held fixed: the exact derivative for the given key wherever it exists.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Srivastava et al. 2014, JMLR 15, section 4 (the scaling: section 10, in inverted form).

    >>> y = dropout(jax.random.key(0), jnp.ones(1000), 0.5)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    return _drop(key, x, rate, x.shape)


@within(rate="[0, 1]")
def spatial_dropout(
    key: PRNGKey, x: Float[Array, "*batch features"], rate: Scalar
) -> Float[Array, "*batch features"]:
    """Each feature map of each example becomes 0 as a whole, or x / (1 - rate).

    Neighbours in a map are alike, so that dropping single elements would hide little.

    Args:
      key: consumed.
      x: (batch, ..., features); all positions between share their example's and feature's fate.
      rate: drop probability in [0, 1]; may be traced.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing, and for fewer than
      two axes.
    Source: Tompson et al. 2015, arXiv:1411.4280, section 3.2.

    >>> y = spatial_dropout(jax.random.key(0), jnp.ones((4, 3, 8)), 0.5)
    >>> bool((y == y[:, :1]).all())
    True
    """
    if x.ndim < 2:
        raise ValueError(
            f"spatial_dropout: expected x of shape (batch, ..., features), got {x.shape}; "
            "use dropout for single numbers"
        )
    return _drop(key, x, rate, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]))


@within(rate="[0, 1]")
def drop_path(key: PRNGKey, x: Float[Array, "batch *n"], rate: Scalar) -> Float[Array, "batch *n"]:
    """Each example becomes 0 as a whole, or x / (1 - rate): stochastic depth, for a branch.

    In x + drop_path(key, branch(x), rate) the examples that are dropped pass the branch by.

    Args:
      key: consumed.
      x: batch axis first.
      rate: drop probability in [0, 1]; may be traced.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Huang et al. 2016, arXiv:1603.09382, section 3. Deviates: each example draws for itself
      instead of the batch as one, and the scaling is in training instead of in evaluation (both as
      timm and the vision transformers have it).

    >>> y = drop_path(jax.random.key(0), jnp.ones((64, 3)), 0.5)
    >>> sorted(set(y.sum(axis=1).tolist()))
    [0.0, 6.0]
    """
    return _drop(key, x, rate, (x.shape[0], *(1,) * (x.ndim - 1)))


def keep_mask(key: PRNGKey, keep: Float[Array, ""], shape: tuple[Dim, ...]) -> Bool[Array, "*n"]:
    """True with probability `keep`, in float32: in bfloat16, 1 - 0.001 is 1.

    >>> keep_mask(jax.random.key(0), jnp.ones(()), (2,)).tolist()
    [True, True]
    """
    return jax.random.uniform(key, shape, jnp.float32) < keep.astype(jnp.float32)


def _drop(key: PRNGKey, x: Array, rate: Scalar, shape: tuple[Dim, ...]) -> Float[Array, "*n"]:
    expect_floats("dropout", x)
    keep = 1 - jnp.asarray(rate, at_least_float32(x))
    # At rate 1 nothing is kept; dividing by 1 there keeps 0 / 0 out of the gradient.
    scaled = x.astype(keep.dtype) / jnp.where(keep > 0, keep, 1)
    return jnp.where(keep_mask(key, keep, shape), scaled, 0).astype(x.dtype)
