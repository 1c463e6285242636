"""What all schedules share: scalars of one dtype, and the way between two values."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import wide, widest
from fnn.types import Scalar


def scalars(*xs: Scalar) -> list[Float[Array, ""]]:
    """All as float scalars of one dtype: float64 if one of them is, else float32.

    >>> [x.item() for x in scalars(jnp.int32(3), 0.5)]
    [3.0, 0.5]
    """
    arrays = [wide(x) for x in xs]
    return [a.astype(widest(arrays)) for a in arrays]


def share(t: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
    """t / length, cut to [0, 1]; where the length is not above 0, that of a length of 1.

    >>> [share(jnp.float32(t), jnp.float32(10)).item() for t in (-1, 5, 20)]
    [0.0, 0.5, 1.0]
    """
    length = jnp.where(length > 0, length, 1)
    # A division by a constant is compiled as a product with its reciprocal: 41 * (1 / 41) < 1.
    return jnp.where(t >= length, 1, jnp.maximum(t / length, 0))


def periods(t: Float[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
    """How many whole periods fit into t: floor(t / length), exact where both are whole numbers.

    >>> jax.jit(lambda t: periods(t, jnp.float32(41)))(jnp.float32(41)).item()   # not 0
    1.0
    """
    # The rounded quotient may be just below a whole number; the product is exact.
    near = jnp.round(t / length)
    return jnp.where(near * length <= t, near, near - 1)


def blend(
    first: Float[Array, ""], last: Float[Array, ""], part: Float[Array, ""]
) -> Float[Array, ""]:
    """From `first` at part 0 to `last` at part 1, both to the bit.

    >>> blend(jnp.float32(0.1), jnp.float32(0.3), jnp.float32(1)) == jnp.float32(0.3)
    Array(True, dtype=bool)
    """
    return (1 - part) * first + part * last


def half_cosine(part: Float[Array, ""]) -> Float[Array, ""]:
    """(1 - cos(pi part)) / 2: from 0 to 1, level at both ends.

    >>> [half_cosine(jnp.float32(part)).item() for part in (0, 0.5, 1)]
    [0.0, 0.5, 1.0]
    """
    return 0.5 * (1 - jnp.cos(jnp.pi * part))
