"""The encoder-decoder transformer of 2017.

B batch, S source time, T target time, E features, V vocabulary size, L blocks.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn import layers, nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.dtypes import indices
from fnn.expect import within
from fnn.initializers import Initializer, glorot_uniform
from fnn.keys import fold_name, fold_name_or_none
from fnn.layers.attention import Attend, project_key_value, project_out, project_query
from fnn.layers.embedding import unit_rows
from fnn.losses import LazyLogits
from fnn.models import transformer
from fnn.models._common import add_positions, expect_length, expect_tokens, stochastic
from fnn.models.transformer import (
    BlockConfig,
    Dropout,
    Residual,
    Sublayer,
    apply_sublayer,
    post_norm,
    pre_norm,
)
from fnn.types import Decoder, Model, Params, PRNGKey, Scalar

# fmt: off
__all__ = [
    "EncoderDecoderConfig", "encode", "encoder_decoder", "encoder_decoder_decoder",
    "transformer_base", "with_source",
]
# fmt: on


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """Shapes and layers of an encoder-decoder transformer."""

    vocab_size: int  # V, of the target
    features: int  # E
    num_encoder_layers: int
    num_decoder_layers: int
    block: BlockConfig
    source_vocab_size: int | None = None  # None: source and target share the embedding
    pad: int | None = None  # the padding token of sources, which is masked
    max_length: int | None = None  # of learned positions; None: sinusoidal ones, of any length
    tied: bool = True  # the head's kernel is the target's embedding
    scan: bool = False  # scan over stacked blocks: for many layers, on an accelerator
    table_init: Initializer = unit_rows
    head_init: Initializer = unit_rows  # of a head that is not tied


def transformer_base(
    *,
    vocab_size: int,
    features: int = 512,
    num_layers: int = 6,
    num_heads: int = 8,
    hidden_features: int = 2048,
    source_vocab_size: int | None = None,
    pad: int | None = None,
    max_length: int | None = None,
    residual: Residual = post_norm,
    eps: float = 1e-6,
    scan: bool = False,
) -> EncoderDecoderConfig:
    """The base model of 2017 (there with V = 37,000), with num_layers blocks on either side.

    Args:
      residual: `post_norm` as in 2017, which needs a warm-up, or `pre_norm`.

    Source: Vaswani et al. 2017, arXiv:1706.03762, table 3. Deviates: the attention has biases.

    >>> transformer_base(vocab_size=37000).block.hidden_features
    2048
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=hidden_features,
        mlp=partial(nn.feed_forward, activation=relu),
        norm=nn.layer_norm(eps=eps),
        residual=residual,
        kernel_init=glorot_uniform(),
    )
    return EncoderDecoderConfig(
        vocab_size=vocab_size,
        source_vocab_size=source_vocab_size,
        features=features,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        block=block,
        pad=pad,
        max_length=max_length,
        scan=scan,
    )


