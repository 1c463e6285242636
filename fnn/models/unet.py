"""A U-Net: down to a coarse image and up again, with ways across at every size.

B batch, H height, W width, I inputs, C channels, O outputs, D features of the condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.activations import relu
from fnn.arguments import check_exports
from fnn.expect import within
from fnn.initializers import Initializer, he_normal, lecun_normal
from fnn.layers._axes import expect_images
from fnn.layers.linear import broadcast
from fnn.nn import Layer, batch_norm, conv, conv_transpose, dropout, linear, max_pool, sequential
from fnn.nn.compact import Run, wired
from fnn.types import Model, Scalar

__all__ = ["UNetConfig", "beside", "unet", "upward_conv"]

Join = Callable[[Any, Any], Any]  # (what came across, what came from below) -> both together


def beside(across: Float[Array, "*n across"], below: Float[Array, "*n below"]) -> Array:
    """The features of both, one after the other: what the paper does with the way across.

    >>> beside(jnp.array([[1.0]]), jnp.array([[2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0]]
    """
    return jnp.concatenate([across, below], axis=-1)


def upward_conv(features: int) -> Model:
    """The paper's way up: a transposed convolution of 2 x 2, at twice the height and width.

    >>> params, _ = upward_conv(3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 6)))
    >>> upward_conv(3).apply(params, (), jnp.zeros((1, 4, 4, 6)))[0].shape
    (1, 8, 8, 3)
    """
    return conv_transpose(features, (2, 2), stride=2)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What fixes the shapes and the parts of a U-Net; the defaults are the paper's, with norm."""

    out_features: int  # O
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # C at each size, from the finest
    depth: int = 2  # convolutions of a block
    window: int = 3  # height and width of their kernels
    activation: Layer = relu
    norm: Callable[[], Model] | None = batch_norm  # between the convolution and the activation
    down: Layer = max_pool((2, 2))  # to half the height and width
    up: Callable[[int], Model] = upward_conv  # so many features at twice the height and width
    join: Join = beside  # or operator.add
    kernel_init: Initializer = he_normal()  # of the blocks' convolutions
    head_init: Initializer = lecun_normal()  # of the last convolution; zeros for a diffusion model


@within(rate="[0, 1]")
def unet(config: UNetConfig, *, rate: Scalar = 0.0) -> Model:
    """Blocks of convolutions on ever coarser images, then back, each with the fine one beside it.

        down_i = block(down(down_(i-1))),  up_i = block(join(down_i, up(up_(i+1))))

    A block's convolutions have a norm and an activation behind them. Given a condition, such as
    the embedding of a diffusion model's time or a class, each block adds a linear map of it to all
    pixels alike, between its first norm and activation.

    Args:
      config: shapes and parts.
      rate: drop probability in front of the last convolution of each block; may be traced.

    Apply takes x (B, H, W, I), or the pair (x, condition (B, D)), and returns (B, H, W, O).
    Parameters: {'down': [block, ...], 'up': [...], 'join': [block, ...], 'head'}, where 'down' goes
    from the finest image to the coarsest, 'up' and 'join' go back, and a block is
    {'units': [{'conv', 'norm'}, ...]}, with 'condition' if there is one.
    Raises: ValueError for sizes that the ways down do not halve evenly, for a config without widths
      or convolutions, and for x or a condition of other axes.
    Source: Ronneberger, Fischer & Brox 2015, arXiv:1505.04597, section 2; the condition: Perez et
      al. 2018, arXiv:1709.07871, of which it is the shift. Deviates: the convolutions keep the size
      by zeros at the border, so nothing is cropped on the way across; and there are norms.

    >>> model = unet(UNetConfig(widths=(4, 8), out_features=1))
    >>> x, time = jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 5))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), (x, time))
    >>> jax.eval_shape(model.apply, params, state, (x, time))[0].shape
    (2, 8, 8, 1)
    """
    if not config.widths or config.depth < 1:
        raise ValueError(
            f"unet: expected at least one width and one convolution to a block, got widths "
            f"{config.widths} and depth {config.depth}; give one or more of each"
        )

    def forward(run: Run, given: Any) -> Any:
        x, condition = given if isinstance(given, tuple) else (given, None)
        _expect_halves(config, x)
        _expect_condition(x, condition)

        def block(name: str, i: int, x: Any, features: int) -> Any:
            return run(name, _block(config, features, rate), (x, condition), i)

        *fine, coarsest = config.widths
        ways = []
        for i, features in enumerate(fine):
            ways.append(block("down", i, x, features))  # (B, H, W, I) -> (B, H, W, C)
            x = run("pool", config.down, ways[-1], i)  # -> (B, H / 2, W / 2, C)
        x = block("down", len(fine), x, coarsest)
        for i, features in enumerate(reversed(fine)):
            x = run("up", config.up(features), x, i)  # -> (B, 2 H, 2 W, C)
            x = run("both", lambda both: config.join(*both), (ways.pop(), x), i)
            x = block("join", i, x, features)
        return run("head", conv(config.out_features, (1, 1), kernel_init=config.head_init), x)

    return wired(forward)


def _block(config: UNetConfig, features: int, rate: Scalar) -> Model:
    # Before a norm a bias has no effect: the norm subtracts it again.
    unit = sequential(
        conv=conv(
            features, (config.window,) * 2, bias=config.norm is None, kernel_init=config.kernel_init
        ),
        **({"norm": config.norm()} if config.norm else {}),
    )

    def forward(run: Run, given: Any) -> Any:
        x, condition = given
        for i in range(config.depth):
            if i == config.depth - 1:
                x = run("dropout", dropout(rate), x)
            x = run("units", unit, x, i)
            if i == 0 and condition is not None:
                shift = run("condition", linear(features), condition)
                x = run("shifted", _shifted, (x, shift))
            x = run("activation", config.activation, x, i)
        return x

    return wired(forward)


def _shifted(both: tuple[Array, Array]) -> Array:
    x, shift = both
    return broadcast(jnp.add, x, shift[:, None, None, :])


def _expect_halves(config: UNetConfig, x: Any) -> None:
    expect_images("unet", x)
    factor = 2 ** (len(config.widths) - 1)
    if any(size % factor for size in x.shape[1:3]):
        raise ValueError(
            f"unet: expected a height and width that {factor} divides, for {len(config.widths)} "
            f"widths, got {tuple(x.shape[1:3])}; pad or resize the images, or give fewer widths"
        )


def _expect_condition(x: Any, condition: Any) -> None:
    if condition is not None and (len(condition.shape) != 2 or condition.shape[0] != x.shape[0]):
        raise ValueError(
            f"unet: expected a condition of shape ({x.shape[0]}, features), got "
            f"{tuple(condition.shape)}; give one row for each example"
        )


check_exports(__name__)
