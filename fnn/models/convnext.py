"""ConvNeXt: a convolutional network with the proportions of a transformer.

B batch, H height, W width, I inputs, C channels, O outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fnn.arguments import check_exports
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.initializers import Initializer, constant, truncated_normal
from fnn.keys import fold_name
from fnn.layers._axes import expect_images
from fnn.layers._normalization import affine
from fnn.nn import (
    Layer,
    conv,
    depthwise_conv,
    drop_path,
    feed_forward,
    global_average_pool,
    layer_norm,
    linear,
    residual,
    sequential,
)
from fnn.nn._shape import features_of
from fnn.types import Model, Scalar

__all__ = ["ConvNeXtConfig", "convnext"]


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """What fixes the shapes and the parts of a ConvNeXt; the defaults are those of the Tiny."""

    out_features: int = 1000  # O
    depths: tuple[int, ...] = (3, 3, 9, 3)  # blocks of each stage
    widths: tuple[int, ...] = (96, 192, 384, 768)  # C of each stage
    patch: int = 4  # side of the tiles that the stem cuts
    window: int = 7  # height and width of the depthwise kernels, odd
    growth: int = 4  # hidden features of a block's feed-forward part for each C
    mlp: Callable[..., Model] = feed_forward  # or a partial with another activation
    norm: Layer = layer_norm(eps=1e-6)
    kernel_init: Initializer = truncated_normal(0.02)
    branch_scale: Initializer = constant(1e-6)  # of the factor of each feature at a branch's end


@within(rate="[0, 1]")
def convnext(config: ConvNeXtConfig, *, rate: Scalar = 0.0) -> Model:
    """Tiles, then stages of blocks, each on half the height and width of the one before.

        h <- h + scale mlp(norm(depthwise(h)))   for each block

    Args:
      config: shapes and parts.
      rate: share of the examples that pass the last block's branch by while training; it grows
        evenly with the depth, from 0 at the first block. May be traced.

    Apply takes x (B, H, W, I) and returns (B, O). The default has 28,589,128 parameters for three
    channels: {'stages': [{'entry', 'blocks': [block, ...]}, ...], 'norm', 'head'}, where an entry
    has 'conv' and 'norm' and a block is {'depthwise', 'norm', 'mlp': {'up', 'down'}, 'scale'}.
    Raises: ValueError for sizes that are no multiple of the last stage's tiles, for x without its
      four axes, and for stages without blocks.
    Source: Liu et al. 2022, arXiv:2201.03545, section 2 and appendix A.

    >>> model = convnext(ConvNeXtConfig(depths=(1, 1), widths=(4, 8), out_features=3))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    >>> params['stages'][1]['blocks'][0]['mlp']['up']['kernel'].shape
    (8, 32)
    """
    if not config.depths or min(config.depths) < 1 or len(config.depths) != len(config.widths):
        raise ValueError(
            f"convnext: expected the blocks and the width of each stage, got depths "
            f"{config.depths} and widths {config.widths}; give as many of both, each above 0"
        )
    rates = _rising(rate, config.depths)
    model = sequential(
        stages=sequential(*(_stage(config, i, rates[i]) for i in range(len(config.depths)))),
        pool=global_average_pool(),  # (B, H, W, C) -> (B, C)
        norm=config.norm,
        head=linear(config.out_features, kernel_init=config.kernel_init),
    )

    def init(key, x):
        _expect_tiles(config, x)
        return model.init(key, x)

    def apply(params, model_state, x, *, key=None, train=False):
        _expect_tiles(config, x)
        return model.apply(params, model_state, x, key=key, train=train)

    return Model(init=init, apply=apply)


def _rising(rate: Scalar, depths: tuple[int, ...]) -> list[list[Scalar]]:
    """For each block of each stage its share of `rate`."""
    last = max(sum(depths) - 1, 1)
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [
        [rate * ((start + i) / last) for i in range(depth)]
        for start, depth in zip(starts, depths, strict=True)
    ]


def _stage(config: ConvNeXtConfig, i: int, rates: list[Scalar]) -> Model:
    width = config.widths[i]
    if i == 0:
        entry = sequential(conv=_tiles(config, width, config.patch), norm=config.norm)
    else:
        entry = sequential(norm=config.norm, conv=_tiles(config, width, 2))
    return sequential(entry=entry, blocks=sequential(*(_block(config, width, r) for r in rates)))


def _tiles(config: ConvNeXtConfig, features: int, side: int) -> Model:
    return conv(features, (side, side), stride=side, kernel_init=config.kernel_init)


def _block(config: ConvNeXtConfig, width: int, rate: Scalar) -> Model:
    branch = sequential(
        depthwise=depthwise_conv((config.window,) * 2, kernel_init=config.kernel_init),
        norm=config.norm,
        mlp=config.mlp(config.growth * width, kernel_init=config.kernel_init),
        scale=_feature_scale(config.branch_scale),
        drop_path=drop_path(rate),
    )
    return residual(branch)


def _feature_scale(scale_init: Initializer) -> Model:
    """x times a factor for each feature (Touvron et al. 2021, arXiv:2103.17239, equation 4)."""

    def init(key, x):
        return {"scale": scale_init(fold_name(key, "scale"), (features_of("convnext", x),))}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        wide = x.astype(at_least_float32(x))
        return affine(params, wide).astype(x.dtype), model_state

    return Model(init=init, apply=apply)


def _expect_tiles(config: ConvNeXtConfig, x: Any) -> None:
    expect_images("convnext", x)
    side = config.patch * 2 ** (len(config.widths) - 1)
    if any(size % side for size in x.shape[1:3]):
        raise ValueError(
            f"convnext: expected a height and width that {side} divides, got "
            f"{tuple(x.shape[1:3])}; resize or pad the images, or give smaller patches"
        )


check_exports(__name__)
