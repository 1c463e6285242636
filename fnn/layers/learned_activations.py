"""Activations with parameters: PReLU and Snake."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import activations
from fnn.activations import leaky_relu
from fnn.expect import expect_floats
from fnn.layers.linear import broadcast
from fnn.types import Params, Scalar


def prelu_init(features: int, *, slope: Scalar = 0.25) -> Params:
    """Parameters of `prelu`.

    Args:
      features: number of slopes; 1 shares one among all features.
      slope: initial value. Exclude it from weight decay, which would pull it to a plain relu.

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
    Source: He et al. 2015, arXiv:1502.01852, section 2.1. A slope for each feature, initially
      0.25, as in the paper; by default PyTorch shares one slope, Flax shares one with initial value
      0.01, and Keras has one with initial value 0 for each element of an example.

    >>> prelu({'slope': jnp.array([0.5, 0.25])}, jnp.array([[-1.0, -1.0]])).tolist()
    [[-0.5, -0.25]]
    """
    return _with_parameter("prelu", leaky_relu, x, params["slope"])


def snake_init(features: int, *, frequency: Scalar = 1.0) -> Params:
    """Parameters of `snake`: {'frequency': (features,)}, float32; 1 feature shares one frequency.

    Args:
      frequency: initial value, in radians per unit of x; the paper tries 0.2 to 50, larger for
        signals with shorter periods.

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
    return _with_parameter("snake", activations.snake, x, params["frequency"])


def _with_parameter(
    where: str, function: Callable[[Any, Any], Any], x: Array, parameter: Array
) -> Array:
    expect_floats(where, x)
    if x.ndim < 1 or parameter.shape[0] not in (1, x.shape[-1]):
        raise ValueError(
            f"{where}: expected x with {parameter.shape[0]} features in its last axis, got shape "
            f"{x.shape}; give it the inputs that it was made for, or a single shared parameter"
        )
    return broadcast(function, x, jnp.expand_dims(parameter, tuple(range(x.ndim - 1))))
