"""Normal and uniform initializers, independent of the shape."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.initializers.base import Initializer, Shape
from fnn.types import PRNGKey, Scalar
from fnn.xla import draw_flat


def normal(std: Scalar = 1.0) -> Initializer:
    """Normal with mean 0 and standard deviation `std`.

    >>> normal(0.02)(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        wide = at_least_float32(dtype)

        def draw(key: PRNGKey, shape: Shape) -> Array:
            return jnp.asarray(std, wide) * jax.random.normal(key, shape, wide)

        return draw_flat(draw, key, shape).astype(dtype)

    return init


@within(cut="(0, inf)")
def truncated_normal(std: Scalar = 1.0, *, cut: float = 2.0) -> Initializer:
    """Normal with mean 0, truncated to +-`cut * std`.

    Args:
      std: standard deviation before truncation, as in JAX, TensorFlow and BERT; the samples have
        0.88 std for a cut at 2.
      cut: in standard deviations, above 0. torch and timm truncate at the values +-2: cut=2 / std.

    >>> bool(abs(truncated_normal(0.02)(jax.random.key(0), (300,))).max() <= 0.04)
    True
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        wide = at_least_float32(dtype)

        def draw(key: PRNGKey, shape: Shape) -> Array:
            scale = jnp.asarray(std, wide)
            return scale * jax.random.truncated_normal(key, -cut, cut, shape, wide)

        return draw_flat(draw, key, shape).astype(dtype)

    return init


def uniform(low: Scalar, high: Scalar) -> Initializer:
    """Uniform in [low, high), drawn in at least float32; rounding to 16 bits may give high.

    >>> draws = uniform(-0.05, 0.05)(jax.random.key(0), (300,))
    >>> bool((draws >= -0.05).all() & (draws < 0.05).all())
    True
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        wide = at_least_float32(dtype)
        bounds = [jnp.asarray(bound, wide) for bound in (low, high)]

        def draw(key: PRNGKey, shape: Shape) -> Array:
            return jax.random.uniform(key, shape, wide, *bounds)

        return draw_flat(draw, key, shape).astype(dtype)

    return init


def scaled_residual(n_layers: int, base: Initializer = normal(0.02)) -> Initializer:
    """`base` / sqrt(2 n_layers), for the last kernel of each residual branch of a transformer.

    The sum of its 2 n_layers branches then has the variance of one.

    Args:
      n_layers: layers of the network, at least 1, with two branches each.
      base: initializer of the other kernels.

    Source: Radford et al. 2019, Language models are unsupervised multitask learners, section 2.3.

    >>> scaled_residual(8, base=normal(1.0))(jax.random.key(0), (1000,)).std().round(2).item()
    0.25
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        wide = at_least_float32(dtype)
        drawn = base(key, shape, wide) / jnp.asarray(math.sqrt(2 * n_layers), wide)
        return drawn.astype(dtype)

    return init
