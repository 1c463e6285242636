"""Convolutions as models. Parameters are those of `fnn.layers`; sizes come from the input."""

from collections.abc import Sequence

from fnn import layers
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.layers._axes import Size, Sizes, expect_axes, stated
from fnn.layers._window import Padding
from fnn.nn._shape import features_of
from fnn.types import Model


def conv(
    features: int,
    window: Sizes,
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
      window: size of the kernel along each window axis: (3, 3) for images, (3,) for sequences.

    >>> params, _ = conv(4, (3, 3)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['kernel'].shape
    (3, 3, 2, 4)
    """
    window = stated("conv", "window", window)

    def init(key, x):
        expect_axes("conv", x, len(window))
        params = layers.conv_init(
            key,
            features_of("conv", x),
            features,
            window,
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
    window: Sizes,
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
      window: size of the kernel along each window axis: (3, 3) for images, (3,) for sequences.
      multiplier: outputs for each feature.

    >>> params, _ = depthwise_conv((3, 3)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['kernel'].shape
    (3, 3, 1, 2)
    """
    window = stated("depthwise_conv", "window", window)

    def init(key, x):
        expect_axes("depthwise_conv", x, len(window))
        params = layers.depthwise_conv_init(
            key,
            features_of("depthwise_conv", x),
            window,
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
    window: Sizes,
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
      window: size of the depthwise kernel along each window axis; (3, 3) for images.
      multiplier: outputs of the depthwise part for each feature.

    >>> params, _ = separable_conv(4, (3, 3)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    >>> params['pointwise']['kernel'].shape
    (1, 1, 2, 4)
    """
    window = stated("separable_conv", "window", window)

    def init(key, x):
        expect_axes("separable_conv", x, len(window))
        params = layers.separable_conv_init(
            key,
            features_of("separable_conv", x),
            features,
            window,
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
    window: Sizes,
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
      window: size of the kernel along each window axis: (3, 3) for images, (3,) for sequences.

    >>> model = conv_transpose(4, (2,), stride=2)
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 8, 2)))
    >>> model.apply(params, (), jnp.zeros((1, 8, 2)))[0].shape
    (1, 16, 4)
    """
    window = stated("conv_transpose", "window", window)

    def init(key, x):
        expect_axes("conv_transpose", x, len(window))
        params = layers.conv_transpose_init(
            key,
            features_of("conv_transpose", x),
            features,
            window,
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
