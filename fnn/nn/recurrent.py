"""Recurrent layers, over sequences of equal or unequal length.

x is an array (batch, time, features), or a pair of that array and integers (batch,), the number of
real steps of each sequence. A model that gets a pair returns a pair, so recurrent layers stack in
`sequential` either way; `keep_lengths` passes the lengths around any other layer, and `last_step`
ends the sequence:

    sequential(keep_lengths(embedding(vocabulary, 64)), bidirectional(lstm(64)), lstm(64),
               last_step(), linear(classes))
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fnn import layers
from fnn.dtypes import indices
from fnn.nn._base import InitParams, Layer, as_model, stateless, takes_arguments_of
from fnn.nn._children import apply_child, init_child
from fnn.nn.embedding import expect_sequences
from fnn.types import Model, ModelState, Params, PRNGKey


def split_lengths(x: Any) -> tuple[Any, Any]:
    """The values and the lengths of x; None for the lengths of a plain array."""
    return x if isinstance(x, tuple) else (x, None)


def _join(y: Any, lengths: Any) -> Any:
    return y if lengths is None else (y, lengths)


def _recurrent(where: str, init_cell: InitParams, layer: Callable[..., tuple[Any, Array]]) -> Model:
    def init(key: PRNGKey, x: Any) -> Params:
        values, _ = split_lengths(x)
        expect_sequences(where, values)
        return init_cell(key, values)

    def apply(params: Params, x: Any) -> Any:
        values, lengths = split_lengths(x)
        return _join(layer(params, values, lengths=lengths)[1], lengths)

    return stateless(init, apply)


@takes_arguments_of(layers.rnn_cell_init)
def rnn(init: InitParams) -> Model:
    """The plain recurrent layer; see `layers.rnn` and `layers.rnn_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the hidden states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> params, _ = rnn(4).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> rnn(4).apply(params, (), jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    return _recurrent("rnn", init, layers.rnn)


@takes_arguments_of(layers.lstm_cell_init)
def lstm(init: InitParams) -> Model:
    """Long short-term memory; see `layers.lstm` and `layers.lstm_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the hidden states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> x = jnp.zeros((2, 5, 3)), jnp.array([5, 2])
    >>> params, _ = lstm(4).init(jax.random.key(0), x)
    >>> (y, lengths), _ = lstm(4).apply(params, (), x)
    >>> y.shape, lengths.tolist()
    ((2, 5, 4), [5, 2])
    """
    return _recurrent("lstm", init, layers.lstm)


@takes_arguments_of(layers.gru_cell_init)
def gru(init: InitParams) -> Model:
    """The gated recurrent unit; see `layers.gru` and `layers.gru_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the hidden states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> params, _ = gru(4).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> gru(4).apply(params, (), jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    return _recurrent("gru", init, layers.gru)


@takes_arguments_of(layers.linear_recurrence_cell_init)
def linear_recurrence(init: InitParams) -> Model:
    """The gated linear recurrence; see `layers.linear_recurrence` and its `_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> params, _ = linear_recurrence(4).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> linear_recurrence(4).apply(params, (), jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    return _recurrent("linear_recurrence", init, layers.linear_recurrence)


def bidirectional(layer: Model) -> Model:
    """A layer over the steps forward, and one backward; concatenates their outputs.

    Args:
      layer: of sequences, such as `lstm(64)`. Each direction has its own parameters and noise.

    Apply takes x (batch, time, features), or a pair (x, lengths): then each sequence is reversed
    within its own length. It returns (batch, time, 2 hidden), forward first, or the pair of that
    and the lengths. Parameters and state: {'forward': ..., 'backward': ...}.
    Raises: ValueError if the layer does not keep the axes of batch and time.
    Source: Schuster & Paliwal 1997, Bidirectional recurrent neural networks.

    >>> params, state = bidirectional(gru(4)).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> bidirectional(gru(4)).apply(params, state, jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 8)
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        parts = {name: init_child(layer, (name,), key, x) for name in ("forward", "backward")}
        params, state = ({name: part[i] for name, part in parts.items()} for i in (0, 1))
        return params, state

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        outputs, states = {}, {}
        for name, values in {"forward": x, "backward": _reverse(x)}.items():
            outputs[name], states[name] = apply_child(
                layer, (name,), params, model_state, values, key=key, train=train
            )
        _expect_steps(x, outputs["forward"])
        forward, lengths = split_lengths(outputs["forward"])
        backward, _ = split_lengths(_reverse(outputs["backward"]))
        return _join(jnp.concatenate([forward, backward], axis=-1), lengths), states

    return Model(init=init, apply=apply)


def _expect_steps(x: Any, y: Any) -> None:
    (inputs, lengths), (outputs, kept) = split_lengths(x), split_lengths(y)
    if (
        outputs.ndim < 3
        or outputs.shape[:2] != inputs.shape[:2]
        or (lengths is None) != (kept is None)
    ):
        raise ValueError(
            f"bidirectional: expected outputs for each of the {inputs.shape[1]} steps, with the "
            f"lengths of x where it has them, got shape {outputs.shape}; put last_step() "
            "after bidirectional, and other layers into keep_lengths"
        )


def _reverse(x: Any) -> Any:
    values, lengths = split_lengths(x)
    return _join(layers.reverse_sequences(values, lengths=lengths), lengths)


def keep_lengths(layer: Layer) -> Model:
    """Applies `layer` to the values of a pair (values, lengths), and returns the lengths with them.

    A plain array, without lengths, is the input of `layer` itself.

    Args:
      layer: a model or plain function without lengths, which treats each step alike: an embedding,
        a linear layer, dropout. The recurrent layers above ignore its outputs at padding.

    >>> y, lengths = keep_lengths(jnp.cos).apply({}, (), (jnp.zeros((2, 1, 1)), jnp.ones(2)))[0]
    >>> y.ravel().tolist(), lengths.tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    model = as_model(layer, "keep_lengths")

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        return model.init(key, split_lengths(x)[0])

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        values, lengths = split_lengths(x)
        y, model_state = model.apply(params, model_state, values, key=key, train=train)
        return _join(y, lengths), model_state

    return Model(init=init, apply=apply)


def last_step() -> Model:
    """The values at the last real step of each sequence: (batch, time, ...) to (batch, ...).

    Apply takes x, or a pair (x, lengths). A sequence of length 0 gives its first step, which is 0
    after a recurrent layer. After `bidirectional`, the backward half of the last step has seen
    that step alone.

    >>> x = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]])
    >>> last_step().apply({}, (), (x, jnp.array([3, 2])))[0].tolist()
    [3.0, 5.0]
    """
    return stateless(lambda key, x: {}, lambda params, x: _last_step(x))


def _last_step(x: Any) -> Any:
    values, lengths = split_lengths(x)
    if lengths is None:
        return values[:, -1]
    last = jnp.clip(indices(lengths), 1, values.shape[1]) - 1
    return values[jnp.arange(values.shape[0], dtype=jnp.int32), last]
