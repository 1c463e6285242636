"""Convolutions as models. Parameters are those of `fnn.layers`; sizes come from the input."""

from collections.abc import Sequence
from typing import Any

from fnn import layers
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.layers.window import Padding, Size, per_axis
from fnn.models.layers.shape import features_of
from fnn.types import Model


def conv(
    features: int,
    window: Size,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A convolution over the axes between batch and features, as a model; see `layers.conv`.

    Args:
      window: size of the kernel; one number, or one for each window axis.

    >>> params, _ = conv(4, 3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['kernel'].shape
    (3, 3, 2, 4)
    """

    def init(key, x):
        params = layers.conv_init(
            key,
            features_of("conv", x),
            features,
            _window("conv", window, x),
            groups=groups,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        y = layers.conv(params, x, stride=stride, dilation=dilation, groups=groups, padding=padding)
        return y, model_state

    return Model(init=init, apply=apply)


def depthwise_conv(
    window: Size,
    *,
    multiplier: int = 1,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A convolution of each feature by itself, as a model; see `layers.depthwise_conv`.

    Args:
      window: size of the kernel; one number, or one for each window axis.
      multiplier: outputs for each feature.

    >>> params, _ = depthwise_conv(3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['kernel'].shape
    (3, 3, 1, 2)
    """

    def init(key, x):
        params = layers.depthwise_conv_init(
            key,
            features_of("depthwise_conv", x),
            _window("depthwise_conv", window, x),
            multiplier=multiplier,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        y = layers.depthwise_conv(params, x, stride=stride, dilation=dilation, padding=padding)
        return y, model_state

    return Model(init=init, apply=apply)


def separable_conv(
    features: int,
    window: Size,
    *,
    multiplier: int = 1,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A depthwise convolution and a pointwise one, as a model; see `layers.separable_conv`.

    Args:
      window: size of the depthwise kernel; one number, or one for each window axis.
      multiplier: outputs of the depthwise part for each feature.

    >>> params, _ = separable_conv(4, 3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['pointwise']['kernel'].shape
    (1, 1, 2, 4)
    """

    def init(key, x):
        params = layers.separable_conv_init(
            key,
            features_of("separable_conv", x),
            features,
            _window("separable_conv", window, x),
            multiplier=multiplier,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        y = layers.separable_conv(params, x, stride=stride, dilation=dilation, padding=padding)
        return y, model_state

    return Model(init=init, apply=apply)


def conv_transpose(
    features: int,
    window: Size,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding: Padding | Sequence[tuple[int, int]] = Padding.SAME,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A transposed convolution, as a model; see `layers.conv_transpose`.

    Args:
      window: size of the kernel; one number, or one for each window axis.

    >>> model = conv_transpose(4, 2, stride=2)
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 8, 2)))
    >>> model.apply(params, (), jnp.zeros((1, 8, 2)))[0].shape
    (1, 16, 4)
    """

    def init(key, x):
        params = layers.conv_transpose_init(
            key,
            features_of("conv_transpose", x),
            features,
            _window("conv_transpose", window, x),
            groups=groups,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        y = layers.conv_transpose(
            params, x, stride=stride, dilation=dilation, groups=groups, padding=padding
        )
        return y, model_state

    return Model(init=init, apply=apply)


def _window(where: str, window: Size, x: Any) -> tuple[int, ...]:
    axes = len(x.shape) - 2
    if axes < 1:
        raise ValueError(
            f"{where}: expected x of shape (batch, *sizes, features), got {tuple(x.shape)}; "
            "put the axes that the window slides over between batch and features"
        )
    return per_axis(where, "window", window, axes)
