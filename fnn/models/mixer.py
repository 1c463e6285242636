"""The MLP-Mixer: tokens and channels mixed in turn, with neither convolution nor attention.

B batch, H height, W width, I inputs, T tiles, C channels, O outputs.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from fnn.arguments import check_exports
from fnn.expect import within
from fnn.initializers import Initializer, lecun_normal
from fnn.layers._axes import expect_images
from fnn.nn import (
    Layer,
    conv,
    dropout,
    feed_forward,
    global_average_pool,
    layer_norm,
    linear,
    residual,
    sequential,
    stack,
)
from fnn.types import Model, Scalar

__all__ = ["MixerConfig", "mixer"]


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """What fixes the shapes and the parts of an MLP-Mixer; the defaults are those of B/16."""

    out_features: int = 1000  # O
    patch: int = 16  # side of a tile, in pixels
    features: int = 768  # C
    num_layers: int = 12
    token_features: int = 384  # hidden, of the part that mixes the tiles
    channel_features: int = 3072  # hidden, of the part that mixes the channels
    norm: Layer = layer_norm(eps=1e-6)
    scan: bool = False  # one block compiled and looped over: for many layers, on an accelerator
    kernel_init: Initializer = lecun_normal()
    head_init: Initializer = lecun_normal()


@within(rate="[0, 1]")
def mixer(config: MixerConfig, *, rate: Scalar = 0.0) -> Model:
    """Tiles of the image as rows of a table, whose columns and rows are mixed in turn.

        h <- h + tokens(norm(h)^T)^T,   h <- h + channels(norm(h))   for each block

    Args:
      config: shapes and parts.
      rate: drop probability of what each part adds; may be traced.

    Apply takes x (B, H, W, I) and returns (B, O). For three channels of 224 x 224 pixels the
    default has 59,880,472 parameters: {'patches', 'blocks': [{'tokens', 'channels'}, ...], 'norm',
    'head'}, each part {'norm', 'mlp': {'up', 'down'}}; with `scan` the blocks are one tree whose
    leaves have a first axis of num_layers.
    Raises: ValueError for sizes that the tiles do not divide, and for x without its four axes.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601, section 2. Deviates: dropout ends each part,
      where the paper drops whole parts, more of them with the depth.

    >>> model = mixer(MixerConfig(patch=4, features=8, num_layers=2, token_features=4,
    ...                           channel_features=16, out_features=3))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> params['blocks'][1]['tokens']['mlp']['up']['kernel'].shape
    (4, 4)
    """
    one = _block(config, rate)
    n = config.num_layers
    model = sequential(
        patches=conv(
            config.features,
            (config.patch, config.patch),
            stride=config.patch,
            kernel_init=config.kernel_init,
        ),
        rows=_rows,  # (B, H / patch, W / patch, C) -> (B, T, C)
        blocks=stack(one, n) if config.scan else sequential(*[one] * n),
        norm=config.norm,
        pool=global_average_pool(),  # -> (B, C)
        head=linear(config.out_features, kernel_init=config.head_init),
    )

    def init(key, x):
        _expect_tiles(config, x)
        return model.init(key, x)

    def apply(params, model_state, x, *, key=None, train=False):
        _expect_tiles(config, x)
        return model.apply(params, model_state, x, key=key, train=train)

    return Model(init=init, apply=apply)


def _block(config: MixerConfig, rate: Scalar) -> Model:
    def part(hidden: int) -> Model:
        return feed_forward(hidden, kernel_init=config.kernel_init)

    tokens = sequential(
        norm=config.norm,
        columns=_swapped,  # (B, T, C) -> (B, C, T)
        mlp=part(config.token_features),
        rows=_swapped,
        dropout=dropout(rate),
    )
    channels = sequential(
        norm=config.norm, mlp=part(config.channel_features), dropout=dropout(rate)
    )
    return sequential(tokens=residual(tokens), channels=residual(channels))


def _rows(x: Any) -> Any:
    return lax.collapse(x, 1, x.ndim - 1)


def _swapped(x: Any) -> Any:
    return jnp.swapaxes(x, 1, 2)


def _expect_tiles(config: MixerConfig, x: Any) -> None:
    expect_images("mixer", x)
    if any(size % config.patch for size in x.shape[1:3]):
        raise ValueError(
            f"mixer: expected a height and width that the patch {config.patch} divides, got "
            f"{tuple(x.shape[1:3])}; resize or pad the images, or give another patch"
        )


check_exports(__name__)
