"""Squeeze-and-excitation: each feature is scaled by a gate from the averages of all features."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.activations import relu, sigmoid
from fnn.dtypes import at_least_float32
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers._axes import window_axes
from fnn.layers.linear import broadcast, linear, linear_init
from fnn.types import Params, PRNGKey


def squeeze_excite_init(
    key: PRNGKey,
    features: int,
    hidden_features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `squeeze_excite`.

    Args:
      hidden_features: width of the bottleneck; features / 16 in the paper.
      bias: whether to add one in the two linear layers.

    Returns: {'reduce': {'kernel': (features, hidden), 'bias': (hidden,)}, 'expand': {'kernel':
      (hidden, features), 'bias': (features,)}}, float32.

    >>> squeeze_excite_init(jax.random.key(0), 16, 4)['expand']['kernel'].shape
    (4, 16)
    """
    sizes = {"reduce": (features, hidden_features), "expand": (hidden_features, features)}
    return {
        name: linear_init(
            fold_name(key, name), *size, bias=bias, kernel_init=kernel_init, bias_init=bias_init
        )
        for name, size in sizes.items()
    }


def squeeze_excite(
    params: Params,
    x: Float[Array, "batch *window features"],
    *,
    activation: Callable[[Any], Any] = relu,
    gate: Callable[[Any], Any] = sigmoid,
    ndim: int | None = None,
) -> Float[Array, "batch *window features"]:
    """x * gate(expand(activation(reduce(mean of x over the window)))).

    Args:
      x: (batch, *window, features), with any number of window axes, at least one.
      activation: of the bottleneck; EfficientNet has `silu`.
      gate: of the scale; MobileNetV3 has `hard_sigmoid`.
      ndim: number of window axes, 2 for images; None takes any number.

    Returns: the shape and dtype of x.
    Raises: ValueError if x has no window axes, or not `ndim` of them, or its features do not fit
      the kernels.
    Source: Hu, Shen & Sun 2018, arXiv:1709.01507, equations 2 to 4. Deviates: with biases, as
      in torchvision and timm; the paper's equations have none.

    >>> params = squeeze_excite_init(jax.random.key(0), 4, 2)
    >>> squeeze_excite(params, jnp.ones((1, 3, 3, 4))).shape
    (1, 3, 3, 4)
    """
    window = window_axes("squeeze_excite", x, ndim)
    wide = x.astype(at_least_float32(x))
    squeezed = wide.mean(axis=window).astype(x.dtype)
    scale = gate(linear(params["expand"], activation(linear(params["reduce"], squeezed))))
    return broadcast(jnp.multiply, x, jnp.expand_dims(scale, window))
