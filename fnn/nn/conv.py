"""Convolutions."""

from typing import Any

from fnn import layers
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.layers._axes import Size, Sizes, expect_axes
from fnn.layers._window import Padding
from fnn.nn._base import stateless
from fnn.types import Model


def conv(
    out_features: int,
    kernel_size: Sizes,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A convolution over the axes between batch and features; see `layers.conv`.

    Args:
      kernel_size: along each window axis: (3, 3) for images, (3,) for sequences.
      padding: 'SAME', 'VALID', 'CAUSAL', 'CIRCULAR', 'REFLECT' or a pair for each window axis.

    >>> params, _ = conv(4, (3, 3)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['kernel'].shape
    (3, 3, 2, 4)
    """
    return stateless(
        lambda key, x: layers.conv_init(
            key,
            _features_of("conv", x, kernel_size),
            out_features,
            kernel_size,
            groups=groups,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        ),
        lambda params, x: layers.conv(
            params, x, stride=stride, dilation=dilation, groups=groups, padding=padding
        ),
    )


def depthwise_conv(
    kernel_size: Sizes,
    *,
    multiplier: int = 1,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A convolution of each feature by itself; see `layers.depthwise_conv`.

    Args:
      multiplier: outputs for each feature.

    >>> params, _ = depthwise_conv((3, 3)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['kernel'].shape
    (3, 3, 1, 2)
    """
    return stateless(
        lambda key, x: layers.depthwise_conv_init(
            key,
            _features_of("depthwise_conv", x, kernel_size),
            kernel_size,
            multiplier=multiplier,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        ),
        lambda params, x: layers.depthwise_conv(
            params, x, stride=stride, dilation=dilation, padding=padding
        ),
    )


def separable_conv(
    out_features: int,
    kernel_size: Sizes,
    *,
    multiplier: int = 1,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A depthwise convolution and a pointwise one; see `layers.separable_conv`.

    Args:
      multiplier: outputs of the depthwise part for each feature.

    >>> params, _ = separable_conv(4, (3, 3)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['pointwise']['kernel'].shape
    (1, 1, 2, 4)
    """
    return stateless(
        lambda key, x: layers.separable_conv_init(
            key,
            _features_of("separable_conv", x, kernel_size),
            out_features,
            kernel_size,
            multiplier=multiplier,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        ),
        lambda params, x: layers.separable_conv(
            params, x, stride=stride, dilation=dilation, padding=padding
        ),
    )


def conv_transpose(
    out_features: int,
    kernel_size: Sizes,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A transposed convolution; see `layers.conv_transpose`.

    Args:
      padding: 'SAME', 'VALID', 'CAUSAL' or a pair for each window axis.

    >>> model = conv_transpose(4, (2,), stride=2)
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 8, 2)))
    >>> model.apply(params, (), jnp.zeros((1, 8, 2)))[0].shape
    (1, 16, 4)
    """
    return stateless(
        lambda key, x: layers.conv_transpose_init(
            key,
            _features_of("conv_transpose", x, kernel_size),
            out_features,
            kernel_size,
            groups=groups,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        ),
        lambda params, x: layers.conv_transpose(
            params, x, stride=stride, dilation=dilation, groups=groups, padding=padding
        ),
    )


def _features_of(where: str, x: Any, kernel_size: Sizes) -> int:
    expect_axes(where, x, len(kernel_size))
    return x.shape[-1]
