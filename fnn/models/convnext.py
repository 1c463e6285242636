"""ConvNeXt: a convolutional network with the proportions of a transformer.

B batch, H height, W width, I inputs, C channels, O outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fnn import nn
from fnn._arguments import check_exports
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.initializers import Initializer, constant, truncated_normal
from fnn.keys import fold_name
from fnn.layers._normalization import affine
from fnn.models._common import (
    expect_divisible,
    expect_stages,
    patch_embedding,
    with_check,
)
from fnn.nn._base import stateless
from fnn.types import Model, Scalar

__all__ = ["ConvNeXtConfig", "convnext"]


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """Shapes and layers of a ConvNeXt; the defaults are ConvNeXt-T."""

    out_features: int = 1000  # O
    depths: tuple[int, ...] = (3, 3, 9, 3)  # blocks of each stage
    widths: tuple[int, ...] = (96, 192, 384, 768)  # C of each stage
    patch_size: int = 4  # of the stem
    kernel_size: int = 7  # height and width of the depthwise kernels, odd
    mlp_ratio: int = 4  # hidden features of the MLP / C
    mlp: Callable[..., Model] = nn.feed_forward  # or a partial with another activation
    norm: nn.Layer = nn.layer_norm(eps=1e-6)
    kernel_init: Initializer = truncated_normal(0.02)
    layer_scale_init: Initializer = constant(1e-6)  # of the scale at the end of each branch


@within(rate="[0, 1]")
def convnext(config: ConvNeXtConfig, *, rate: Scalar = 0.0) -> Model:
    """A patch embedding, then stages of blocks, each at half the resolution of the one before.

        h <- h + scale mlp(norm(depthwise(h)))   for each block

    Args:
      config: shapes and layers.
      rate: stochastic depth rate of the last block, growing linearly from 0 at the first; may be
        traced.

    Apply takes x (B, H, W, I) and returns (B, O). Parameters (28,589,128 by default, for three
    channels): {'stages': [{'entry': {'conv', 'norm'}, 'blocks': [block, ...]}, ...], 'norm',
    'head'}, where a block is {'depthwise', 'norm', 'mlp': {'up', 'down'}, 'scale'}.
    Raises: ValueError for x of another shape, for sizes that the total stride does not divide, and
      for stages without blocks.
    Source: Liu et al. 2022, arXiv:2201.03545, section 2 and appendix A.

    >>> model = convnext(ConvNeXtConfig(depths=(1, 1), widths=(4, 8), out_features=3))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    >>> params['stages'][1]['blocks'][0]['mlp']['up']['kernel'].shape
    (8, 32)
    """
    depths, widths = config.depths, config.widths
    expect_stages("convnext", depths, widths)
    rates = _depth_rates(rate, depths)
    model = nn.sequential(
        stages=nn.sequential(*(_stage(config, i, rates[i]) for i in range(len(depths)))),
        pool=nn.global_average_pool(),  # (B, H, W, C) -> (B, C)
        norm=config.norm,
        head=nn.linear(config.out_features, kernel_init=config.kernel_init),
    )
    stride = config.patch_size * 2 ** (len(widths) - 1)
    check = partial(expect_divisible, "convnext", factor=stride, remedy="use a smaller patch_size")
    return with_check(model, check)


def _depth_rates(rate: Scalar, depths: tuple[int, ...]) -> list[list[Scalar]]:
    """Rates from 0 at the first block to `rate` at the last, by stage."""
    last = max(sum(depths) - 1, 1)
    rates = iter([rate * (i / last) for i in range(sum(depths))])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def _stage(config: ConvNeXtConfig, i: int, rates: list[Scalar]) -> Model:
    width = config.widths[i]
    conv = patch_embedding(width, config.patch_size if i == 0 else 2, config.kernel_init)
    entry = {"conv": conv, "norm": config.norm} if i == 0 else {"norm": config.norm, "conv": conv}
    blocks = nn.sequential(*(_block(config, width, rate) for rate in rates))
    return nn.sequential(entry=nn.sequential(**entry), blocks=blocks)


def _block(config: ConvNeXtConfig, width: int, rate: Scalar) -> Model:
    branch = nn.sequential(
        depthwise=nn.depthwise_conv((config.kernel_size,) * 2, kernel_init=config.kernel_init),
        norm=config.norm,
        mlp=config.mlp(config.mlp_ratio * width, kernel_init=config.kernel_init),
        scale=_layer_scale(config.layer_scale_init),
        drop_path=nn.drop_path(rate),
    )
    return nn.residual(branch)


def _layer_scale(scale_init: Initializer) -> Model:
    """x times a scale for each feature (Touvron et al. 2021, arXiv:2103.17239, equation 4)."""

    return stateless(
        lambda key, x: {"scale": scale_init(fold_name(key, "scale"), x.shape[-1:])},
        lambda params, x: affine(params, x.astype(at_least_float32(x)), x.dtype).astype(x.dtype),
    )


check_exports(__name__)
