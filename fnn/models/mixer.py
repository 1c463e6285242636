"""The MLP-Mixer: MLPs over patches and over channels in turn, without convolution or attention.

B batch, H height, W width, I inputs, T patches, C channels, O outputs.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from fnn import nn
from fnn._arguments import check_exports
from fnn.expect import within
from fnn.initializers import Initializer, lecun_normal
from fnn.models._common import expect_divisible, patch_embedding, with_check
from fnn.types import Model, Scalar

__all__ = ["MixerConfig", "mixer"]


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """Shapes and layers of an MLP-Mixer; the defaults are Mixer-B/16."""

    out_features: int = 1000  # O
    patch_size: int = 16  # height and width of a patch, in pixels
    features: int = 768  # C
    num_layers: int = 12
    token_features: int = 384  # hidden features of the MLP over patches
    channel_features: int = 3072  # hidden features of the MLP over channels
    norm: nn.Layer = nn.layer_norm(eps=1e-6)
    scan: bool = False  # scan over stacked blocks: for many layers, on an accelerator
    kernel_init: Initializer = lecun_normal()
    head_init: Initializer = lecun_normal()


@within(rate="[0, 1]")
def mixer(config: MixerConfig, *, rate: Scalar = 0.0) -> Model:
    """Token-mixing and channel-mixing MLPs on the patches of an image, and a linear head.

        h <- h + tokens(norm(h)^T)^T,   h <- h + channels(norm(h))   for each block

    Args:
      config: shapes and layers.
      rate: dropout rate of each MLP's output; may be traced.

    Apply takes x (B, H, W, I) and returns (B, O). Parameters (59,880,472 by default, for images of
    224 x 224 x 3): {'patches', 'blocks': [{'tokens', 'channels'}, ...], 'norm', 'head'}, where
    tokens and channels are {'norm', 'mlp': {'up', 'down'}}; with `scan` the blocks are one tree
    whose leaves have a first axis of num_layers.
    Raises: ValueError for x of another shape, and for sizes that the patch size does not divide.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601, section 2. Deviates: dropout of each MLP's
      output; the paper has stochastic depth, with a rate that grows with depth.

    >>> model = mixer(MixerConfig(patch_size=4, features=8, num_layers=2, token_features=4,
    ...                           channel_features=16, out_features=3))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> params['blocks'][1]['tokens']['mlp']['up']['kernel'].shape
    (4, 4)
    """
    block, n, size = _block(config, rate), config.num_layers, config.patch_size
    model = nn.sequential(
        patches=patch_embedding(config.features, size, config.kernel_init),
        rows=lambda x: lax.collapse(x, 1, 3),  # (B, H / patch_size, W / patch_size, C) -> (B, T, C)
        blocks=nn.stack(block, n) if config.scan else nn.sequential(*[block] * n),
        norm=config.norm,
        pool=nn.global_average_pool(),  # -> (B, C)
        head=nn.linear(config.out_features, kernel_init=config.head_init),
    )
    check = partial(expect_divisible, "mixer", factor=size, remedy="use another patch_size")
    return with_check(model, check)


def _block(config: MixerConfig, rate: Scalar) -> Model:
    mlp = partial(nn.feed_forward, kernel_init=config.kernel_init)
    tokens = nn.sequential(
        norm=config.norm,
        columns=_transpose,  # (B, T, C) -> (B, C, T)
        mlp=mlp(config.token_features),
        rows=_transpose,
        dropout=nn.dropout(rate),
    )
    channels = nn.sequential(
        norm=config.norm, mlp=mlp(config.channel_features), dropout=nn.dropout(rate)
    )
    return nn.sequential(tokens=nn.residual(tokens), channels=nn.residual(channels))


def _transpose(x: Any) -> Any:
    return jnp.swapaxes(x, 1, 2)


check_exports(__name__)
