"""The decoder-only transformer: GPT-2, and with other layers Llama.

B batch, T time, E features, V vocabulary size, L blocks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Array, Float

from fnn import layers, nn
from fnn._arguments import check_exports
from fnn.activations import gelu_tanh
from fnn.expect import in_layer, within
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name
from fnn.losses import LazyLogits
from fnn.models import transformer
from fnn.models._common import add_positions, expect_length, expect_tokens, stochastic
from fnn.models.transformer import BlockConfig
from fnn.types import Decoder, Model, Params, PRNGKey, Scalar

__all__ = ["GPTConfig", "gpt", "gpt2", "gpt_decoder", "gpt_features", "llama"]


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Shapes and layers of a GPT."""

    vocab_size: int  # V
    max_length: int  # longest sequence
    features: int  # E
    num_layers: int  # L
    block: BlockConfig  # without `rotate`, positions are learned
    tied: bool = True  # the head's kernel is the token embedding
    scan: bool = False  # scan over stacked blocks: for many layers, on an accelerator
    table_init: Initializer = normal(0.02)
    head_init: Initializer = normal(0.02)  # of a head that is not tied
    head_multiplier: float = 1.0  # of the head's input; see mup_gpt


def gpt2(
    *,
    vocab_size: int = 50257,
    max_length: int = 1024,
    features: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    activation: Callable[[Any], Any] = gelu_tanh,
    bias: bool = True,
    scan: bool = False,
) -> GPTConfig:
    """GPT-2; the defaults are the small model, with 124,439,808 parameters.

    Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3:
      kernels of std 0.02, and 0.02 / sqrt(2 L) for those that write to the residual stream.

    >>> gpt2(num_layers=2).block.hidden_features
    3072
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=4 * features,
        mlp=partial(nn.feed_forward, activation=activation),
        bias=bias,
        out_kernel_init=normal(0.02 / math.sqrt(2 * num_layers)),
    )
    return GPTConfig(
        vocab_size=vocab_size,
        max_length=max_length,
        features=features,
        num_layers=num_layers,
        block=block,
        scan=scan,
    )


def llama(
    *,
    vocab_size: int,
    max_length: int,
    features: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    hidden_features: int,
    head_features: int | None = None,
    rope_base: float = 500000.0,
    eps: float = 1e-5,
    tied: bool = False,
    scan: bool = False,
) -> GPTConfig:
    """Llama: rotary positions, RMS norm, SwiGLU, grouped-query attention, no biases.

    Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; Grattafiori et al. 2024,
      arXiv:2407.21783, section 3.2 (rope_base, grouped queries).

    >>> config = llama(vocab_size=10, max_length=8, features=8, num_layers=1, num_heads=4,
    ...                num_kv_heads=2, hidden_features=16)
    >>> config.tied, config.block.bias
    (False, False)
    """
    block = BlockConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_features=head_features,
        hidden_features=hidden_features,
        mlp=nn.swiglu,
        norm=nn.rms_norm(eps=eps),
        bias=False,
        rotate=partial(layers.rope, base=rope_base),
    )
    return GPTConfig(
        vocab_size=vocab_size,
        max_length=max_length,
        features=features,
        num_layers=num_layers,
        block=block,
        tied=tied,
        scan=scan,
    )


@within(rate="[0, 1]")
def gpt(config: GPTConfig, *, rate: Scalar = 0.0) -> Model:
    """A language model: logits of the next token at every position.

        h = tokens[x] + positions,  h = block_i(h) for each i,  logits = head(norm(h))

    Args:
      config: `gpt2(...)`, `llama(...)` or your own.
      rate: dropout rate of the embeddings, the attention weights and the sublayers' outputs; may be
        traced. A plain 0 disables dropout.

    Apply takes integers (B, T) in [0, V) with T <= max_length and returns logits (B, T, V), with
    train=True as `losses.LazyLogits`, so that `losses.cross_entropy` need not hold all of them.
    Parameters: {'tokens': {'table'}, 'positions': {'table'}, 'blocks': [{'attention', ...}, ...],
    'norm', 'head': {'kernel'}}; no positions with `rotate`, no head if tied, and with `scan` the
    blocks are one tree whose leaves have a first axis of L.
    Raises: ValueError for x of another shape, and for sequences longer than max_length.

    >>> model = gpt(gpt2(vocab_size=10, max_length=8, features=4, num_layers=2, num_heads=2))
    >>> x = jnp.zeros((1, 3), int)
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x)[0].shape
    (1, 3, 10)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        expect_tokens("gpt", x, config.max_length)
        return _init(config, key)

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> Array | LazyLogits:
        hidden = gpt_features(config, params, x, rate=rate, key=key, train=train)
        return _lazy_head(params, hidden) if train else _head(params, hidden)

    return stochastic(init, forward)


