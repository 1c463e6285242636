"""A recurrent language model. B batch, T time, V vocabulary size, E embedding, H hidden features.

`rnn_lm` reads whole sequences; `rnn_decoder` continues them with the same parameters, at a cost per
token that does not grow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import layers
from fnn._arguments import check_exports
from fnn.expect import in_layer, within
from fnn.initializers import Initializer, lecun_normal
from fnn.keys import fold_name, key_of_noise
from fnn.layers.embedding import unit_rows
from fnn.losses import LazyLogits
from fnn.models._common import expect_tokens, stochastic
from fnn.types import Decoder, Model, Params, PRNGKey, Scalar

__all__ = ["GRU", "LSTM", "RNN", "RNNLMConfig", "Recurrent", "rnn_decoder", "rnn_lm"]

Carry = list[Any]  # the state of each layer, the first layer first; batch axis first


class Recurrent(NamedTuple):
    """A recurrent layer as two functions of `fnn.layers`."""

    init: Callable[..., Params]  # (key, in_features, hidden) -> params
    layer: Callable[..., tuple[Any, Array]]  # (params, x, carry=) -> carry, y


RNN = Recurrent(layers.rnn_cell_init, layers.rnn)
LSTM = Recurrent(layers.lstm_cell_init, layers.lstm)
GRU = Recurrent(layers.gru_cell_init, layers.gru)


@dataclass(frozen=True, kw_only=True)
class RNNLMConfig:
    """Shapes and layers of a recurrent language model."""

    vocab_size: int  # V
    features: int = 64  # E
    widths: tuple[int, ...] = (256,)  # H of each layer, the first layer first
    cell: Recurrent = LSTM  # or RNN, GRU, or two functions of your own
    table_init: Initializer = unit_rows
    head_init: Initializer = lecun_normal()


@within(rate="[0, 1]")
def rnn_lm(config: RNNLMConfig, *, rate: Scalar = 0.0) -> Model:
    """Embedding, recurrent layers and a linear head: the logits of the next token.

    Args:
      config: shapes and layers.
      rate: dropout rate after the embedding and after each layer, but not between time steps; may
        be traced.

    Apply takes tokens (B, T), integers in [0, V), and returns logits (B, T, V), with
    train=True as `losses.LazyLogits`. Parameters:
    {'embedding': {'table'}, 'layers': [...], 'head': {'kernel', 'bias'}}.
    Raises: ValueError for a config without a layer, and for tokens that are not integers (B, T).
    Source: Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329 (where dropout is applied).

    >>> model = rnn_lm(RNNLMConfig(vocab_size=27, features=4, widths=(8,)))
    >>> tokens = jnp.zeros((2, 5), jnp.int32)
    >>> params, state = model.init(jax.random.key(0), tokens)
    >>> model.apply(params, state, tokens)[0].shape
    (2, 5, 27)
    """
    if not config.widths:
        raise ValueError("rnn_lm: expected the width of one or more layers, got (); give (256,)")

    def init(key: PRNGKey, x: Any) -> Params:
        expect_tokens("rnn_lm", x)
        return _init(config, key)

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> Array | LazyLogits:
        expect_tokens("rnn_lm", x)
        noise = key_of_noise("rnn_lm", rate, key, train)
        drop = None if noise is None else partial(_drop, noise, rate)
        features, head = _features(config, params, None, x, drop)[1], params["head"]
        if train:
            return LazyLogits(x=features, kernel=head["kernel"], bias=head["bias"])
        return _head(params, features)

    return stochastic(init, forward)


def rnn_decoder(config: RNNLMConfig) -> Decoder:
    """`rnn_lm` a few tokens at a time: for `generate`.

    >>> config = RNNLMConfig(vocab_size=27, features=4, widths=(8,), cell=GRU)
    >>> params, _ = rnn_lm(config).init(jax.random.key(0), jnp.zeros((2, 5), jnp.int32))
    >>> decoder = rnn_decoder(config)
    >>> carry = decoder.init(params, 2, 100)
    >>> logits, carry = decoder.step(params, jnp.array([[3], [4]]), carry)
    >>> logits.shape, carry[0].shape
    ((2, 1, 27), (2, 8))
    """

    def init(params: Params, batch: int, length: int) -> Carry:
        tokens = jax.ShapeDtypeStruct((batch, 1), jnp.int32)
        carry, _ = jax.eval_shape(lambda p, x: _features(config, p, None, x), params, tokens)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry)

    def step(params: Params, tokens: Any, carry: Carry) -> tuple[Array, Carry]:
        expect_tokens("rnn_decoder", tokens)
        carry, features = _features(config, params, carry, tokens)
        return _head(params, features), carry

    return Decoder(init=init, step=step)


def _drop(key: PRNGKey, rate: Scalar, i: int, x: Array) -> Array:
    return layers.dropout(jax.random.fold_in(key, i), x, rate)


def _init(config: RNNLMConfig, key: PRNGKey) -> Params:
    sizes = (config.features, *config.widths)
    table = layers.embedding_init(
        fold_name(key, "embedding"),
        config.vocab_size,
        config.features,
        table_init=config.table_init,
    )
    head = layers.linear_init(
        fold_name(key, "head"), sizes[-1], config.vocab_size, kernel_init=config.head_init
    )
    keys = [jax.random.fold_in(fold_name(key, "layers"), i) for i in range(len(config.widths))]
    cells = [config.cell.init(k, sizes[i], sizes[i + 1]) for i, k in enumerate(keys)]
    return {"embedding": table, "layers": cells, "head": head}


def _features(
    config: RNNLMConfig,
    params: Params,
    carry: Carry | None,
    tokens: Array,
    drop: Callable[[int, Array], Array] | None = None,
) -> tuple[Carry, Array]:
    starts = [None] * len(config.widths) if carry is None else carry
    layer, embedding, carries = config.cell.layer, params["embedding"], []
    x: Any = None if drop is None else drop(0, layers.embedding(embedding, tokens))
    for i, (own, start) in enumerate(zip(params["layers"], starts, strict=True)):
        with in_layer(("layers", i), tokens if x is None else x):
            if x is None:
                last, x = layers.over_tokens(layer, own, embedding["table"], tokens, carry=start)
            else:
                last, x = layer(own, x, carry=start)
        carries.append(last)
        x = x if drop is None else drop(i + 1, x)
    return carries, x


def _head(params: Params, x: Array) -> Array:
    with in_layer(("head",), x):
        return layers.linear(params["head"], x)


check_exports(__name__)
