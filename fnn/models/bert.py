"""BERT: a transformer that reads both ways, its pooled sentence, and its head for hidden words.

B batch, T time, E features, V vocabulary, L blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import layers
from fnn.activations import gelu
from fnn.arguments import check_exports
from fnn.expect import within
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name
from fnn.layers.embedding import expect_ids
from fnn.layers.linear import add_bias, plus_row
from fnn.models import transformer
from fnn.models.transformer import BlockConfig, post_norm
from fnn.nn import layer_norm
from fnn.types import Model, Params, PRNGKey, Scalar

# fmt: off
__all__ = [
    "BERTConfig", "BERTInput", "BERTOutput", "bert", "bert_base", "bert_features", "masked_lm",
]
# fmt: on


class BERTInput(NamedTuple):
    """What BERT reads. Batch axis first."""

    tokens: Any  # (B, T), integers in [0, V)
    segments: Any = None  # (B, T), integers: 0 the first sentence, 1 the second; None: all 0
    lengths: Any = None  # (B,), integers: how many tokens are real; None: all


class BERTOutput(NamedTuple):
    """What BERT makes of it."""

    features: Float[Array, "b t e"]  # (B, T, E); at padding without meaning
    pooled: Float[Array, "b e"]  # (B, E), of the first token


@dataclass(frozen=True, kw_only=True)
class BERTConfig:
    """What fixes the shapes and the parts of a BERT."""

    vocabulary: int  # V
    max_length: int  # of a sequence
    features: int  # E
    num_layers: int  # L
    block: BlockConfig
    num_segments: int = 2
    activation: Callable[[Any], Any] = gelu  # of the head for hidden words
    scan: bool = False  # one block compiled and looped over: for many layers, on an accelerator
    kernel_init: Initializer = normal(0.02)  # of tables, pooler and head


def bert_base(
    *,
    vocabulary: int = 30522,
    max_length: int = 512,
    features: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    hidden_features: int | None = None,
    eps: float = 1e-12,
    scan: bool = False,
) -> BERTConfig:
    """The architecture of BERT; the defaults are bert-base-uncased, 109,482,240 parameters.

    Args:
      hidden_features: of the feed-forward parts; 4 E if None.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3. Deviates: kernels are normal with std
      0.02 as theirs, but not cut at two deviations.

    >>> bert_base(num_layers=2).block.hidden_features
    3072
    """
    block = BlockConfig(
        num_heads=num_heads,
        hidden_features=4 * features if hidden_features is None else hidden_features,
        norm=layer_norm(eps=eps),
        arrange=post_norm,
    )
    return BERTConfig(
        vocabulary=vocabulary,
        max_length=max_length,
        features=features,
        num_layers=num_layers,
        block=block,
        scan=scan,
    )


@within(rate="[0, 1]")
def bert(config: BERTConfig, *, rate: Scalar = 0.0) -> Model:
    """The encoder with its pooler.

        h = norm(tokens[x] + positions + segments[s]),  h = block_i(h),  pooled = tanh(W h_0 + b)

    Args:
      config: `bert_base(...)`, or one of your own.
      rate: drop probability of the embedding, the attention weights and what each part of a block
        makes; may be traced. A plain 0 leaves dropout out.

    Apply takes a BERTInput and returns a BERTOutput. Parameters: {'tokens': {'table'},
    'positions', 'segments', 'embedding_norm', 'blocks': [{'attention', ...}], 'pooler': {'kernel',
    'bias'}}; with `scan` the blocks are one tree whose leaves have a first axis of L.
    Raises: ValueError for inputs of another shape, or sequences that are too long.

    >>> model = bert(bert_base(vocabulary=10, max_length=8, features=4, num_layers=1, num_heads=2))
    >>> x = BERTInput(jnp.zeros((2, 3), int), lengths=jnp.array([3, 1]))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> features, pooled = model.apply(params, state, x)[0]
    >>> features.shape, pooled.shape
    ((2, 3, 4), (2, 4))
    """

    def init(key, x):
        _expect_input(config, x)
        pooler = _square_init(config, fold_name(key, "pooler"))
        return {**_encoder_init(config, key), "pooler": pooler}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        features = bert_features(config, params, x, rate=rate, key=key, train=train)
        return BERTOutput(features, pool(params["pooler"], features)), model_state

    return Model(init=init, apply=apply)


@within(rate="[0, 1]")
def masked_lm(config: BERTConfig, *, rate: Scalar = 0.0) -> Model:
    """BERT as it is trained: the logits of every word, from the others around it.

        logits = tokens norm(gelu(W h + b)) + c,    the table of the tokens is the last kernel

    Args: as of `bert`.

    Apply takes a BERTInput, in which words are hidden behind a token for that, and returns logits
    (B, T, V). Parameters: those of `bert` without a pooler, and 'head': {'dense': {'kernel',
    'bias'}, 'norm', 'bias': (V,)}.
    Raises: as `bert`.
    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1.

    >>> config = bert_base(vocabulary=10, max_length=8, features=4, num_layers=1, num_heads=2)
    >>> model, x = masked_lm(config), BERTInput(jnp.zeros((2, 3), int))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> jax.eval_shape(model.apply, params, state, x)[0].shape
    (2, 3, 10)
    """

    def init(key, x):
        _expect_input(config, x)
        return {**_encoder_init(config, key), "head": _head_init(config, key)}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        features = bert_features(config, params, x, rate=rate, key=key, train=train)
        head = params["head"]
        hidden = config.activation(layers.linear(head["dense"], features))
        hidden, _ = config.block.norm.apply(head["norm"], (), hidden)
        return add_bias(head, layers.unembed(params["tokens"], hidden)), model_state

    return Model(init=init, apply=apply)


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
    """What the pooler and the heads read: (B, T, E). For a head of your own.

    Raises: as `bert`.

    >>> config = bert_base(vocabulary=10, max_length=8, features=4, num_layers=1, num_heads=2)
    >>> x = BERTInput(jnp.zeros((2, 3), int))
    >>> params, _ = jax.eval_shape(bert(config).init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params: bert_features(config, params, x), params).shape
    (2, 3, 4)
    """
    _expect_input(config, x)
    drop = transformer.dropper("bert", rate, key, train)
    time = x.tokens.shape[1]
    mask = None if x.lengths is None else layers.padding_mask(x.lengths, time)
    return transformer.seeing_blocks(
        "bert",
        config.block,
        params["blocks"],
        drop("tokens", _embed(config, params, x)),
        mask,
        rate=rate,
        key=key,
        train=train,
    )


def pool(params: Params, features: Float[Array, "b t e"]) -> Float[Array, "b e"]:
    """tanh(W h_0 + b): the sentence from the features of its first token.

    >>> params = {'kernel': jnp.zeros((2, 2)), 'bias': jnp.zeros(2)}
    >>> pool(params, jnp.ones((1, 3, 2))).tolist()
    [[0.0, 0.0]]
    """
    return jnp.tanh(layers.linear(params, features[:, 0]))


def _embed(config: BERTConfig, params: Params, x: BERTInput) -> Array:
    h = layers.embedding(params["tokens"], x.tokens)
    segments = jnp.zeros_like(x.tokens) if x.segments is None else x.segments
    h = h + layers.embedding(params["segments"], segments)
    h = plus_row(h, layers.learned_positions(params["positions"], x.tokens.shape[1]))
    return config.block.norm.apply(params["embedding_norm"], (), h)[0]


def _encoder_init(config: BERTConfig, key: PRNGKey) -> Params:
    like = jax.ShapeDtypeStruct((1, 1, config.features), jnp.float32)
    sizes = {
        "tokens": config.vocabulary,
        "positions": config.max_length,
        "segments": config.num_segments,
    }
    tables = {
        name: layers.embedding_init(
            fold_name(key, name), rows, config.features, table_init=config.kernel_init
        )
        for name, rows in sizes.items()
    }
    return {
        **tables,
        "embedding_norm": config.block.norm.init(fold_name(key, "embedding_norm"), like)[0],
        "blocks": transformer.stack_init(
            lambda key: transformer.block_init(config.block, key, like),
            fold_name(key, "blocks"),
            config.num_layers,
            scan=config.scan,
        ),
    }


def _head_init(config: BERTConfig, key: PRNGKey) -> Params:
    like = jax.ShapeDtypeStruct((1, 1, config.features), jnp.float32)
    own = fold_name(key, "head")
    return {
        "dense": _square_init(config, fold_name(own, "dense")),
        "norm": config.block.norm.init(fold_name(own, "norm"), like)[0],
        "bias": jnp.zeros(config.vocabulary, jnp.float32),
    }


def _square_init(config: BERTConfig, key: PRNGKey) -> Params:
    return layers.linear_init(key, config.features, config.features, kernel_init=config.kernel_init)


def _expect_input(config: BERTConfig, x: Any) -> None:
    if not isinstance(x, BERTInput):
        raise ValueError(
            f"bert: expected a BERTInput, got {type(x).__name__}; wrap the tokens, as in "
            "BERTInput(tokens, lengths=lengths)"
        )
    expect_ids("bert", x.tokens)
    if len(x.tokens.shape) != 2:
        raise ValueError(
            f"bert: expected tokens of shape (batch, time), got {x.tokens.shape}; add the missing "
            "axis"
        )
    batch, time = x.tokens.shape
    expected = {"segments": (batch, time), "lengths": (batch,)}
    for name, shape in expected.items():
        value = getattr(x, name)
        if value is not None and value.shape != shape:
            raise ValueError(
                f"bert: expected {name} of shape {shape} for tokens {x.tokens.shape}, got "
                f"{value.shape}; give each example its own"
            )
    if time > config.max_length:
        raise ValueError(
            f"bert: expected sequences of at most max_length = {config.max_length}, got {time}; "
            "cut them, or make the model with a larger max_length"
        )


check_exports(__name__)
