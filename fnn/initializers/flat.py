"""Draws that are quick to compile."""

import math
from collections.abc import Callable

from jaxtyping import Array, Float

from fnn.initializers.base import Shape
from fnn.types import PRNGKey

_LONG = 128  # a last axis that no compiler writes out
_MANY = 2**20  # from here on a shape may be spread over devices, and stays what it is
_LANES = 64  # of which the padded length is a multiple


def flat(
    draw: Callable[[PRNGKey, Shape], Float[Array, "..."]], key: PRNGKey, shape: Shape
) -> Float[Array, "..."]:
    """`draw(key, shape)`, to the last bit, as one vector where the last axis is short.

    A CPU's compiler writes out a loop over a short axis, with all that makes a random number in
    it, and takes four times as long: half a second for the ten outputs of a classifier. A number
    depends on its place alone (JAX's `jax_threefry_partitionable`), so that those of a longer
    vector are the same.

    >>> drawn = flat(jax.random.normal, jax.random.key(0), (3, 2))
    >>> bool((drawn == jax.random.normal(jax.random.key(0), (3, 2))).all())
    True
    """
    n = math.prod(shape)
    if not shape or shape[-1] >= _LONG or n > _MANY:
        return draw(key, shape)
    padded = -(-n // _LANES) * _LANES
    return draw(key, (padded,))[:n].reshape(shape)
