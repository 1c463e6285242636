"""The decoder-only transformer: GPT-2, and with other parts Llama.

B batch, T time, E features, V vocabulary, L blocks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers
from fnn.activations import gelu_tanh
from fnn.arguments import check_exports
from fnn.expect import in_layer, within
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name
from fnn.layers.embedding import expect_ids
from fnn.layers.linear import plus_row
from fnn.models import transformer
from fnn.models.transformer import BlockConfig
from fnn.nn import feed_forward, rms_norm, swiglu
from fnn.types import Decoder, Model, Params, PRNGKey, Scalar

__all__ = ["GPTConfig", "gpt", "gpt2", "gpt_decoder", "gpt_features", "llama"]

Activation = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """What fixes the shapes and the parts of a GPT."""

    vocabulary: int  # V
    max_length: int  # of a sequence, with learned positions
    features: int  # E
    num_layers: int  # L
    block: BlockConfig  # with a `rotate`, positions are told by it; without, they are learned
    tied: bool = True  # the head's kernel is the table of the tokens
    scan: bool = False  # one block compiled and looped over: for many layers, on an accelerator
    table_init: Initializer = normal(0.02)
    head_init: Initializer = normal(0.02)  # of a head that is not tied
    head_multiplier: float = 1.0  # of what the head reads, and so of the logits; see mup_gpt


def gpt2(
    *,
    vocabulary: int = 50257,
    max_length: int = 1024,
    features: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    activation: Activation = gelu_tanh,
    bias: bool = True,
    scan: bool = False,
) -> GPTConfig:
    """GPT-2's architecture and initialization; the defaults are the small one, 124,439,808.

    Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3:
      kernels of std 0.02, those that end in the residual stream 0.02 / sqrt(2 L).

    >>> gpt2(num_layers=2).block.hidden_features
    3072
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=4 * features,
        mlp=partial(feed_forward, activation=activation),
        bias=bias,
        out_kernel_init=normal(0.02 / math.sqrt(2 * num_layers)),
    )
    return GPTConfig(
        vocabulary=vocabulary,
        max_length=max_length,
        features=features,
        num_layers=num_layers,
        block=block,
        scan=scan,
    )


