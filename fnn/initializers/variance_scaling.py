"""Variance scaling initializers: LeCun, Glorot and He.

For the same key and distribution the values are bitwise those of `jax.nn.initializers`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.initializers.base import Fan, Initializer, Shape, fans
from fnn.types import PRNGKey
from fnn.xla import draw_flat


def _variance_scaling(scale: float, fan: Fan, draw: Callable[..., Array]) -> Initializer:
    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        fan_in, fan_out = fans(shape)
        n = {Fan.IN: fan_in, Fan.OUT: fan_out, Fan.AVERAGE: (fan_in + fan_out) / 2}[fan]
        # In at least float32: bfloat16 has 128 numbers in [0.5, 1). Without inputs, n is 0.
        variance = jnp.asarray(scale / max(n, 1), at_least_float32(dtype))
        drawn = draw_flat(lambda key, shape: draw(key, shape, variance), key, shape)
        return drawn.astype(dtype)

    return init


def _normal(key: PRNGKey, shape: Shape, variance: Array) -> Array:
    return jnp.sqrt(variance) * jax.random.normal(key, shape, variance.dtype)


def _truncated(key: PRNGKey, shape: Shape, variance: Array) -> Array:
    # Truncation at two deviations multiplies the deviation by 0.8796.
    std = jnp.sqrt(variance) / jnp.asarray(0.87962566103423978, variance.dtype)
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, variance.dtype)


def _uniform(key: PRNGKey, shape: Shape, variance: Array) -> Array:
    return jnp.sqrt(3 * variance) * jax.random.uniform(key, shape, variance.dtype, -1.0, 1.0)


def lecun_normal() -> Initializer:
    """Truncated normal with variance 1 / fan_in, which preserves variance in linear layers.

    Truncated at two deviations, with the deviation corrected for it, as in Flax.

    Source: LeCun et al. 1998, Efficient BackProp, section 4.6.

    >>> f"{lecun_normal()(jax.random.key(0), (100, 50)).std():.2f}"
    '0.10'
    """
    return _variance_scaling(1.0, Fan.IN, _truncated)


def lecun_uniform() -> Initializer:
    """Uniform with variance 1 / fan_in.

    >>> bool(abs(lecun_uniform()(jax.random.key(0), (300, 4))).max() <= 0.1)
    True
    """
    return _variance_scaling(1.0, Fan.IN, _uniform)


def glorot_normal() -> Initializer:
    """Normal with variance 2 / (fan_in + fan_out), also known as Xavier: for tanh and sigmoid.

    Source: Glorot & Bengio 2010, equation 12.

    >>> f"{glorot_normal()(jax.random.key(0), (100, 100)).std():.2f}"
    '0.10'
    """
    return _variance_scaling(1.0, Fan.AVERAGE, _normal)


def glorot_uniform() -> Initializer:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), also known as Xavier.

    Source: Glorot & Bengio 2010, equation 16.

    >>> bool(abs(glorot_uniform()(jax.random.key(0), (3, 3))).max() <= 1.0)
    True
    """
    return _variance_scaling(1.0, Fan.AVERAGE, _uniform)


def he_normal(fan: Fan = Fan.IN) -> Initializer:
    """Normal with variance 2 / fan, also known as Kaiming: for relu, which halves the variance.

    Args:
      fan: `Fan.IN` preserves variance in the forward pass, `Fan.OUT` in the backward pass.

    Source: He et al. 2015, arXiv:1502.01852, equations 10 and 14.

    >>> f"{he_normal()(jax.random.key(0), (200, 50)).std():.2f}"
    '0.10'
    """
    return _variance_scaling(2.0, fan, _normal)


def he_uniform(fan: Fan = Fan.IN) -> Initializer:
    """Uniform with variance 2 / fan, in +-sqrt(6 / fan).

    Source: He et al. 2015, arXiv:1502.01852.

    >>> bool(abs(he_uniform()(jax.random.key(0), (6, 8))).max() <= 1.0)
    True
    """
    return _variance_scaling(2.0, fan, _uniform)
