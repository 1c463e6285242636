"""The diffusion transformer: a ViT whose norms are conditioned on the time and the label.

B batch, H height, W width, C channels, P patch size, T = H W / P^2 tokens, E features.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers, nn
from fnn._arguments import check_exports
from fnn.activations import gelu_tanh, silu
from fnn.initializers import Initializer, lecun_normal, normal, zeros
from fnn.keys import fold_name
from fnn.layers._axes import expect_images
from fnn.layers.linear import broadcast
from fnn.models import transformer
from fnn.models._common import add_positions
from fnn.models.transformer import BlockConfig, Residual, apply_sublayer
from fnn.nn._base import stateless
from fnn.types import Model, Params, PRNGKey

__all__ = ["DiTConfig", "dit"]

_NORM = nn.layer_norm(eps=1e-6, scale=False, bias=False)  # the modulation scales and shifts


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Shapes and layers of a DiT; the defaults are DiT-S/2."""

    patch_size: int = 2  # P
    features: int = 384  # E
    num_layers: int = 12
    num_heads: int = 6
    mlp_ratio: int = 4  # hidden features of the MLP / E
    time_scale: float = 1000.0  # of t in [0, 1], before the sinusoids
    num_classes: int | None = None  # labels in [0, num_classes]; the last is the null label
    kernel_init: Initializer = lecun_normal()  # of the blocks
    table_init: Initializer = normal(0.02)  # of labels and positions
    scan: bool = False  # scan over stacked blocks: for many layers, on an accelerator

    @property
    def block(self) -> BlockConfig:
        """The config of each block."""
        return BlockConfig(
            num_heads=self.num_heads,
            hidden_features=self.mlp_ratio * self.features,
            mlp=partial(nn.feed_forward, activation=gelu_tanh),
            norm=_NORM,
            kernel_init=self.kernel_init,
        )


def dit(config: DiTConfig) -> Model:
    """A transformer over the patches of a noisy image, conditioned on the time and the label.

        c = mlp(sinusoids(time_scale t)) + label
        x = x + g sublayer((1 + a) norm(x) + b),   (a, b, g) = linear(silu(c)) of each sublayer

    Args:
      config: shapes and layers.

    Apply takes (x (B, H, W, C), t (B,)), or with num_classes (x, t, labels (B,)), and returns
    (B, H, W, C): 0 at first, because the head and the modulations are initialized to 0. Parameters:
    {'patches', 'positions', 'time', 'labels', 'blocks': [{'attention', ..., 'modulation'}, ...],
    'modulation', 'head'}; with `scan` the blocks are one tree whose leaves have a first axis.
    Raises: ValueError for inputs of another form, and for sizes that P does not divide.
    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3.2 (adaLN-Zero). Deviates: positions are
      learned; the paper has fixed sinusoids.

    >>> model = dit(DiTConfig(features=8, num_layers=1, num_heads=2))
    >>> x, t = jnp.ones((3, 4, 4, 1)), jnp.ones(3)
    >>> params, state = model.init(jax.random.key(0), (x, t))
    >>> model.apply(params, state, (x, t))[0].shape
    (3, 4, 4, 1)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        _expect_inputs(config, x)
        return _init(config, key, x[0].shape)

    def forward(params: Params, x: Any) -> Array:
        _expect_inputs(config, x)
        return _forward(config, params, *x)

    return stateless(init, forward)


def _init(config: DiTConfig, key: PRNGKey, shape: tuple[int, ...]) -> Params:
    e, pixels = config.features, config.patch_size**2 * shape[-1]
    named = partial(fold_name, key)

    def block_init(key: PRNGKey) -> Params:
        own = fold_name(key, "modulation")
        modulation = layers.linear_init(own, e, 6 * e, kernel_init=zeros)
        return {**transformer.block_init(config.block, key, e), "modulation": modulation}

    params = {
        "patches": layers.linear_init(named("patches"), pixels, e),
        "positions": layers.learned_positions_init(
            named("positions"),
            shape[1] * shape[2] // config.patch_size**2,
            e,
            table_init=config.table_init,
        ),
        "time": layers.feed_forward_init(named("time"), e, e),
        "blocks": transformer.stack_init(
            block_init, named("blocks"), config.num_layers, scan=config.scan
        ),
        "modulation": layers.linear_init(named("modulation"), e, 2 * e, kernel_init=zeros),
        "head": layers.linear_init(named("head"), e, pixels, kernel_init=zeros),
    }
    if config.num_classes is not None:
        params["labels"] = layers.embedding_init(
            named("labels"), config.num_classes + 1, e, table_init=config.table_init
        )
    return params


def _forward(config: DiTConfig, params: Params, x: Array, t: Array, labels: Any = None) -> Array:
    size = (config.patch_size, config.patch_size)
    condition = silu(_condition(config, params, t, labels))  # (B, E)
    patches = layers.patchify(x, size)  # (B, H/P, W/P, P P C)
    h = layers.linear(params["patches"], jax.lax.collapse(patches, 1, 3))
    h = add_positions(params["positions"], h)  # (B, T, E)

    def step(h: Array, i: Any, block: Params, carry: Any) -> tuple[Array, Any]:
        return _block(config.block, block, h, condition), carry

    h, _ = transformer.loop_over_blocks(step, h, params["blocks"])
    scale, shift = _modulation(params, condition, 2)
    h = broadcast(_affine, _NORM.apply({}, (), h)[0], scale, shift)
    return layers.unpatchify(layers.linear(params["head"], h).reshape(patches.shape), size)


def _condition(config: DiTConfig, params: Params, t: Array, labels: Any) -> Float[Array, "b e"]:
    waves = layers.sinusoidal_positions(config.time_scale * t, config.features, dtype=t.dtype)
    condition = layers.feed_forward(params["time"], waves, silu)
    return condition if labels is None else condition + layers.embedding(params["labels"], labels)


def _block(config: BlockConfig, params: Params, x: Array, condition: Array) -> Array:
    modulation = _modulation(params, condition, 6)
    sublayers = {
        "attention": (modulation[:3], transformer.self_attention(config, None)),
        "mlp": (modulation[3:], transformer.mlp(config)),
    }
    for name, (vectors, sublayer) in sublayers.items():
        own = replace(config, residual=_modulated(*vectors))
        x, _ = apply_sublayer(own, params, name, x, sublayer)
    return x


def _modulation(params: Params, condition: Array, n: int) -> list[Array]:
    """n vectors (B, 1, E)."""
    return jnp.split(layers.linear(params["modulation"], condition)[:, None], n, axis=-1)


def _modulated(scale: Array, shift: Array, gate: Array) -> Residual:
    """x + gate sublayer((1 + scale) norm(x) + shift)."""
    return Residual(
        before=lambda norm, x: broadcast(_affine, norm(x), scale, shift),
        after=lambda norm, x, y: broadcast(lambda x, y, g: x + g * y, x, y, gate),
    )


def _affine(x: Array, scale: Array, shift: Array) -> Array:
    return (1 + scale) * x + shift


def _expect_inputs(config: DiTConfig, x: Any) -> None:
    wanted = ("x", "t") if config.num_classes is None else ("x", "t", "labels")
    if not isinstance(x, tuple | list) or len(x) != len(wanted):
        raise ValueError(
            f"dit: expected ({', '.join(wanted)}) with x of shape (batch, height, width, "
            f"channels), because num_classes is {config.num_classes}, got "
            f"{jax.tree.map(jnp.shape, x)}; give the pair (x, t), or set num_classes for labels"
        )
    expect_images("dit", x[0])


check_exports(__name__)
