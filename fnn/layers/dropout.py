"""Dropout and other noise for training."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn.autodiff import safe_sqrt
from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats, within
from fnn.types import PRNGKey, Scalar
from fnn.xla import Dim


@within(rate="[0, 1]")
def dropout(key: PRNGKey, x: Float[Array, "*n"], rate: Scalar) -> Float[Array, "*n"]:
    """Each element becomes 0 with probability `rate`, and x / (1 - rate) otherwise.

    The scaling (inverted dropout) keeps the mean, so evaluation uses the identity.

    Args:
      key: consumed.
      rate: drop probability in [0, 1]; may be traced. Its derivative is that of the scaling, for a
        fixed mask: the exact derivative for the given key wherever it exists.

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
    """Dropout of whole feature maps: each becomes 0 with probability `rate`, or x / (1 - rate).

    Neighbors in a map are correlated, so dropping single elements would hide little.

    Args:
      key: consumed.
      x: (batch, ..., features); a map is all positions of one feature of one example.
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
            "use dropout for arrays without features"
        )
    return _drop(key, x, rate, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]))


@within(rate="[0, 1]")
def drop_path(key: PRNGKey, x: Float[Array, "batch *n"], rate: Scalar) -> Float[Array, "batch *n"]:
    """Dropout of whole examples: each becomes 0, or x / (1 - rate). Stochastic depth, for a branch.

    In x + drop_path(key, branch(x), rate) the dropped examples skip the branch.

    Args:
      key: consumed.
      x: batch axis first.
      rate: drop probability in [0, 1]; may be traced.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Huang et al. 2016, arXiv:1603.09382, section 3. Deviates: each example is dropped
      independently, not the whole batch, and the scaling is in training, not in evaluation (both as
      in timm and vision transformers).

    >>> y = drop_path(jax.random.key(0), jnp.ones((64, 3)), 0.5)
    >>> sorted(set(y.sum(axis=1).tolist()))
    [0.0, 6.0]
    """
    return _drop(key, x, rate, (x.shape[0], *(1,) * (x.ndim - 1)))


def keep_mask(key: PRNGKey, keep: Float[Array, ""], shape: tuple[Dim, ...]) -> Bool[Array, "*n"]:
    """True with probability `keep`, drawn in float32: in bfloat16, 1 - 0.001 is 1."""
    return jax.random.uniform(key, shape, jnp.float32) < keep.astype(jnp.float32)


def _drop(key: PRNGKey, x: Array, rate: Scalar, shape: tuple[Dim, ...]) -> Float[Array, "*n"]:
    expect_floats("dropout", x)
    keep = 1 - jnp.asarray(rate, at_least_float32(x))
    # At rate 1 nothing is kept; dividing by 1 there keeps 0 / 0 out of the gradient.
    scaled = x.astype(keep.dtype) / jnp.where(keep > 0, keep, 1)
    return jnp.where(keep_mask(key, keep, shape), scaled, 0).astype(x.dtype)


_SELU_FLOOR = -1.7580993408473766  # -scale * alpha of selu, its limit at minus infinity


@within(std="[0, inf)")
def gaussian_noise(key: PRNGKey, x: Float[Array, "*n"], std: Scalar) -> Float[Array, "*n"]:
    """x + std * n, with n standard normal.

    Args:
      key: consumed.
      std: standard deviation of the noise, in the unit of x, at least 0; may be traced.

    Returns: the shape and dtype of x.
    Raises: ValueError for a negative std that is known while tracing.
    Source: Bishop 1995, Training with noise is equivalent to Tikhonov regularization.

    >>> gaussian_noise(jax.random.key(0), jnp.ones(2), 0.0).tolist()
    [1.0, 1.0]
    """
    expect_floats("gaussian_noise", x)
    wide = x.astype(at_least_float32(x))
    noise = jnp.asarray(std, wide.dtype) * jax.random.normal(key, x.shape, wide.dtype)
    return (wide + noise).astype(x.dtype)


@within(rate="[0, 1]")
def gaussian_dropout(key: PRNGKey, x: Float[Array, "*n"], rate: Scalar) -> Float[Array, "*n"]:
    """x * (1 + s n), with n standard normal and s^2 = rate / (1 - rate), the variance of dropout.

    Args:
      key: consumed.
      rate: the drop probability with the same mean and variance, in [0, 1]; may be traced. At 1 the
        variance is infinite, and the result is 0 as with dropout.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Srivastava et al. 2014, JMLR 15, section 10.

    >>> gaussian_dropout(jax.random.key(0), jnp.ones(2), 0.0).tolist()
    [1.0, 1.0]
    """
    expect_floats("gaussian_dropout", x)
    wide = x.astype(at_least_float32(x))
    rate = jnp.asarray(rate, wide.dtype)
    keep = jnp.where(rate < 1, 1 - rate, 1)
    factor = 1 + safe_sqrt(rate / keep) * jax.random.normal(key, x.shape, wide.dtype)
    return jnp.where(rate < 1, wide * factor, 0).astype(x.dtype)


@within(rate="[0, 1]")
def alpha_dropout(key: PRNGKey, x: Float[Array, "*n"], rate: Scalar) -> Float[Array, "*n"]:
    """Dropout for selu: dropped elements take its lower limit; keeps mean 0 and variance 1.

        y = a (x where kept, f elsewhere) + b
        f = -1.7581,  a = ((1 - rate) (1 + rate f^2))^(-1/2),  b = -a rate f

    Args:
      key: consumed.
      rate: drop probability in [0, 1]; may be traced. At 1, y is 0.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Klambauer et al. 2017, arXiv:1706.02515, section 2, alpha dropout. At rate 1, where a
      is infinite, 0 as in PyTorch.

    >>> alpha_dropout(jax.random.key(0), jnp.array([1.0, -1.0]), 0.0).tolist()
    [1.0, -1.0]
    """
    expect_floats("alpha_dropout", x)
    wide = x.astype(at_least_float32(x))
    rate = jnp.asarray(rate, wide.dtype)
    kept = jnp.where(keep_mask(key, 1 - rate, x.shape), wide, _SELU_FLOOR)
    variance = (1 - rate) * (1 + rate * _SELU_FLOOR**2)
    a = jax.lax.rsqrt(jnp.where(rate < 1, variance, 1))
    return jnp.where(rate < 1, a * (kept - rate * _SELU_FLOOR), 0).astype(x.dtype)