@within(rate="[0, 1]")
def encoder_decoder(config: EncoderDecoderConfig, *, rate: Scalar = 0.0) -> Model:
    """The logits of the target's next token at every position, given the source.

        m = encoder blocks(tokens[source] sqrt(E) + positions)
        y = head(decoder blocks(tokens[target] sqrt(E) + positions, with cross-attention to m))

    Args:
      config: `transformer_base(...)`, or your own.
      rate: dropout rate of the embeddings, the attention weights and the sublayers' outputs; may be
        traced. A plain 0 disables dropout.

    Apply takes the pair (source, target), integers (B, S) and (B, T), the target shifted by one
    token (teacher forcing), and returns logits (B, T, V), with
    train=True as `losses.LazyLogits`. Parameters: {'tokens': {'table'},
    'encoder': [{'attention', ...}, ...], 'decoder': [{'attention', 'cross', ...}, ...]}, and by the
    config 'source', 'positions', 'encoder_norm' and 'decoder_norm' (with `pre_norm`) and 'head'.
    Raises: ValueError for x of another shape, and for sequences longer than max_length.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.

    >>> config = transformer_base(vocab_size=10, features=4, num_layers=1, num_heads=2)
    >>> model, x = encoder_decoder(config), (jnp.zeros((1, 5), int), jnp.zeros((1, 3), int))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> jax.eval_shape(model.apply, params, state, x)[0].shape
    (1, 3, 10)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        _expect_pair(config, x)
        return _init(config, key)

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> Array | LazyLogits:
        _expect_pair(config, x)
        source, target = x
        own = fold_name_or_none(key, "encoder")
        memory = encode(config, params, source, rate=rate, key=own, train=train)
        dropout = transformer.make_dropout(
            "encoder_decoder", rate, fold_name_or_none(key, "decoder"), train
        )
        causal, mask = layers.AttentionMask(causal=True), _source_mask(config, source)

        def step(h: Array, i: Any, block: Params, carry: Any) -> tuple[Array, Any]:
            drop = dropout.of_block(i)
            attention = transformer.self_attention(config.block, causal, drop, "attention_weights")
            attend = drop.attend("cross_weights", config.block.attend)
            cross = _cross_attention(_keys_and_values(block, memory), mask, attend)
            return _decoder_block(config, block, h, attention, cross, carry, drop)

        h = dropout("tokens", _embed(config, params, "tokens", target))
        layer = transformer.rematerialized(config.block, step, params["decoder"])
        h, _ = transformer.loop_over_blocks(layer, h, params["decoder"], name="decoder")
        return _lazy_logits(config, params, h) if train else _logits(config, params, h)

    return stochastic(init, forward)


@within(rate="[0, 1]")
def encode(
    config: EncoderDecoderConfig,
    params: Params,
    source: Any,
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b s e"]:
    """The encoder's outputs (B, S, E) for sources (B, S).

    >>> config = transformer_base(vocab_size=10, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 5), int), jnp.zeros((1, 3), int)
    >>> params, _ = jax.eval_shape(encoder_decoder(config).init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params: encode(config, params, x[0]), params).shape
    (1, 5, 4)
    """
    dropout = transformer.make_dropout("encoder_decoder", rate, key, train)
    mask = _source_mask(config, source)

    def step(h: Array, i: Any, block: Params, carry: Any) -> tuple[Array, Any]:
        drop = dropout.of_block(i)
        attention = transformer.self_attention(config.block, mask, drop, "attention_weights")
        return transformer.block(config.block, block, h, attention, carry, drop)

    h = dropout("source", _embed(config, params, "source", source))
    layer = transformer.rematerialized(config.block, step, params["encoder"])
    h, _ = transformer.loop_over_blocks(layer, h, params["encoder"], name="encoder")
    return _norm(config, params, "encoder_norm", h)


def with_source(config: EncoderDecoderConfig, params: Params, source: Any) -> Params:
    """The parameters of `encoder_decoder_decoder`: the model's, with the encoded sources.

    >>> config = transformer_base(vocab_size=10, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 5), int), jnp.zeros((1, 3), int)
    >>> params, _ = jax.eval_shape(encoder_decoder(config).init, jax.random.key(0), x)
    >>> given = jax.eval_shape(lambda params: with_source(config, params, x[0]), params)
    >>> sorted(given)
    ['memory', 'model']
    """
    given: Params = {"model": params, "memory": encode(config, params, source)}
    mask = _source_mask(config, source)
    return given if mask is None else {**given, "mask": mask}


def encoder_decoder_decoder(config: EncoderDecoderConfig) -> Decoder:
    """The decoder a few tokens at a time: for `generate`, with `with_source`.

    Its carry holds the keys and values of the target so far, and those of the source, which are
    computed once.

        generate(decoder, with_source(config, params, source), start, key, max_tokens=50)

    >>> config = transformer_base(vocab_size=10, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((2, 5), int), jnp.ones((2, 1), int)
    >>> params, _ = jax.eval_shape(encoder_decoder(config).init, jax.random.key(0), x)
    >>> decoder = encoder_decoder_decoder(config)
    >>> def first(params):
    ...     given = with_source(config, params, x[0])
    ...     return decoder.step(given, x[1], decoder.init(given, batch=2, length=8))
    >>> jax.eval_shape(first, params)[0].shape
    (2, 1, 10)
    """

    def init(given: Params, batch: int, length: int) -> Any:
        memory = given["memory"]
        if len(memory) != batch:
            raise ValueError(
                f"encoder_decoder_decoder: expected as many targets as sources, {len(memory)}, got "
                f"{batch}; give each its own"
            )
        expect_length("encoder_decoder_decoder", length, config.max_length)

        def carry(block: Params) -> Any:
            cache = layers.init_cache(block["attention"], batch, length, memory.dtype)
            return cache, _keys_and_values(block, memory)

        return transformer.init_carries(carry, given["model"]["decoder"])

    def step(given: Params, tokens: Array, carries: Any) -> tuple[Array, Any]:
        params, mask = given["model"], given.get("mask")

        def one(h: Array, i: Any, block: Params, carry: Any) -> tuple[Array, Any]:
            cache, source = carry
            cross = _cross_attention(source, mask, config.block.attend)
            attention = transformer.cached_attention(config.block)
            h, cache = _decoder_block(config, block, h, attention, cross, cache, Dropout())
            return h, (cache, source)

        cache, _ = carries[0] if isinstance(carries, list) else carries
        h = _embed(config, params, "tokens", tokens, transformer.position_of(cache))
        h, carries = transformer.loop_over_blocks(
            one, h, params["decoder"], carries, name="decoder"
        )
        return _logits(config, params, h), carries

    return Decoder(init=init, step=step)


def _decoder_block(
    config: EncoderDecoderConfig,
    params: Params,
    x: Array,
    attention: Sublayer,
    cross: Sublayer,
    carry: Any,
    dropout: Dropout,
) -> tuple[Array, Any]:
    block = config.block
    x, carry = apply_sublayer(block, params, "attention", x, attention, carry, dropout)
    x, _ = apply_sublayer(block, params, "cross", x, cross, (), dropout)
    x, _ = apply_sublayer(block, params, "mlp", x, transformer.mlp(block), (), dropout)
    return x, carry


def _keys_and_values(params: Params, memory: Array) -> tuple[Array, Array]:
    # Not rotated: relative positions between source and target have no meaning.
    return project_key_value(params["cross"], memory, jnp.arange(memory.shape[1], dtype=jnp.int32))


def _cross_attention(source: tuple[Array, Array], mask: Array | None, attend: Attend) -> Sublayer:
    """Attention to the keys and values of the source."""

    def sublayer(params: Params, x: Array, carry: Any) -> tuple[Array, Any]:
        query = project_query(params, x, jnp.arange(x.shape[1], dtype=jnp.int32))
        return project_out(params, attend(query, *source, mask=mask)), carry

    return sublayer


def _source_mask(config: EncoderDecoderConfig, source: Array) -> Bool[Array, "b 1 1 s"] | None:
    return None if config.pad is None else (indices(source) != config.pad)[:, None, None]


def _embed(
    config: EncoderDecoderConfig, params: Params, name: str, tokens: Array, start: Any = 0
) -> Array:
    h = layers.embedding(params[name if name in params else "tokens"], tokens)
    h = h * jnp.asarray(math.sqrt(config.features), h.dtype)
    if "positions" in params:
        return add_positions(params["positions"], h, start)
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32) + jnp.asarray(start, jnp.int32)
    return h + layers.sinusoidal_positions(positions, config.features, dtype=h.dtype)[None]


def _lazy_logits(config: EncoderDecoderConfig, params: Params, h: Array) -> LazyLogits:
    h = _norm(config, params, "decoder_norm", h)
    return LazyLogits(x=h, kernel=params["tokens" if config.tied else "head"]["table"].T)


def _logits(config: EncoderDecoderConfig, params: Params, h: Array) -> Array:
    h = _norm(config, params, "decoder_norm", h)
    return layers.unembed(params["tokens" if config.tied else "head"], h)


def _norm(config: EncoderDecoderConfig, params: Params, name: str, h: Array) -> Array:
    return transformer.normalize(config.block, params, name, h) if name in params else h


def _init(config: EncoderDecoderConfig, key: PRNGKey) -> Params:
    block, features = config.block, config.features

    def table(name: str, size: int, table_init: Initializer) -> Params:
        own = fold_name(key, name)
        return {name: layers.embedding_init(own, size, features, table_init=table_init)}

    def decoder_block_init(key: PRNGKey) -> Params:
        cross = transformer.attention_init(block, key, "cross", features, features)
        return {**transformer.block_init(block, key, features), **cross}

    params: Params = {
        **table("tokens", config.vocab_size, config.table_init),
        "encoder": transformer.blocks_init(
            block, fold_name(key, "encoder"), features, config.num_encoder_layers, config.scan
        ),
        "decoder": transformer.stack_init(
            decoder_block_init,
            fold_name(key, "decoder"),
            config.num_decoder_layers,
            scan=config.scan,
        ),
    }
    if config.source_vocab_size is not None:
        params |= table("source", config.source_vocab_size, config.table_init)
    if not config.tied:
        params |= table("head", config.vocab_size, config.head_init)
    if config.max_length is not None:
        params["positions"] = layers.learned_positions_init(
            fold_name(key, "positions"), config.max_length, features
        )
    if block.residual is pre_norm:  # with post_norm, the last block ends with its norm
        for name in ("encoder_norm", "decoder_norm"):
            params |= transformer.norm_init(block, key, name, features)
    return params


def _expect_pair(config: EncoderDecoderConfig, x: Any) -> None:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise ValueError(
            f"encoder_decoder: expected the pair (source, target), got {type(x).__name__}; use gpt "
            "for a text without a source"
        )
    for name, tokens in zip(("source", "target"), x, strict=True):
        expect_tokens("encoder_decoder", tokens, config.max_length, name)


check_exports(__name__)
