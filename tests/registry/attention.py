"""Rows of the attention layers, the gated MLPs, the mixture of experts and squeeze-excite."""

from functools import partial

import jax.numpy as jnp

from fnn import layers, nn
from fnn.activations import gelu, sigmoid
from fnn.initializers import normal as normal_init
from tests.registry.rows import ModelRow, normal


def _windowed(length):
    return layers.combine_masks(
        layers.causal_mask(length), layers.window_mask(length, before=1, after=1)
    )


def _alibi(length):
    return layers.alibi(2, jnp.arange(length), jnp.arange(length))[None]


MODELS = [
    ModelRow(
        name="self_attention, causal and grouped, with normed and rotated queries",
        make=lambda: nn.self_attention(
            4,
            num_kv_heads=2,
            head_features=2,
            out_features=3,
            bias=False,
            qk_norm=True,
            mask=layers.causal_mask,
            rotate=layers.rope,
        ),
        x=normal(3, 4, 5),
    ),
    ModelRow(
        name="self_attention with dropout at a traced rate, a window, a bias and a softcap",
        make=lambda: nn.self_attention(
            2,
            mask=_windowed,
            position_bias=_alibi,
            rate=jnp.float32(0.5),
            attend=partial(layers.dot_product_attention, softcap=2.0, scale=1.5),
            bias_init=normal_init(0.1),
        ),
        x=normal(3, 4, 4),
        noisy=True,
    ),
    ModelRow(
        name="self_attention by tiles, causal in a window",
        make=lambda: nn.self_attention(
            2,
            mask=layers.AttentionMask(causal=True, window=(2, 0)),
            attend=partial(layers.attention, implementation="blockwise", block_size=2),
        ),
        x=normal(3, 5, 4),
    ),
    ModelRow(
        name="cross_attention",
        make=lambda: nn.cross_attention(2, num_kv_heads=1, head_features=3, rate=0.5),
        x=(normal(3, 2, 4), normal(3, 5, 3, seed=1)),
        noisy=True,
    ),
    ModelRow(name="feed_forward", make=lambda: nn.feed_forward(5), x=normal(3, 4)),
    ModelRow(name="gated_mlp", make=lambda: nn.gated_mlp(5, sigmoid), x=normal(3, 4)),
    ModelRow(name="swiglu", make=lambda: nn.swiglu(5, out_features=2), x=normal(3, 2, 4)),
    ModelRow(
        name="geglu with biases",
        make=lambda: nn.geglu(5, bias=True, bias_init=normal_init(0.1)),
        x=normal(3, 4),
    ),
    ModelRow(name="moe", make=lambda: nn.moe(5, num_experts=3), x=normal(3, 2, 4)),
    ModelRow(
        name="moe of plain experts, one a token",
        make=lambda: nn.moe(
            5, num_experts=4, top_k=1, out_features=2, gated=False, activation=gelu
        ),
        x=normal(5, 3),
    ),
    ModelRow(
        name="squeeze_excite",
        make=lambda: nn.squeeze_excite(2, activation=gelu),
        x=normal(3, 2, 3, 4),
    ),
]

HELPERS = [  # tests/test_attention*.py, tests/test_multi_head.py, tests/test_moe.py
    "layers.attention_weights",
    "layers.causal_mask",
    "layers.combine_masks",
    "layers.padding_mask",
    "layers.segment_mask",
    "layers.window_mask",
    "layers.init_cache",
    "layers.attend_with_cache",
    "layers.normalize_gates",
]
