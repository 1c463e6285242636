"""The vision transformer.

B batch, H height, W width, C channels, E features, O outputs, L blocks.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers, nn
from fnn._arguments import check_exports
from fnn.expect import in_layer, within
from fnn.initializers import Initializer, lecun_normal, normal, zeros
from fnn.keys import fold_name
from fnn.layers.linear import plus_row
from fnn.models import transformer
from fnn.models._common import expect_divisible, patch_embedding, stochastic
from fnn.models.transformer import BlockConfig
from fnn.types import Model, Params, PRNGKey, Scalar

__all__ = ["ViTConfig", "vit", "vit_base", "vit_features"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Shapes and layers of a vision transformer."""

    patch_size: int  # height and width of a patch, in pixels
    features: int  # E
    num_layers: int  # L
    out_features: int  # O
    block: BlockConfig
    class_token: bool = True  # input of the head; without it, the mean of the patches
    scan: bool = False  # scan over stacked blocks: for many layers, on an accelerator
    patch_init: Initializer = lecun_normal()
    table_init: Initializer = normal(0.02)  # of the positions and the class token
    head_init: Initializer = zeros


def vit_base(
    *,
    patch_size: int = 16,
    features: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    hidden_features: int | None = None,
    out_features: int = 1000,
    class_token: bool = True,
    eps: float = 1e-6,
    scan: bool = False,
) -> ViTConfig:
    """ViT; the defaults are ViT-B/16, with 86,567,656 parameters for images of 224 x 224 x 3.

    Args:
      hidden_features: of the MLPs; 4 E if None.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1 and table 1. Deviates: the
      kernels of the blocks are normal with std 0.02; theirs are scaled by fan-in and fan-out.

    >>> vit_base(features=64).block.hidden_features
    256
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=4 * features if hidden_features is None else hidden_features,
        norm=nn.layer_norm(eps=eps),
    )
    return ViTConfig(
        patch_size=patch_size,
        features=features,
        num_layers=num_layers,
        out_features=out_features,
        block=block,
        class_token=class_token,
        scan=scan,
    )


@within(rate="[0, 1]")
def vit(config: ViTConfig, *, rate: Scalar = 0.0) -> Model:
    """A transformer over the patches of an image, and a linear head.

        h = [class, conv(x)] + positions,  h = block_i(h) for each i,  y = head(norm(h)_0)

    Args:
      config: `vit_base(...)`, or your own.
      rate: dropout rate of the embeddings, the attention weights and the sublayers' outputs; may be
        traced. A plain 0 disables dropout.

    Apply takes x (B, H, W, C) and returns (B, O). Parameters: {'patch': {'kernel', 'bias'},
    'positions': {'table'}, 'class': (E,), 'blocks': [{'attention', ...}, ...], 'norm', 'head'}; no
    class without a class token, and with `scan` the blocks are one tree whose leaves have a first
    axis of L.
    Raises: ValueError for x of another shape, and for sizes that the patch size does not divide.

    >>> model = vit(vit_base(patch_size=2, features=4, num_layers=1, num_heads=2, out_features=3))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4, 6, 1)))
    >>> params['positions']['table'].shape
    (7, 4)
    >>> model.apply(params, state, jnp.zeros((5, 4, 6, 1)))[0].shape
    (5, 3)
    """

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> Array:
        h = vit_features(config, params, x, rate=rate, key=key, train=train)
        return layers.linear(params["head"], h[:, 0] if config.class_token else h.mean(axis=1))

    return stochastic(lambda key, x: _init(config, key, x), forward)


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
    """The tokens (B, T, E) of `vit` after the last norm, with the class token first.

    Raises: as `vit`.

    >>> config = vit_base(patch_size=2, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 4, 4, 1))
    >>> params, _ = jax.eval_shape(vit(config).init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params: vit_features(config, params, x), params).shape
    (1, 5, 4)
    """
    _expect_images(config, x)
    dropout = transformer.make_dropout("vit", rate, key, train)
    h = dropout("tokens", _embed(config, params, x))
    h = transformer.apply_blocks(config.block, params["blocks"], h, None, dropout)
    return transformer.normalize(config.block, params, "norm", h)


def _embed(config: ViTConfig, params: Params, x: Array) -> Array:
    with in_layer(("patch",), x):
        patches, _ = _patches(config).apply(params["patch"], (), x)
    tokens = jax.lax.collapse(patches, 1, 3)
    if config.class_token:
        first = plus_row(jnp.zeros_like(tokens[:, :1]), params["class"])
        tokens = jnp.concatenate([first, tokens], axis=1)
    table = params["positions"]["table"]
    if tokens.shape[1] != len(table):
        raise ValueError(
            f"vit: expected an image of {len(table)} tokens, got {tokens.shape[1]} from "
            f"{x.shape}; resize it to the size that the positions were made for"
        )
    return plus_row(tokens, table)


def _patches(config: ViTConfig) -> Model:
    return patch_embedding(config.features, config.patch_size, config.patch_init)


def _init(config: ViTConfig, key: PRNGKey, x: Any) -> Params:
    _expect_images(config, x)
    size, features, block = config.patch_size, config.features, config.block
    params = {
        "patch": _patches(config).init(fold_name(key, "patch"), x)[0],
        "positions": layers.learned_positions_init(
            fold_name(key, "positions"),
            (x.shape[1] // size) * (x.shape[2] // size) + config.class_token,
            features,
            table_init=config.table_init,
        ),
        "blocks": transformer.blocks_init(
            block, fold_name(key, "blocks"), features, config.num_layers, config.scan
        ),
        **transformer.norm_init(block, key, "norm", features),
        "head": layers.linear_init(
            fold_name(key, "head"), features, config.out_features, kernel_init=config.head_init
        ),
    }
    if config.class_token:
        params["class"] = config.table_init(fold_name(key, "class"), (features,))
    return params


def _expect_images(config: ViTConfig, x: Any) -> None:
    expect_divisible("vit", x, config.patch_size, "use another patch_size")


check_exports(__name__)
