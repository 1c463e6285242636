"""The diffusion transformer: a ViT whose norms are steered by the time and the label.

B batch, H W sizes, C channels, P patch, T = H W / P^2 tokens, E features.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers
from fnn.activations import gelu_tanh, silu
from fnn.arguments import check_exports
from fnn.initializers import Initializer, lecun_normal, normal, zeros
from fnn.keys import fold_name
from fnn.layers._axes import expect_images
from fnn.layers.linear import broadcast, plus_row
from fnn.models import transformer
from fnn.models.transformer import Arrange, BlockConfig
from fnn.nn import feed_forward, layer_norm
from fnn.types import Model, Params, PRNGKey

__all__ = ["DiTConfig", "dit"]

_NORM = layer_norm(eps=1e-6, scale=False, bias=False)  # the steering gives scale and shift


def _feed_forward(hidden_features: int, **parts: Any) -> Model:
    return feed_forward(hidden_features, gelu_tanh, **parts)


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """What fixes the shapes and the parts of a DiT."""

    patch: int = 2  # P
    features: int = 384  # E
    num_layers: int = 12
    num_heads: int = 6
    hidden_ratio: int = 4  # hidden features of the feed-forward part, in E
    time_scale: float = 1000.0  # of t in [0, 1] for the sinusoids: the steps of the first models
    classes: int | None = None  # labels in [0, classes]; the last is for "no label". None for none
    kernel_init: Initializer = lecun_normal()  # of the blocks
    table_init: Initializer = normal(0.02)  # of labels and positions
    scan: bool = False  # one block compiled and looped over: for many layers, on an accelerator

    @property
    def block(self) -> BlockConfig:
        """Attention and feed-forward part of each block."""
        return BlockConfig(
            num_heads=self.num_heads,
            hidden_features=self.hidden_ratio * self.features,
            mlp=_feed_forward,
            norm=_NORM,
            kernel_init=self.kernel_init,
        )


def dit(config: DiTConfig) -> Model:
    """A transformer over the patches of a noisy image, told the time and the label.

        c = mlp(sinusoids(time_scale t)) + label
        x = x + g part((1 + a) norm(x) + b),   (a, b, g) = linear(silu(c)) of each part of a block

    Args:
      config: shapes and parts; the defaults are DiT-S/2.

    Apply takes (x (B, H, W, C), t (B,)), or with classes (x, t, labels (B,)), and returns
    (B, H, W, C): 0 at first, because the head and what steers begin with 0. Parameters: {'patches',
    'positions', 'time', 'labels', 'blocks': [{'attention', ..., 'steer'}], 'steer', 'head'}; with
    `scan` the blocks are one tree whose leaves have a first axis.
    Raises: ValueError for inputs of another form, or sizes that P does not divide.
    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3.2 (adaLN-Zero). Deviates: positions are
      learned, where the paper has fixed sinusoids.

    >>> model = dit(DiTConfig(features=8, num_layers=1, num_heads=2))
    >>> x, t = jnp.ones((3, 4, 4, 1)), jnp.ones(3)
    >>> params, state = model.init(jax.random.key(0), (x, t))
    >>> model.apply(params, state, (x, t))[0].shape
    (3, 4, 4, 1)
    """

    def init(key, x):
        _expect_inputs(config, x)
        return _init(config, key, x[0].shape), ()

    def apply(params, model_state, x, *, key=None, train=False):
        _expect_inputs(config, x)
        return _forward(config, params, *x), model_state

    return Model(init=init, apply=apply)


def _init(config: DiTConfig, key: PRNGKey, shape: tuple[int, ...]) -> Params:
    e, pixels = config.features, config.patch**2 * shape[-1]
    tokens = shape[1] * shape[2] // config.patch**2
    named = lambda name: fold_name(key, name)  # noqa: E731
    params = {
        "patches": layers.linear_init(named("patches"), pixels, e),
        "positions": layers.learned_positions_init(
            named("positions"), tokens, e, table_init=config.table_init
        ),
        "time": layers.feed_forward_init(named("time"), e, e),
        "blocks": transformer.stack_init(
            lambda key: _block_init(config, key),
            named("blocks"),
            config.num_layers,
            scan=config.scan,
        ),
        "steer": layers.linear_init(named("steer"), e, 2 * e, kernel_init=zeros),
        "head": layers.linear_init(named("head"), e, pixels, kernel_init=zeros),
    }
    if config.classes is not None:
        params["labels"] = layers.embedding_init(
            named("labels"), config.classes + 1, e, table_init=config.table_init
        )
    return params


def _block_init(config: DiTConfig, key: PRNGKey) -> Params:
    e = config.features
    like = jax.ShapeDtypeStruct((1, 1, e), jnp.float32)
    block = transformer.block_init(config.block, key, like)
    return {
        **block,
        "steer": layers.linear_init(fold_name(key, "steer"), e, 6 * e, kernel_init=zeros),
    }


def _forward(config: DiTConfig, params: Params, x: Array, t: Array, labels: Any = None) -> Array:
    tile = (config.patch, config.patch)
    told = silu(_condition(config, params, t, labels))  # (B, E)
    tiles = layers.patchify(x, tile)  # (B, H/P, W/P, P P C)
    h = layers.linear(params["patches"], jax.lax.collapse(tiles, 1, 3))
    h = plus_row(h, layers.learned_positions(params["positions"], h.shape[1]))  # (B, T, E)

    def step(h: Array, i: Any, own: Params, carry: Any) -> tuple[Array, Any]:
        return _block(config.block, own, h, told), carry

    h, _ = transformer.over_depth(step, h, params["blocks"])
    scale, shift = _steer(params["steer"], told, 2)
    h = broadcast(_affine, _NORM.apply({}, (), h)[0], scale, shift)
    return layers.unpatchify(layers.linear(params["head"], h).reshape(tiles.shape), tile)


def _condition(config: DiTConfig, params: Params, t: Array, labels: Any) -> Float[Array, "b e"]:
    waves = layers.sinusoidal_positions(config.time_scale * t, config.features, dtype=t.dtype)
    told = layers.feed_forward(params["time"], waves, silu)
    return told if labels is None else told + layers.embedding(params["labels"], labels)


def _block(config: BlockConfig, params: Params, x: Array, told: Array) -> Array:
    a, b, g, c, d, f = _steer(params["steer"], told, 6)
    mlp = lambda own, x, carry: (config.feed_forward.apply(own, (), x)[0], carry)  # noqa: E731
    parts = {
        "attention": (steered(a, b, g), transformer.seeing(config, None)),
        "mlp": (steered(c, d, f), mlp),
    }
    for name, (arrange, work) in parts.items():
        own = replace(config, arrange=arrange)
        x, _ = transformer.part(own, params, name, x, work, (), transformer.keep)
    return x


def _steer(params: Params, told: Array, n: int) -> list[Array]:
    """n vectors for each example, (B, 1, E) each."""
    return jnp.split(layers.linear(params, told)[:, None], n, axis=-1)


def steered(scale: Any, shift: Any, gate: Any) -> Arrange:
    """x + gate part((1 + scale) norm(x) + shift), for a block of `transformer`.

    >>> scale, shift, gate, x = jnp.array([1.0, 2.0, 0.5, 3.0])
    >>> steered(scale, shift, gate).before(lambda x: x, x).item()
    8.0
    """
    return Arrange(
        before=lambda norm, x: broadcast(_affine, norm(x), scale, shift),
        after=lambda norm, x, y: broadcast(lambda x, y, g: x + g * y, x, y, gate),
    )


def _affine(x: Array, scale: Array, shift: Array) -> Array:
    return (1 + scale) * x + shift


def _expect_inputs(config: DiTConfig, x: Any) -> None:
    wanted = "(x, t)" if config.classes is None else "(x, t, labels)"
    count = 2 if config.classes is None else 3
    if not isinstance(x, tuple | list) or len(x) != count:
        raise ValueError(
            f"dit: expected {wanted} with x of shape (batch, height, width, channels), because "
            f"classes is {config.classes}, got {jax.tree.map(jnp.shape, x)}"
        )
    expect_images("dit", x[0])


check_exports(__name__)
