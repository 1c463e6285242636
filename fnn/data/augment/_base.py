"""Types and helpers of the augmentations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from fnn.types import Pair, PRNGKey, Scalar

Image = Num[Array, "height width channels"]
Augment = Callable[[PRNGKey, Any], Any]  # (key, one example) -> an example of its shape and dtype
BatchAugment = Callable[[PRNGKey, Pair], Pair]  # (key, (x, y)) -> (x, y)


def expect_image(where: str, x: Array) -> None:
    """Refuses anything but one image with a channel axis."""
    if x.ndim != 3:
        raise ValueError(
            f"{where}: expected an image of shape (height, width, channels), got {x.shape}; add a "
            "channel axis to the images, x[..., None], and give a batch to per_example"
        )


def expect_rgb(where: str, x: Array) -> None:
    """Refuses anything but one image with three channels."""
    if x.ndim != 3 or x.shape[-1] != 3:
        raise ValueError(
            f"{where}: expected an image (height, width, 3), got {x.shape}; for a batch use "
            "per_example"
        )


def bernoulli(key: PRNGKey, rate: Scalar) -> Array:
    """A bool that is True with probability `rate`: never at 0, always at 1."""
    return jax.random.uniform(key, (), jnp.float32) < jnp.asarray(rate, jnp.float32)


def uniform(key: PRNGKey, low: Scalar, high: Scalar) -> Float[Array, ""]:
    """A float32 scalar from U[low, high); both may be traced, and equal."""
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    return low + (high - low) * jax.random.uniform(key, (), jnp.float32)


def symmetric(key: PRNGKey, limit: Scalar) -> Float[Array, ""]:
    """A float32 scalar from U[-limit, limit)."""
    return uniform(key, -jnp.asarray(limit, jnp.float32), limit)


def log_uniform(key: PRNGKey, change: Scalar) -> Float[Array, ""]:
    """A factor from 1 / (1 + change) to 1 + change, uniform in its logarithm."""
    return jnp.exp(symmetric(key, jnp.log1p(jnp.asarray(change, jnp.float32))))


def interval_mask(n: int, start: Scalar, length: Scalar) -> Array:
    """Bools (n,), True at the indices in [start, start + length), which may be traced."""
    indices = jnp.arange(n, dtype=jnp.float32)
    return (indices >= start) & (indices < start + length)


def round_like(values: Float[Array, "..."], x: Array) -> Array:
    """`values` in the dtype of x; for integers rounded, and clipped to the range of the dtype."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return values.astype(x.dtype)
    limits = jnp.iinfo(x.dtype)
    return jnp.clip(jnp.round(values), limits.min, limits.max).astype(x.dtype)
