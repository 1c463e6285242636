"""BERT: the bidirectional encoder with its pooler, and with the masked language modeling head.

B batch, T time, E features, V vocabulary size, L blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers, nn
from fnn._arguments import check_exports
from fnn.activations import gelu
from fnn.expect import within
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name
from fnn.layers.linear import add_bias
from fnn.losses import LazyLogits
from fnn.models import transformer
from fnn.models._common import add_positions, expect_tokens, stochastic
from fnn.models.transformer import BlockConfig, post_norm
from fnn.types import Model, Params, PRNGKey, Scalar

# fmt: off
__all__ = [
    "BERTConfig", "BERTInput", "BERTOutput", "bert", "bert_base", "bert_features", "masked_lm",
]
# fmt: on


class BERTInput(NamedTuple):
    """The input of BERT; batch axis first."""

    tokens: Any  # (B, T), integers in [0, V)
    segments: Any = None  # (B, T), integers: 0 for the first sentence, 1 for the second; None: 0
    lengths: Any = None  # (B,), integers: the number of tokens before padding; None: all


class BERTOutput(NamedTuple):
    """The output of `bert`."""

    features: Float[Array, "b t e"]  # (B, T, E); undefined at padding
    pooled: Float[Array, "b e"]  # (B, E), of the first token


@dataclass(frozen=True, kw_only=True)
class BERTConfig:
    """Shapes and layers of a BERT."""

    vocab_size: int  # V
    max_length: int  # longest sequence
    features: int  # E
    num_layers: int  # L
    block: BlockConfig
    num_segments: int = 2
    activation: Callable[[Any], Any] = gelu  # of the masked language modeling head
    scan: bool = False  # scan over stacked blocks: for many layers, on an accelerator
    kernel_init: Initializer = normal(0.02)  # of embeddings, pooler and head


def bert_base(
    *,
    vocab_size: int = 30522,
    max_length: int = 512,
    features: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    hidden_features: int | None = None,
    eps: float = 1e-12,
    scan: bool = False,
) -> BERTConfig:
    """BERT; the defaults are bert-base-uncased, with 109,482,240 parameters.

    Args:
      hidden_features: of the MLPs; 4 E if None.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3. Deviates: the kernels' normal
      distribution of std 0.02 is not truncated.

    >>> bert_base(num_layers=2).block.hidden_features
    3072
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=4 * features if hidden_features is None else hidden_features,
        norm=nn.layer_norm(eps=eps),
        residual=post_norm,
    )
    return BERTConfig(
        vocab_size=vocab_size,
        max_length=max_length,
        features=features,
        num_layers=num_layers,
        block=block,
        scan=scan,
    )


@within(rate="[0, 1]")
def bert(config: BERTConfig, *, rate: Scalar = 0.0) -> Model:
    """The bidirectional encoder and its pooler.

        h = norm(tokens[x] + positions + segments[s]),  h = block_i(h),  pooled = tanh(W h_0 + b)

    Args:
      config: `bert_base(...)`, or your own.
      rate: dropout rate of the embeddings, the attention weights and the sublayers' outputs; may be
        traced. A plain 0 disables dropout.

    Apply takes a BERTInput and returns a BERTOutput. Parameters: {'tokens': {'table'},
    'positions', 'segments', 'embedding_norm', 'blocks': [{'attention', ...}, ...], 'pooler':
    {'kernel', 'bias'}}; with `scan` the blocks are one tree whose leaves have a first axis of L.
    Raises: ValueError for inputs of another shape, and for sequences longer than max_length.

    >>> model = bert(bert_base(vocab_size=10, max_length=8, features=4, num_layers=1, num_heads=2))
    >>> x = BERTInput(jnp.zeros((2, 3), int), lengths=jnp.array([3, 1]))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> features, pooled = model.apply(params, state, x)[0]
    >>> features.shape, pooled.shape
    ((2, 3, 4), (2, 4))
    """

    def init(key: PRNGKey, x: Any) -> Params:
        _expect_input(config, x)
        pooler = _linear_init(config, fold_name(key, "pooler"))
        return {**_encoder_init(config, key), "pooler": pooler}

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> BERTOutput:
        features = bert_features(config, params, x, rate=rate, key=key, train=train)
        return BERTOutput(features, jnp.tanh(layers.linear(params["pooler"], features[:, 0])))

    return stochastic(init, forward)


