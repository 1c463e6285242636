"""The vision transformer. B batch, T tokens, E features, O outputs, L blocks."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers
from fnn.arguments import check_exports
from fnn.expect import in_layer, within
from fnn.initializers import Initializer, lecun_normal, normal, zeros
from fnn.keys import fold_name
from fnn.layers._axes import expect_images
from fnn.layers.linear import plus_row
from fnn.models import transformer
from fnn.models.transformer import BlockConfig
from fnn.nn import layer_norm
from fnn.types import Model, Params, PRNGKey, Scalar

__all__ = ["ViTConfig", "vit", "vit_base", "vit_features"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """What fixes the shapes and the parts of a vision transformer."""

    patch: int  # height and width of a tile, in pixels
    features: int  # E
    num_layers: int  # L
    out_features: int  # O
    block: BlockConfig
    class_token: bool = True  # the head reads a token of its own; without, the mean of the tiles
    scan: bool = False  # one block compiled and looped over: for many layers, on an accelerator
    patch_init: Initializer = lecun_normal()
    table_init: Initializer = normal(0.02)  # of the positions and the class token
    head_init: Initializer = zeros


def vit_base(
    *,
    patch: int = 16,
    features: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    hidden_features: int | None = None,
    out_features: int = 1000,
    class_token: bool = True,
    eps: float = 1e-6,
    scan: bool = False,
) -> ViTConfig:
    """The architecture of ViT; the defaults are ViT-B/16, 86,567,656 for images of 224 x 224.

    Args:
      hidden_features: of the feed-forward parts; 4 E if None.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1 and table 1. Deviates: the
      kernels of the blocks are normal with std 0.02, where its authors draw them by their fans.

    >>> vit_base(features=64).block.hidden_features
    256
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=4 * features if hidden_features is None else hidden_features,
        norm=layer_norm(eps=eps),
    )
    return ViTConfig(
        patch=patch,
        features=features,
        num_layers=num_layers,
        out_features=out_features,
        block=block,
        class_token=class_token,
        scan=scan,
    )


@within(rate="[0, 1]")
def vit(config: ViTConfig, *, rate: Scalar = 0.0) -> Model:
    """Tiles of an image as tokens, a transformer over them, and a linear head.

        h = [class, conv(x)] + positions,  h = block_i(h) for each i,  y = head(norm(h)_0)

    Args:
      config: `vit_base(...)`, or one of your own.
      rate: drop probability of the embedding, the attention weights and what each part of a block
        makes; may be traced. A plain 0 leaves dropout out.

    Apply takes images (B, height, width, channels), whose tiles have a position each: of the size
    that init saw. It returns (B, O). Parameters: {'patch': {'kernel': (patch, patch, channels, E),
    'bias'}, 'class': (E,), 'positions': {'table': (T, E)}, 'blocks': [...], 'norm', 'head'}; no
    class without a class token, and with `scan` the blocks are one tree whose leaves have a first
    axis of L.
    Raises: ValueError for x of another shape, or of a size that the tiles do not divide.

    >>> model = vit(vit_base(patch=2, features=4, num_layers=1, num_heads=2, out_features=3))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4, 6, 1)))
    >>> params['positions']['table'].shape
    (7, 4)
    >>> model.apply(params, state, jnp.zeros((5, 4, 6, 1)))[0].shape
    (5, 3)
    """

    def init(key, x):
        return _init(config, key, x), ()

    def apply(params, model_state, x, *, key=None, train=False):
        tokens = vit_features(config, params, x, rate=rate, key=key, train=train)
        read = tokens[:, 0] if config.class_token else tokens.mean(axis=1)
        return layers.linear(params["head"], read), model_state

    return Model(init=init, apply=apply)


@within(rate="[0, 1]")
def vit_features(
    config: ViTConfig,
    params: Params,
    x: Float[Array, "b height width channels"],
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b t e"]:
    """What the head of `vit` chooses from: (B, T, E) after the last norm, the class token first.

    Raises: as `vit`.

    >>> config = vit_base(patch=2, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 4, 4, 1))
    >>> params, _ = jax.eval_shape(vit(config).init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params: vit_features(config, params, x), params).shape
    (1, 5, 4)
    """
    _expect_images(config, x)
    drop = transformer.dropper("vit", rate, key, train)
    h = transformer.seeing_blocks(
        "vit",
        config.block,
        params["blocks"],
        drop("tokens", _embed(config, params, x)),
        None,
        rate=rate,
        key=key,
        train=train,
    )
    with in_layer(("norm",), h):
        return config.block.norm.apply(params["norm"], (), h)[0]


def _embed(config: ViTConfig, params: Params, x: Array) -> Array:
    with in_layer(("patch",), x):
        tiles = layers.conv(params["patch"], x, stride=config.patch, padding=layers.Padding.VALID)
    tokens = jax.lax.collapse(tiles, 1, 3)
    if config.class_token:
        first = plus_row(jnp.zeros_like(tokens[:, :1]), params["class"])
        tokens = jnp.concatenate([first, tokens], axis=1)
    table = params["positions"]["table"]
    if tokens.shape[1] != len(table):
        raise ValueError(
            f"vit: expected an image of {len(table)} tokens, got {tokens.shape[1]} from "
            f"{x.shape}; resize it to what the positions were made for"
        )
    return plus_row(tokens, table)


def _init(config: ViTConfig, key: PRNGKey, x: Any) -> Params:
    _expect_images(config, x)
    like = jax.ShapeDtypeStruct((1, 1, config.features), jnp.float32)
    tiles = (x.shape[1] // config.patch) * (x.shape[2] // config.patch)
    window, block = (config.patch, config.patch), config.block
    params = {
        "patch": layers.conv_init(
            fold_name(key, "patch"),
            x.shape[-1],
            config.features,
            window,
            kernel_init=config.patch_init,
        ),
        "positions": layers.learned_positions_init(
            fold_name(key, "positions"),
            tiles + config.class_token,
            config.features,
            table_init=config.table_init,
        ),
        "blocks": transformer.stack_init(
            lambda key: transformer.block_init(block, key, like),
            fold_name(key, "blocks"),
            config.num_layers,
            scan=config.scan,
        ),
        "norm": block.norm.init(fold_name(key, "norm"), like)[0],
        "head": layers.linear_init(
            fold_name(key, "head"),
            config.features,
            config.out_features,
            kernel_init=config.head_init,
        ),
    }
    if config.class_token:
        params["class"] = config.table_init(fold_name(key, "class"), (config.features,))
    return params


def _expect_images(config: ViTConfig, x: Any) -> None:
    expect_images("vit", x)
    if x.shape[1] % config.patch or x.shape[2] % config.patch:
        raise ValueError(
            f"vit: expected a height and a width that {config.patch} divides, got {x.shape[1:3]}; "
            "crop or resize the images, or choose another patch"
        )


check_exports(__name__)
