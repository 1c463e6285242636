"""Activations with parameters: PReLU and Snake."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import activations
from fnn.activations import leaky_relu
from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats
from fnn.types import Params, Scalar


def prelu_init(features: int, *, slope: Scalar = 0.25) -> Params:
    """Parameters of `prelu`.

    Args:
      features: how many slopes; 1 shares one among all features.
      slope: where they start. Keep weight decay off it, which would pull it to a plain relu.

    Returns: {'slope': (features,)}, float32.

    >>> prelu_init(2)['slope'].tolist()
    [0.25, 0.25]
    """
    return {"slope": jnp.full(features, slope, jnp.float32)}


def prelu(params: Params, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
    """x where x > 0, and slope x elsewhere, with a learned slope for each feature.

    Args:
      x: (..., features); the features are the last axis.

    Returns: the shape and dtype of x.
    Raises: ValueError if the last axis of x does not fit the slopes.
    Source: He et al. 2015, arXiv:1502.01852, section 2.1. A slope for each feature, from 0.25 on,
      as in the paper; PyTorch shares one slope unless told otherwise, Flax shares one from 0.01
      on, and Keras has one from 0 on for each element of an example.

    >>> prelu({'slope': jnp.array([0.5, 0.25])}, jnp.array([[-1.0, -1.0]])).tolist()
    [[-0.5, -0.25]]
    """
    expect_floats("prelu", x)
    slope = params["slope"]
    if x.ndim < 1 or slope.shape[0] not in (1, x.shape[-1]):
        raise ValueError(
            f"prelu: expected x with {slope.shape[0]} features in its last axis, got shape "
            f"{x.shape}; give it the inputs that it was made for, or a single shared slope"
        )
    wide = x.astype(at_least_float32(x))  # in which the gradient of the slopes is summed
    slope = jnp.expand_dims(slope.astype(wide.dtype), tuple(range(x.ndim - 1)))
    return leaky_relu(wide, slope).astype(x.dtype)


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
