"""Noise for training that drops nothing to 0: Gaussian, and dropout in the manner of selu."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.autodiff import safe_sqrt
from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats, within
from fnn.layers.dropout import keep_mask
from fnn.types import PRNGKey, Scalar

_SELU_FLOOR = -1.7580993408473766  # -scale * alpha of selu, its value at minus infinity


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
    """x * (1 + s n), with n standard normal and s^2 = rate / (1 - rate), as the noise of dropout.

    Args:
      key: consumed.
      rate: the drop probability whose mean and variance the factor has, in [0, 1]; may be traced.
        Where it is 1 the variance has no bound, and the result is 0 as with dropout.

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
    """Each element becomes the floor of selu with probability `rate`, then a scale and a shift.

        y = a (x where kept, f elsewhere) + b
        f = -1.7581,  a = ((1 - rate) (1 + rate f^2))^(-1/2),  b = -a rate f

    With x of mean 0 and variance 1, which selu strives for, so has y.

    Args:
      key: consumed.
      rate: drop probability in [0, 1]; may be traced. At rate 1 all of y is 0.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Klambauer et al. 2017, arXiv:1706.02515, section 2, alpha dropout. At rate 1, where a
      has no bound, 0 as in PyTorch.

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
