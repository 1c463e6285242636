"""The U-Net: an encoder and a decoder of convolutions, with skip connections at each resolution.

B batch, H height, W width, I inputs, C channels, O outputs, D features of the condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.expect import within
from fnn.initializers import Initializer, he_normal, lecun_normal
from fnn.layers.linear import broadcast
from fnn.models._common import expect_divisible
from fnn.nn.compact import Run, compact
from fnn.types import Model, Scalar

__all__ = ["UNetConfig", "concatenate_features", "unet", "upsample_conv"]


def concatenate_features(skip: Float[Array, "*n skip"], x: Float[Array, "*n below"]) -> Array:
    """The features of the skip connection, then those of x.

    >>> concatenate_features(jnp.array([[1.0]]), jnp.array([[2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0]]
    """
    return jnp.concatenate([skip, x], axis=-1)


def upsample_conv(features: int) -> Model:
    """A 2 x 2 transposed convolution, at twice the height and width.

    >>> params, _ = upsample_conv(3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 6)))
    >>> upsample_conv(3).apply(params, (), jnp.zeros((1, 4, 4, 6)))[0].shape
    (1, 8, 8, 3)
    """
    return nn.conv_transpose(features, (2, 2), stride=2)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shapes and layers of a U-Net; the defaults are the paper's, with norms."""

    out_features: int  # O
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # C at each resolution, the highest first
    convs_per_block: int = 2
    kernel_size: int = 3  # height and width, in the blocks
    activation: nn.Layer = relu
    norm: Callable[[], Model] | None = nn.batch_norm  # between the convolution and the activation
    downsample: nn.Layer = nn.max_pool((2, 2))  # to half the height and width
    upsample: Callable[[int], Model] = upsample_conv  # features -> to twice the height and width
    join: Callable[[Any, Any], Any] = concatenate_features  # (skip, x); or operator.add
    kernel_init: Initializer = he_normal()  # of the blocks' convolutions
    head_init: Initializer = lecun_normal()  # of the last convolution; zeros for a diffusion model


@within(rate="[0, 1]")
def unet(config: UNetConfig, *, rate: Scalar = 0.0) -> Model:
    """Blocks of convolutions at decreasing, then increasing resolutions, with skip connections.

        down_i = block(downsample(down_(i-1))),  up_i = block(join(down_i, upsample(up_(i+1))))

    Each convolution of a block is followed by norm and activation. A linear layer of the condition,
    such as an embedding of a diffusion model's time or class, is added in each block after its
    first norm, equally at all pixels.

    Args:
      config: shapes and layers.
      rate: dropout rate before the last convolution of each block; may be traced.

    Apply takes x (B, H, W, I), or the pair (x, condition (B, D)), and returns (B, H, W, O).
    Parameters: {'down': [block, ...], 'up': [...], 'join': [block, ...], 'head'}, where 'down' is
    from the highest resolution to the lowest and the others from the lowest, and a block is
    {'units': [{'conv', 'norm'}, ...], 'condition'}.
    Raises: ValueError for sizes that the total stride does not divide, for a config without widths
      or convolutions, and for x or a condition of another shape.
    Source: Ronneberger, Fischer & Brox 2015, arXiv:1505.04597, section 2; the condition is the
      shift of Perez et al. 2018, arXiv:1709.07871. Deviates: convolutions are zero-padded, so skip
      connections are not cropped; and there are norms.

    >>> model = unet(UNetConfig(widths=(4, 8), out_features=1))
    >>> x, time = jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 5))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), (x, time))
    >>> jax.eval_shape(model.apply, params, state, (x, time))[0].shape
    (2, 8, 8, 1)
    """
    if not config.widths or config.convs_per_block < 1:
        raise ValueError(
            f"unet: expected at least one width and one convolution per block, got widths "
            f"{config.widths} and convs_per_block {config.convs_per_block}; give one or more of "
            "each"
        )
    *widths, bottom = config.widths

    def forward(run: Run, given: Any) -> Any:
        x, condition = given if isinstance(given, tuple) else (given, None)
        expect_divisible("unet", x, 2 ** len(widths), "give fewer widths")
        _expect_condition(x, condition)

        def block(name: str, i: int, x: Any, features: int) -> Any:
            return run(name, _block(config, features, rate), (x, condition), i)

        skips = []
        for i, features in enumerate(widths):
            skips.append(block("down", i, x, features))  # (B, H, W, I) -> (B, H, W, C)
            x = run("pool", config.downsample, skips[-1], i)  # -> (B, H / 2, W / 2, C)
        x = block("down", len(widths), x, bottom)
        for i, features in enumerate(reversed(widths)):
            x = run("up", config.upsample(features), x, i)  # -> (B, 2 H, 2 W, C)
            x = run("both", lambda pair: config.join(*pair), (skips.pop(), x), i)
            x = block("join", i, x, features)
        return run("head", nn.conv(config.out_features, (1, 1), kernel_init=config.head_init), x)

    return compact(forward)


def _block(config: UNetConfig, features: int, rate: Scalar) -> Model:
    layer = nn.conv(
        features,
        (config.kernel_size, config.kernel_size),
        bias=config.norm is None,  # a norm subtracts the bias again
        kernel_init=config.kernel_init,
    )
    unit = nn.sequential(conv=layer, **({"norm": config.norm()} if config.norm else {}))

    def forward(run: Run, given: Any) -> Any:
        x, condition = given
        for i in range(config.convs_per_block):
            if i == config.convs_per_block - 1:
                x = run("dropout", nn.dropout(rate), x)
            x = run("units", unit, x, i)
            if i == 0 and condition is not None:
                x = run("shifted", _shift, (x, run("condition", nn.linear(features), condition)))
            x = run("activation", config.activation, x, i)
        return x

    return compact(forward)


def _shift(pair: tuple[Array, Array]) -> Array:
    x, shift = pair
    return broadcast(jnp.add, x, shift[:, None, None, :])


def _expect_condition(x: Any, condition: Any) -> None:
    if condition is not None and (len(condition.shape) != 2 or condition.shape[0] != x.shape[0]):
        raise ValueError(
            f"unet: expected a condition of shape ({x.shape[0]}, features), got "
            f"{tuple(condition.shape)}; give one row for each example"
        )


check_exports(__name__)
