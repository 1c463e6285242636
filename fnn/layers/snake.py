"""The periodic activation whose frequencies are learned."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import activations
from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats
from fnn.types import Params, Scalar


def snake_init(features: int, *, frequency: Scalar = 1.0) -> Params:
    """Parameters of `snake`: {'frequency': (features,)}, float32; 1 feature shares one frequency.

    Args:
      frequency: where they start, in radians for a unit of x; the paper tries 0.2 to 50, the
        larger the faster the signal repeats.

    >>> snake_init(2)['frequency'].tolist()
    [1.0, 1.0]
    """
    return {"frequency": jnp.full(features, frequency, jnp.float32)}


def snake(params: Params, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
    """x + sin^2(a x) / a, with a learned frequency a for each feature.

    Args:
      x: (..., features); the features are the last axis.

    Returns: the shape and dtype of x.
    Raises: ValueError if the last axis of x does not fit the frequencies.
    Source: Ziyin, Hartwig & Ueda 2020, arXiv:2006.08195, equation 3.

    >>> snake(snake_init(1), jnp.array([[0.0]])).tolist()
    [[0.0]]
    """
    expect_floats("snake", x)
    frequency = params["frequency"]
    if x.ndim < 1 or frequency.shape[0] not in (1, x.shape[-1]):
        raise ValueError(
            f"snake: expected x with {frequency.shape[0]} features in its last axis, got shape "
            f"{x.shape}; give it the inputs that it was made for, or a single shared frequency"
        )
    wide = x.astype(at_least_float32(x))  # in which the gradient of the frequencies is summed
    frequency = jnp.expand_dims(frequency.astype(wide.dtype), tuple(range(x.ndim - 1)))
    return activations.snake(wide, frequency).astype(x.dtype)
