"""Helpers of the schedules: scalars of one dtype, and interpolation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import wide, widest
from fnn.types import Scalar


def scalars(*xs: Scalar) -> list[Float[Array, ""]]:
    """Float scalars of one dtype: float64 if one of them is, else float32."""
    arrays = [wide(x) for x in xs]
    return [a.astype(widest(arrays)) for a in arrays]


def fraction(t: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
    """t / length, clipped to [0, 1]; a length of 0 or less counts as 1."""
    length = jnp.where(length > 0, length, 1)
    # XLA compiles division by a constant as a product with its reciprocal: 41 * (1 / 41) < 1.
    return jnp.where(t >= length, 1, jnp.maximum(t / length, 0))


def periods(t: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
    """floor(t / length), exact for integers."""
    # A rounded quotient may be just below an integer; the product is exact.
    nearest = jnp.round(t / length)
    return jnp.where(nearest * length <= t, nearest, nearest - 1)


def blend(
    first: Float[Array, ""], last: Float[Array, ""], part: Float[Array, ""]
) -> Float[Array, ""]:
    """Linear interpolation from `first` at part 0 to `last` at part 1, exact at both ends."""
    return (1 - part) * first + part * last


def half_cosine(part: Float[Array, ""]) -> Float[Array, ""]:
    """(1 - cos(pi part)) / 2: from 0 to 1, with slope 0 at both ends."""
    return 0.5 * (1 - jnp.cos(jnp.pi * part))