@within(rate="[0, 1]")
def masked_lm(config: BERTConfig, *, rate: Scalar = 0.0) -> Model:
    """BERT with its pretraining head: the logits of each token, from those around it.

        logits = tokens norm(gelu(W h + b)) + c,    with the token embedding as the last kernel

    Args: as of `bert`.

    Apply takes a BERTInput whose masked tokens are replaced, such as by [MASK], and returns logits
    (B, T, V), with train=True as `losses.LazyLogits`. Parameters: those of `bert` without a pooler,
    and 'head': {'dense': {'kernel', 'bias'}, 'norm', 'bias': (V,)}.
    Raises: as `bert`.
    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1.

    >>> config = bert_base(vocab_size=10, max_length=8, features=4, num_layers=1, num_heads=2)
    >>> model, x = masked_lm(config), BERTInput(jnp.zeros((2, 3), int))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> jax.eval_shape(model.apply, params, state, x)[0].shape
    (2, 3, 10)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        _expect_input(config, x)
        own = fold_name(key, "head")
        head = {
            "dense": _linear_init(config, fold_name(own, "dense")),
            **transformer.norm_init(config.block, own, "norm", config.features),
            "bias": jnp.zeros(config.vocab_size, jnp.float32),
        }
        return {**_encoder_init(config, key), "head": head}

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> Array | LazyLogits:
        features = bert_features(config, params, x, rate=rate, key=key, train=train)
        head = params["head"]
        hidden = config.activation(layers.linear(head["dense"], features))
        hidden = transformer.normalize(config.block, head, "norm", hidden)
        if train:
            table = params["tokens"]["table"]
            return LazyLogits(x=hidden, kernel=table.T, bias=head.get("bias"))
        return add_bias(head, layers.unembed(params["tokens"], hidden))

    return stochastic(init, forward)


@within(rate="[0, 1]")
def bert_features(
    config: BERTConfig,
    params: Params,
    x: BERTInput,
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b t e"]:
    """The encoder's outputs (B, T, E), for a head of your own.

    Raises: as `bert`.

    >>> config = bert_base(vocab_size=10, max_length=8, features=4, num_layers=1, num_heads=2)
    >>> x = BERTInput(jnp.zeros((2, 3), int))
    >>> params, _ = jax.eval_shape(bert(config).init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params: bert_features(config, params, x), params).shape
    (2, 3, 4)
    """
    _expect_input(config, x)
    dropout = transformer.make_dropout("bert", rate, key, train)
    mask = layers.AttentionMask(lengths=x.lengths)
    h = dropout("tokens", _embed(config, params, x))
    return transformer.apply_blocks(config.block, params["blocks"], h, mask, dropout)


def _embed(config: BERTConfig, params: Params, x: BERTInput) -> Array:
    segments = jnp.zeros_like(x.tokens) if x.segments is None else x.segments
    h = layers.embedding(params["tokens"], x.tokens)
    h = add_positions(params["positions"], h + layers.embedding(params["segments"], segments))
    return transformer.normalize(config.block, params, "embedding_norm", h)


def _encoder_init(config: BERTConfig, key: PRNGKey) -> Params:
    sizes = {
        "tokens": config.vocab_size,
        "positions": config.max_length,
        "segments": config.num_segments,
    }
    tables = {
        name: layers.embedding_init(
            fold_name(key, name), size, config.features, table_init=config.kernel_init
        )
        for name, size in sizes.items()
    }
    return {
        **tables,
        **transformer.norm_init(config.block, key, "embedding_norm", config.features),
        "blocks": transformer.blocks_init(
            config.block, fold_name(key, "blocks"), config.features, config.num_layers, config.scan
        ),
    }


def _linear_init(config: BERTConfig, key: PRNGKey) -> Params:
    return layers.linear_init(key, config.features, config.features, kernel_init=config.kernel_init)


def _expect_input(config: BERTConfig, x: Any) -> None:
    if not isinstance(x, BERTInput):
        raise ValueError(
            f"bert: expected a BERTInput, got {type(x).__name__}; wrap the tokens, as in "
            "BERTInput(tokens, lengths=lengths)"
        )
    expect_tokens("bert", x.tokens, config.max_length)
    for name, shape in {"segments": x.tokens.shape, "lengths": x.tokens.shape[:1]}.items():
        value = getattr(x, name)
        if value is not None and value.shape != shape:
            raise ValueError(
                f"bert: expected {name} of shape {shape} for tokens {x.tokens.shape}, got "
                f"{value.shape}; give each example its own"
            )


check_exports(__name__)
