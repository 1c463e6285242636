"""What layers read off their input, and layers that only change its shape."""

import math
from typing import Any

import jax.numpy as jnp

from fnn.nn._base import lift
from fnn.types import Model


def features_of(where: str, x: Any) -> int:
    """The size of the last axis of an example batch.

    Raises: ValueError, which begins with `where`, for fewer than two axes.

    >>> features_of('linear', jnp.zeros((4, 3)))
    3
    """
    if len(x.shape) < 2:
        raise ValueError(
            f"{where}: expected x of shape (batch, ..., features), got {x.shape}; "
            "put the batch first, and add an axis if each example is a single number"
        )
    return x.shape[-1]


def flatten() -> Model:
    """(batch, ...) to (batch, features).

    >>> flatten().apply({}, (), jnp.zeros((2, 3, 4)))[0].shape
    (2, 12)
    """
    return lift(lambda x: jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))))
