"""The transformer of 2017: an encoder reads the source, a decoder writes the target.

B batch, S source time, T target time, E features, V vocabulary, L blocks.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn import layers
from fnn.activations import relu
from fnn.arguments import check_exports
from fnn.dtypes import indices
from fnn.expect import within
from fnn.initializers import Initializer, glorot_uniform
from fnn.keys import fold_name, fold_name_or_none
from fnn.layers.attention import Attend
from fnn.layers.embedding import expect_ids, unit_rows
from fnn.layers.linear import plus_row
from fnn.layers.multi_head import project_key_value, project_out, project_query
from fnn.models import transformer
from fnn.models.transformer import Arrange, BlockConfig, Drop, Mix, keep, post_norm, pre_norm
from fnn.nn import feed_forward, layer_norm
from fnn.nn.attention import with_dropout
from fnn.types import Decoder, Model, Params, PRNGKey, Scalar

# fmt: off
__all__ = [
    "EncoderDecoderConfig", "encode", "encoder_decoder", "encoder_decoder_decoder",
    "transformer_base", "with_source",
]
# fmt: on


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """What fixes the shapes and the parts of an encoder-decoder transformer."""

    vocabulary: int  # V, of the target
    features: int  # E
    num_encoder_layers: int
    num_decoder_layers: int
    block: BlockConfig
    source_vocabulary: int | None = None  # with a table of its own; None: the target's table
    pad: int | None = (
        None  # the token that fills sources up, which nobody sees; None: there is none
    )
    max_length: int | None = None  # of learned positions; None: sines and cosines, of any length
    tied: bool = True  # the head's kernel is the table of the target
    scan: bool = False  # one block compiled and looped over: for many layers, on an accelerator
    table_init: Initializer = unit_rows
    head_init: Initializer = unit_rows  # of a head that is not tied


def transformer_base(
    *,
    vocabulary: int,
    features: int = 512,
    num_layers: int = 6,
    num_heads: int = 8,
    hidden_features: int = 2048,
    source_vocabulary: int | None = None,
    pad: int | None = None,
    max_length: int | None = None,
    arrange: Arrange = post_norm,
    eps: float = 1e-6,
    scan: bool = False,
) -> EncoderDecoderConfig:
    """The base model of 2017, with as many blocks on either side; its vocabulary is 37,000.

    Args:
      arrange: `post_norm` as in 2017, which needs a warm-up, or `pre_norm`.

    Source: Vaswani et al. 2017, arXiv:1706.03762, table 3. Deviates: the attention has biases.

    >>> transformer_base(vocabulary=37000).block.hidden_features
    2048
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=hidden_features,
        mlp=_with_relu,
        norm=layer_norm(eps=eps),
        arrange=arrange,
        kernel_init=glorot_uniform(),
    )
    return EncoderDecoderConfig(
        vocabulary=vocabulary,
        source_vocabulary=source_vocabulary,
        features=features,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        block=block,
        pad=pad,
        max_length=max_length,
        scan=scan,
    )


def _with_relu(hidden_features: int, **options: Any) -> Model:
    return feed_forward(hidden_features, relu, **options)


@within(rate="[0, 1]")
def encoder_decoder(config: EncoderDecoderConfig, *, rate: Scalar = 0.0) -> Model:
    """The logits of the next token of the target at every position, given the source.

        m = encoder blocks(tokens[source] sqrt(E) + positions)
        y = head(decoder blocks(tokens[target] sqrt(E) + positions, which see m))

    Args:
      config: `transformer_base(...)`, or one of your own.
      rate: drop probability of the embeddings, the attention weights and what each part of a block
        makes; may be traced. A plain 0 leaves dropout out.

    Apply takes the pair (source, target), integers (B, S) and (B, T), the target as it is to be
    written but one token later (teacher forcing), and returns logits (B, T, V). Parameters:
    {'tokens': {'table'}, 'encoder': [{'attention', ...}], 'decoder': [{'attention', 'cross',
    ...}]}, and where the config asks for them 'source', 'positions', 'encoder_norm', 'decoder_norm'
    (with norms before the parts) and 'head'.
    Raises: ValueError for x of another shape, or sequences that are too long.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.

    >>> config = transformer_base(vocabulary=10, features=4, num_layers=1, num_heads=2)
    >>> model, x = encoder_decoder(config), (jnp.zeros((1, 5), int), jnp.zeros((1, 3), int))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> jax.eval_shape(model.apply, params, state, x)[0].shape
    (1, 3, 10)
    """

    def init(key, x):
        _expect_pair(config, x)
        return _init(config, key), ()

    def apply(params, model_state, x, *, key=None, train=False):
        _expect_pair(config, x)
        source, target = x
        memory = encode(
            config, params, source, rate=rate, key=fold_name_or_none(key, "encoder"), train=train
        )
        noise = fold_name_or_none(key, "decoder")
        drop_tokens = transformer.dropper("encoder_decoder", rate, noise, train)
        causal, seen = layers.causal_mask(target.shape[1]), _real(config, source)

        def step(h: Array, i: Any, own: Params, carry: Any) -> tuple[Array, Any]:
            drop, attend, attend_cross = _noise_of_block(config, rate, noise, i, train)
            mix = transformer.seeing(config.block, causal, attend=attend)
            cross = _looking(_keys_and_values(own, memory), seen, attend_cross)
            return _decoder_block(config, own, h, mix, cross, (), drop)

        h = drop_tokens("tokens", _embed(config, params, "tokens", target))
        h, _ = transformer.over_depth(step, h, params["decoder"], name="decoder")
        return _logits(config, params, h), model_state

    return Model(init=init, apply=apply)


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
    """What the decoder sees of the sources (B, S): (B, S, E).

    >>> config = transformer_base(vocabulary=10, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 5), int), jnp.zeros((1, 3), int)
    >>> params, _ = jax.eval_shape(encoder_decoder(config).init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params: encode(config, params, x[0]), params).shape
    (1, 5, 4)
    """
    drop_tokens = transformer.dropper("encoder_decoder", rate, key, train)
    seen = _real(config, source)

    def step(h: Array, i: Any, own: Params, carry: Any) -> tuple[Array, Any]:
        drop, attend, _ = _noise_of_block(config, rate, key, i, train)
        mix = transformer.seeing(config.block, seen, attend=attend)
        return transformer.block(config.block, own, h, mix, drop=drop)

    h = drop_tokens("source", _embed(config, params, "source", source))
    h, _ = transformer.over_depth(step, h, params["encoder"], name="encoder")
    return _norm(config, params, "encoder_norm", h)