def llama(
    *,
    vocabulary: int,
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
    """Llama's architecture: rotary positions, RMS norm, SwiGLU, grouped queries, no biases.

    Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; Grattafiori et al. 2024,
      arXiv:2407.21783, section 3.2 (rope_base, grouped queries).

    >>> config = llama(vocabulary=10, max_length=8, features=8, num_layers=1, num_heads=4,
    ...                num_kv_heads=2, hidden_features=16)
    >>> config.tied, config.block.bias
    (False, False)
    """
    block = BlockConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_features=head_features,
        hidden_features=hidden_features,
        mlp=swiglu,
        norm=rms_norm(eps=eps),
        bias=False,
        rotate=partial(layers.rope, base=rope_base),
    )
    return GPTConfig(
        vocabulary=vocabulary,
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
      config: `gpt2(...)`, `llama(...)` or one of your own.
      rate: drop probability of the embedding, the attention weights and what each part of a block
        makes; may be traced. A plain 0 leaves dropout out.

    Apply takes integers (B, T) in [0, V) with T <= max_length and returns logits (B, T, V).
    Parameters: {'tokens': {'table'}, 'positions': {'table'}, 'blocks': [{'attention', ...}],
    'norm', 'head': {'kernel'}}; no positions where the block rotates, no head where it is tied, and
    with `scan` the blocks are one tree whose leaves have a first axis of L.
    Raises: ValueError for x of another shape, or sequences that are too long.

    >>> model = gpt(gpt2(vocabulary=10, max_length=8, features=4, num_layers=2, num_heads=2))
    >>> x = jnp.zeros((1, 3), int)
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x)[0].shape
    (1, 3, 10)
    """

    def init(key, x):
        _expect_tokens(config, x)
        return _init(config, key), ()

    def apply(params, model_state, x, *, key=None, train=False):
        hidden = gpt_features(config, params, x, rate=rate, key=key, train=train)
        return head(params, hidden), model_state

    return Model(init=init, apply=apply)


def _init(config: GPTConfig, key: PRNGKey) -> Params:
    block = config.block
    like = jax.ShapeDtypeStruct((1, 1, config.features), jnp.float32)
    params: Params = {
        "tokens": layers.embedding_init(
            fold_name(key, "tokens"),
            config.vocabulary,
            config.features,
            table_init=config.table_init,
        ),
        "blocks": transformer.stack_init(
            lambda key: transformer.block_init(block, key, like),
            fold_name(key, "blocks"),
            config.num_layers,
            scan=config.scan,
        ),
    }
    if block.rotate is None:
        params["positions"] = layers.learned_positions_init(
            fold_name(key, "positions"), config.max_length, config.features
        )
    if block.arrange is transformer.pre_norm:  # else the last block ends with its norm
        params["norm"] = block.norm.init(fold_name(key, "norm"), like)[0]
    if not config.tied:
        params["head"] = layers.linear_init(
            fold_name(key, "head"),
            config.features,
            config.vocabulary,
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
    """What the head of `gpt` reads for the tokens (B, T): (B, T, E), after the last norm.

    With `losses.fused_cross_entropy` a loss can be taken from it without the logits in memory.

    Raises: ValueError for tokens of another shape, or sequences that are too long.

    >>> config = gpt2(vocabulary=10, max_length=8, features=4, num_layers=2, num_heads=2)
    >>> x = jnp.zeros((1, 3), int)
    >>> params, _ = gpt(config).init(jax.random.key(0), x)
    >>> gpt_features(config, params, x).shape
    (1, 3, 4)
    """
    _expect_tokens(config, tokens)
    drop = transformer.dropper("gpt", rate, key, train)
    x = transformer.seeing_blocks(
        "gpt",
        config.block,
        params["blocks"],
        drop("tokens", _embed(params, tokens)),
        layers.causal_mask(tokens.shape[1]),
        rate=rate,
        key=key,
        train=train,
    )
    return _last_norm(config, params, x)


def gpt_decoder(config: GPTConfig) -> Decoder:
    """The same model, a few tokens at a time, with keys and values in a cache: for `generate`.

    >>> config = gpt2(vocabulary=10, max_length=8, features=4, num_layers=2, num_heads=2)
    >>> params, _ = gpt(config).init(jax.random.key(0), jnp.zeros((1, 3), int))
    >>> decoder = gpt_decoder(config)
    >>> logits, carry = decoder.step(params, jnp.zeros((1, 3), int), decoder.init(params, 1, 8))
    >>> logits.shape
    (1, 3, 10)
    """

    def init(params: Params, batch: int, length: int) -> Any:
        if config.block.rotate is None and length > config.max_length:
            raise ValueError(
                f"gpt_decoder: expected at most max_length = {config.max_length} tokens, got "
                f"{length}; ask for fewer, or use a model with rotary positions"
            )
        dtype = params["tokens"]["table"].dtype
        cache = lambda own: layers.init_cache(own["attention"], batch, length, dtype)  # noqa: E731
        blocks = params["blocks"]
        return (
            [cache(own) for own in blocks] if isinstance(blocks, list) else jax.vmap(cache)(blocks)
        )

    def step(params: Params, tokens: Array, caches: Any) -> tuple[Array, Any]:
        def one(x: Array, i: Any, own: Params, cache: Any) -> tuple[Array, Any]:
            return transformer.block(
                config.block, own, x, transformer.remembering(config.block), cache
            )

        first = (caches[0] if isinstance(caches, list) else caches).position
        x = _embed(params, tokens, start=first if first.ndim == 0 else first[0])
        x, caches = transformer.over_depth(one, x, params["blocks"], caches)
        return head(params, _last_norm(config, params, x)), caches

    return Decoder(init=init, step=step)


def head(params: Params, hidden: Float[Array, "b t e"]) -> Float[Array, "b t v"]:
    """The logits of `gpt` from its features.

    >>> head({'tokens': {'table': jnp.ones((3, 2))}}, jnp.ones((1, 1, 2))).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    with in_layer(("head" if "head" in params else "tokens",), hidden):
        if "head" in params:
            return layers.linear(params["head"], hidden)
        return layers.unembed(params["tokens"], hidden)


def _embed(params: Params, tokens: Array, start: Any = 0) -> Array:
    x = layers.embedding(params["tokens"], tokens)
    if "positions" not in params:
        return x
    positions = layers.learned_positions(params["positions"], tokens.shape[1], start=start)
    return plus_row(x, positions)


def _last_norm(config: GPTConfig, params: Params, x: Array) -> Array:
    with in_layer(("norm",), x):
        x = config.block.norm.apply(params["norm"], (), x)[0] if "norm" in params else x
    return x if config.head_multiplier == 1 else config.head_multiplier * x


def _expect_tokens(config: GPTConfig, x: Any) -> None:
    if len(x.shape) != 2:
        raise ValueError(
            f"gpt: expected tokens of shape (batch, time), got {x.shape}; add the missing axis"
        )
    expect_ids("gpt", x)
    if x.shape[1] > config.max_length:
        raise ValueError(
            f"gpt: expected sequences of at most max_length = {config.max_length}, got "
            f"{x.shape[1]}; cut them, or make the model with a larger max_length"
        )


check_exports(__name__)