def _init(config: GPTConfig, key: PRNGKey) -> Params:
    block, features = config.block, config.features
    params: Params = {
        "tokens": layers.embedding_init(
            fold_name(key, "tokens"), config.vocab_size, features, table_init=config.table_init
        ),
        "blocks": transformer.blocks_init(
            block, fold_name(key, "blocks"), features, config.num_layers, config.scan
        ),
    }
    if block.rotate is None:
        params["positions"] = layers.learned_positions_init(
            fold_name(key, "positions"), config.max_length, features
        )
    if block.residual is transformer.pre_norm:  # with post_norm, the last block ends with its norm
        params |= transformer.norm_init(block, key, "norm", features)
    if not config.tied:
        params["head"] = layers.linear_init(
            fold_name(key, "head"),
            features,
            config.vocab_size,
            bias=False,
            kernel_init=config.head_init,
        )
    return params


@within(rate="[0, 1]")
def gpt_features(
    config: GPTConfig,
    params: Params,
    tokens: Any,
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b t e"]:
    """The inputs (B, T, E) of the head of `gpt`, after the last norm, for tokens (B, T).

    With `losses.fused_cross_entropy` a loss of them needs no logits in memory.

    Raises: as `gpt`.

    >>> config = gpt2(vocab_size=10, max_length=8, features=4, num_layers=2, num_heads=2)
    >>> x = jnp.zeros((1, 3), int)
    >>> params, _ = gpt(config).init(jax.random.key(0), x)
    >>> gpt_features(config, params, x).shape
    (1, 3, 4)
    """
    expect_tokens("gpt", tokens, config.max_length)
    dropout = transformer.make_dropout("gpt", rate, key, train)
    x, mask = dropout("tokens", _embed(params, tokens)), layers.AttentionMask(causal=True)
    x = transformer.apply_blocks(config.block, params["blocks"], x, mask, dropout)
    return _last_norm(config, params, x)


def gpt_decoder(config: GPTConfig) -> Decoder:
    """`gpt` a few tokens at a time, with a cache of keys and values: for `generate`.

    >>> config = gpt2(vocab_size=10, max_length=8, features=4, num_layers=2, num_heads=2)
    >>> params, _ = gpt(config).init(jax.random.key(0), jnp.zeros((1, 3), int))
    >>> decoder = gpt_decoder(config)
    >>> logits, carry = decoder.step(params, jnp.zeros((1, 3), int), decoder.init(params, 1, 8))
    >>> logits.shape
    (1, 3, 10)
    """

    def init(params: Params, batch: int, length: int) -> Any:
        learned = config.block.rotate is None
        expect_length("gpt_decoder", length, config.max_length if learned else None)
        dtype = params["tokens"]["table"].dtype
        return transformer.init_carries(
            lambda block: layers.init_cache(block["attention"], batch, length, dtype),
            params["blocks"],
        )

    def step(params: Params, tokens: Array, caches: Any) -> tuple[Array, Any]:
        x = _embed(params, tokens, start=transformer.position_of(caches))
        x, caches = transformer.decode_blocks(config.block, params["blocks"], x, caches)
        return _head(params, _last_norm(config, params, x)), caches

    return Decoder(init=init, step=step)


def _embed(params: Params, tokens: Array, start: Any = 0) -> Array:
    x = layers.embedding(params["tokens"], tokens)
    return add_positions(params["positions"], x, start) if "positions" in params else x


def _last_norm(config: GPTConfig, params: Params, x: Array) -> Array:
    x = transformer.normalize(config.block, params, "norm", x) if "norm" in params else x
    return x if config.head_multiplier == 1 else config.head_multiplier * x


def _lazy_head(params: Params, x: Array) -> LazyLogits:
    if "head" in params:
        return LazyLogits(x=x, kernel=params["head"]["kernel"])
    return LazyLogits(x=x, kernel=params["tokens"]["table"].T)


def _head(params: Params, x: Array) -> Array:
    with in_layer(("head" if "head" in params else "tokens",), x):
        if "head" in params:
            return layers.linear(params["head"], x)
        return layers.unembed(params["tokens"], x)


check_exports(__name__)