def with_source(config: EncoderDecoderConfig, params: Params, source: Any) -> Params:
    """What `encoder_decoder_decoder` takes as parameters: the model's, and the sources it reads.

    >>> config = transformer_base(vocabulary=10, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 5), int), jnp.zeros((1, 3), int)
    >>> params, _ = jax.eval_shape(encoder_decoder(config).init, jax.random.key(0), x)
    >>> given = jax.eval_shape(lambda params: with_source(config, params, x[0]), params)
    >>> sorted(given)
    ['memory', 'model']
    """
    given: Params = {"model": params, "memory": encode(config, params, source)}
    seen = _real(config, source)
    return given if seen is None else {**given, "seen": seen}


def encoder_decoder_decoder(config: EncoderDecoderConfig) -> Decoder:
    """The decoder, a few tokens of the target at a time: for `generate`, with `with_source`.

    What it keeps between two steps are the keys and values of the target so far, and those of the
    source, which are computed once.

        generate(decoder, with_source(config, params, source), start, key, max_tokens=50)

    >>> config = transformer_base(vocabulary=10, features=4, num_layers=1, num_heads=2)
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
        params, memory = given["model"], given["memory"]
        if len(memory) != batch:
            raise ValueError(
                f"encoder_decoder_decoder: expected as many targets as sources, {len(memory)}, got "
                f"{batch}; give each its own"
            )
        _expect_length(config, "tokens", length)

        def carry(own: Params) -> Any:
            cache = layers.init_cache(own["attention"], batch, length, memory.dtype)
            return cache, _keys_and_values(own, memory)

        blocks = params["decoder"]
        return list(map(carry, blocks)) if isinstance(blocks, list) else jax.vmap(carry)(blocks)

    def step(given: Params, tokens: Array, carries: Any) -> tuple[Array, Any]:
        params, seen = given["model"], given["seen"] if "seen" in given else None

        def one(h: Array, i: Any, own: Params, carry: Any) -> tuple[Array, Any]:
            cache, kept = carry
            mix = transformer.remembering(config.block)
            cross = _looking(kept, seen, config.block.attend)
            h, cache = _decoder_block(config, own, h, mix, cross, cache, keep)
            return h, (cache, kept)

        first = (carries[0] if isinstance(carries, list) else carries)[0].position
        start = first if first.ndim == 0 else first[0]
        h = _embed(config, params, "tokens", tokens, start=start)
        h, carries = transformer.over_depth(one, h, params["decoder"], carries, name="decoder")
        return _logits(config, params, h), carries

    return Decoder(init=init, step=step)


def _decoder_block(
    config: EncoderDecoderConfig,
    params: Params,
    x: Array,
    mix: Mix,
    cross: Mix,
    carry: Any,
    drop: Drop,
) -> tuple[Array, Any]:
    """Attention to the target so far, attention to the source, feed-forward."""
    block = config.block
    x, carry = transformer.part(block, params, "attention", x, mix, carry, drop)
    x, _ = transformer.part(block, params, "cross", x, cross, (), drop)
    x, _ = transformer.part(block, params, "mlp", x, transformer.feeding_forward(block), (), drop)
    return x, carry


def _keys_and_values(params: Params, memory: Array) -> tuple[Array, Array]:
    # The source's positions are no distance from the target's, so nothing is rotated.
    return project_key_value(params["cross"], memory, jnp.arange(memory.shape[1], dtype=jnp.int32))


def _looking(kept: tuple[Array, Array], seen: Array | None, attend: Attend) -> Mix:
    """Attention to the source, whose keys and values are there already."""

    def mix(params: Params, x: Array, carry: Any) -> tuple[Array, Any]:
        query = project_query(params, x, jnp.arange(x.shape[1], dtype=jnp.int32))
        return project_out(params, attend(query, *kept, mask=seen)), carry

    return mix


def _noise_of_block(
    config: EncoderDecoderConfig, rate: Scalar, key: PRNGKey | None, i: Any, train: bool
) -> tuple[Drop, Attend, Attend]:
    """Dropout of what the parts make, and attention to itself and to the source with its own."""
    noise = None if key is None else jax.random.fold_in(key, i)
    attend, attend_cross = (
        with_dropout(
            "encoder_decoder",
            config.block.attend,
            rate,
            fold_name_or_none(noise, f"{name}_weights"),
            train,
        )
        for name in ("attention", "cross")
    )
    return transformer.dropper("encoder_decoder", rate, noise, train), attend, attend_cross


def _real(config: EncoderDecoderConfig, source: Array) -> Bool[Array, "b 1 1 s"] | None:
    return None if config.pad is None else (indices(source) != config.pad)[:, None, None]


def _embed(
    config: EncoderDecoderConfig, params: Params, name: str, tokens: Array, start: Any = 0
) -> Array:
    table = params[name if name in params else "tokens"]
    h = layers.embedding(table, tokens)
    h = h * jnp.asarray(math.sqrt(config.features), h.dtype)
    time = tokens.shape[1]
    if "positions" in params:
        return plus_row(h, layers.learned_positions(params["positions"], time, start=start))
    places = jnp.arange(time, dtype=jnp.int32) + jnp.asarray(start, jnp.int32)
    return h + layers.sinusoidal_positions(places, config.features, dtype=h.dtype)[None]


def _logits(config: EncoderDecoderConfig, params: Params, h: Array) -> Array:
    h = _norm(config, params, "decoder_norm", h)
    return layers.unembed(params["tokens" if config.tied else "head"], h)


def _norm(config: EncoderDecoderConfig, params: Params, name: str, h: Array) -> Array:
    return config.block.norm.apply(params[name], (), h)[0] if name in params else h


def _init(config: EncoderDecoderConfig, key: PRNGKey) -> Params:
    block = config.block
    like = jax.ShapeDtypeStruct((1, 1, config.features), jnp.float32)

    def decoder_block_init(key: PRNGKey) -> Params:
        cross = transformer.attention_init(block, "cross", key, like, config.features)
        return {**transformer.block_init(block, key, like), **cross}

    params = {
        name: transformer.stack_init(init, fold_name(key, name), n, scan=config.scan)
        for name, init, n in (
            (
                "encoder",
                lambda key: transformer.block_init(block, key, like),
                config.num_encoder_layers,
            ),
            ("decoder", decoder_block_init, config.num_decoder_layers),
        )
    }
    if block.arrange is pre_norm:  # else the last block ends with its norm
        for name in ("encoder_norm", "decoder_norm"):
            params[name] = block.norm.init(fold_name(key, name), like)[0]
    return {**_tables(config, key), **params}


def _tables(config: EncoderDecoderConfig, key: PRNGKey) -> Params:
    rows = {"tokens": (config.vocabulary, config.table_init)}
    if config.source_vocabulary is not None:
        rows["source"] = (config.source_vocabulary, config.table_init)
    if not config.tied:
        rows["head"] = (config.vocabulary, config.head_init)
    params = {
        name: layers.embedding_init(fold_name(key, name), n, config.features, table_init=init)
        for name, (n, init) in rows.items()
    }
    if config.max_length is not None:
        params["positions"] = layers.learned_positions_init(
            fold_name(key, "positions"), config.max_length, config.features
        )
    return params


def _expect_pair(config: EncoderDecoderConfig, x: Any) -> None:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise ValueError(
            f"encoder_decoder: expected the pair (source, target), got {type(x).__name__}; use gpt "
            "for a text without a source"
        )
    for name, tokens in zip(("source", "target"), x, strict=True):
        expect_ids("encoder_decoder", tokens)
        if len(tokens.shape) != 2:
            raise ValueError(
                f"encoder_decoder: expected a {name} of shape (batch, time), got {tokens.shape}; "
                "add the missing axis"
            )
        _expect_length(config, name, tokens.shape[1])


def _expect_length(config: EncoderDecoderConfig, name: str, length: int) -> None:
    if config.max_length is not None and length > config.max_length:
        raise ValueError(
            f"encoder_decoder: expected a {name} of at most max_length = {config.max_length}, got "
            f"{length}; cut it, or leave max_length out for sines and cosines"
        )


check_exports(__name__)
