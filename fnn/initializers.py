"""Initial values of parameters: `initializer(key, shape, dtype) -> array`.

Fans: the last axis of a kernel is its outputs, the one before it its inputs, and all axes before
those are the receptive field of a convolution (kernels are (in, out) and (*window, in, out)).
"""

import enum
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.types import PRNGKey, Scalar

Initializer = Callable[..., Float[Array, "..."]]
Shape = tuple[int, ...]


class Fan(enum.Enum):
    """Which fan the variance is divided by."""

    IN = "in"
    OUT = "out"
    AVERAGE = "average"


def fans(shape: Shape) -> tuple[int, int]:
    """Fan-in and fan-out of a kernel.

    Raises: ValueError for fewer than two axes.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        raise ValueError(
            f"initializers.fans: expected a kernel of shape (..., in, out), got {shape}; "
            "use zeros or normal for vectors"
        )
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def zeros(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    """All zeros; the key may be None.

    >>> zeros(None, (2,)).tolist()
    [0.0, 0.0]
    """
    return jnp.zeros(shape, dtype)


def ones(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    """All ones; the key may be None.

    >>> ones(None, (2,)).tolist()
    [1.0, 1.0]
    """
    return jnp.ones(shape, dtype)


def normal(std: Scalar = 1.0) -> Initializer:
    """Normal with mean 0 and standard deviation `std`.

    >>> normal(0.02)(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        return jnp.asarray(std, dtype) * jax.random.normal(key, shape, dtype)

    return init


def _variance_scaling(scale: float, fan: Fan, draw: Callable[..., Array]) -> Initializer:
    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        fan_in, fan_out = fans(shape)
        n = {Fan.IN: fan_in, Fan.OUT: fan_out, Fan.AVERAGE: (fan_in + fan_out) / 2}[fan]
        return draw(key, shape, math.sqrt(scale / n), dtype)

    return init


def _normal(key: PRNGKey, shape: Shape, std: float, dtype: Any) -> Array:
    return jnp.asarray(std, dtype) * jax.random.normal(key, shape, dtype)


def _truncated(key: PRNGKey, shape: Shape, std: float, dtype: Any) -> Array:
    # Cutting a normal at two deviations leaves 0.8796 of its deviation; dividing gives `std` back.
    return jnp.asarray(std / 0.87962566103423978, dtype) * jax.random.truncated_normal(
        key, -2.0, 2.0, shape, dtype
    )


def _uniform(key: PRNGKey, shape: Shape, std: float, dtype: Any) -> Array:
    bound = math.sqrt(3.0) * std
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def lecun_normal() -> Initializer:
    """Truncated normal with variance 1 / fan_in: keeps the variance of a linear layer's input.

    Source: LeCun et al. 1998, Efficient BackProp, section 4.6. Cut at two deviations, with the
    deviation corrected for the cut (as Flax does).

    >>> lecun_normal()(jax.random.key(0), (100, 50)).std().round(2).item()
    0.10000000149011612
    """
    return _variance_scaling(1.0, Fan.IN, _truncated)


def lecun_uniform() -> Initializer:
    """Uniform with variance 1 / fan_in.

    >>> bool(abs(lecun_uniform()(jax.random.key(0), (300, 4))).max() <= 0.1)
    True
    """
    return _variance_scaling(1.0, Fan.IN, _uniform)


def glorot_normal() -> Initializer:
    """Normal with variance 2 / (fan_in + fan_out), known as Xavier: for tanh and sigmoid.

    Source: Glorot & Bengio 2010, equation 12.

    >>> glorot_normal()(jax.random.key(0), (100, 100)).std().round(2).item()
    0.10000000149011612
    """
    return _variance_scaling(1.0, Fan.AVERAGE, _normal)


def glorot_uniform() -> Initializer:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), known as Xavier.

    Source: Glorot & Bengio 2010, equation 16.

    >>> bool(abs(glorot_uniform()(jax.random.key(0), (3, 3))).max() <= 1.0)
    True
    """
    return _variance_scaling(1.0, Fan.AVERAGE, _uniform)


def he_normal(fan: Fan = Fan.IN) -> Initializer:
    """Normal with variance 2 / fan, known as Kaiming: for relu, which halves the second moment.

    Args:
      fan: `Fan.IN` keeps the forward scale, `Fan.OUT` the backward one.

    Source: He et al. 2015, arXiv:1502.01852, equations 10 and 14.

    >>> he_normal()(jax.random.key(0), (200, 50)).std().round(2).item()
    0.10000000149011612
    """
    return _variance_scaling(2.0, fan, _normal)


def he_uniform(fan: Fan = Fan.IN) -> Initializer:
    """Uniform with variance 2 / fan, in +-sqrt(6 / fan).

    Source: He et al. 2015, arXiv:1502.01852.

    >>> bool(abs(he_uniform()(jax.random.key(0), (6, 8))).max() <= 1.0)
    True
    """
    return _variance_scaling(2.0, fan, _uniform)


def orthogonal(scale: Scalar = 1.0) -> Initializer:
    """A matrix with orthonormal rows or columns, whichever are fewer, times `scale`.

    All axes but the last are taken as one.

    Source: Saxe et al. 2014, arXiv:1312.6120. The signs of R's diagonal are folded into Q, which
    makes the distribution uniform over orthogonal matrices (Mezzadri 2007).

    >>> q = orthogonal()(jax.random.key(0), (4, 3))
    >>> bool(jnp.allclose(q.T @ q, jnp.eye(3), atol=1e-5))
    True
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        fans(shape)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        wide = jnp.promote_types(dtype, jnp.float32)
        q, r = jnp.linalg.qr(jax.random.normal(key, (max(rows, columns), min(rows, columns)), wide))
        q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(wide)[None]
        q = q if rows >= columns else q.T
        return (jnp.asarray(scale, wide) * q.reshape(shape)).astype(dtype)

    return init
