"""Recurrent layers as models, over sequences of equal or unequal length.

x is an array (batch, time, features), or a pair of that array and the integers (batch,) that say
how many steps of each sequence are real. A model that is given a pair returns a pair, so recurrent
layers stack in `sequential` either way; `keep_lengths` takes any other layer past the lengths, and
`last_step` ends the sequence:

    sequential(keep_lengths(embedding(vocabulary, 64)), bidirectional(lstm(64)), lstm(64),
               last_step(), linear(classes))
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fnn import layers
from fnn.dtypes import indices
from fnn.initializers import Initializer, blockwise, lecun_normal, ones, orthogonal, zeros
from fnn.nn._base import Layer, as_model
from fnn.nn._children import apply_child, init_child
from fnn.types import Model, Params, PRNGKey, Scalar


def split_lengths(x: Any) -> tuple[Any, Any]:
    """The values and the lengths of x; None for the lengths of a plain array.

    >>> split_lengths('x'), split_lengths(('x', 'lengths'))
    (('x', None), ('x', 'lengths'))
    """
    return x if isinstance(x, tuple) else (x, None)


def _join(y: Any, lengths: Any) -> Any:
    return y if lengths is None else (y, lengths)


def _recurrent(
    name: str,
    init_cell: Callable[[PRNGKey, int], Params],
    layer: Callable[..., tuple[Any, Array]],
) -> Model:
    def init(key, x):
        values, _ = split_lengths(x)
        if len(values.shape) != 3:
            raise ValueError(
                f"{name}: expected x of shape (batch, time, features), got {values.shape}; "
                "put an embedding in front, or add the missing axis"
            )
        return init_cell(key, values.shape[-1]), ()

    def apply(params, model_state, x, *, key=None, train=False):
        values, lengths = split_lengths(x)
        return _join(layer(params, values, lengths=lengths)[1], lengths), model_state

    return Model(init=init, apply=apply)


def rnn(
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    recurrent_init: Initializer = blockwise(orthogonal()),
    bias_init: Initializer = zeros,
) -> Model:
    """The plain recurrent layer as a model; see `layers.rnn`.

    Args:
      hidden: size of the hidden state.
      kernel_init, recurrent_init, bias_init: see `layers.rnn_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the hidden states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> params, _ = rnn(4).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> rnn(4).apply(params, (), jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 4)
    """

    def init_cell(key, features):
        inits = dict(kernel_init=kernel_init, recurrent_init=recurrent_init, bias_init=bias_init)
        return layers.rnn_cell_init(key, features, hidden, **inits)

    return _recurrent("rnn", init_cell, layers.rnn)


def lstm(
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    recurrent_init: Initializer = blockwise(orthogonal()),
    bias_init: Initializer = zeros,
    forget_bias: Scalar = 1.0,
) -> Model:
    """Long short-term memory as a model; see `layers.lstm`.

    Args:
      hidden: size of the hidden state and of the cell.
      kernel_init, recurrent_init, bias_init, forget_bias: see `layers.lstm_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the hidden states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> x = jnp.zeros((2, 5, 3)), jnp.array([5, 2])
    >>> params, _ = lstm(4).init(jax.random.key(0), x)
    >>> (y, lengths), _ = lstm(4).apply(params, (), x)
    >>> y.shape, lengths.tolist()
    ((2, 5, 4), [5, 2])
    """

    def init_cell(key, features):
        return layers.lstm_cell_init(
            key,
            features,
            hidden,
            kernel_init=kernel_init,
            recurrent_init=recurrent_init,
            bias_init=bias_init,
            forget_bias=forget_bias,
        )

    return _recurrent("lstm", init_cell, layers.lstm)


def gru(
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    recurrent_init: Initializer = blockwise(orthogonal()),
    bias_init: Initializer = zeros,
) -> Model:
    """The gated recurrent unit as a model; see `layers.gru`.

    Args:
      hidden: size of the hidden state.
      kernel_init, recurrent_init, bias_init: see `layers.gru_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the hidden states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> params, _ = gru(4).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> gru(4).apply(params, (), jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 4)
    """

    def init_cell(key, features):
        inits = dict(kernel_init=kernel_init, recurrent_init=recurrent_init, bias_init=bias_init)
        return layers.gru_cell_init(key, features, hidden, **inits)

    return _recurrent("gru", init_cell, layers.gru)


def linear_recurrence(
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    gate_bias_init: Initializer = ones,
    bias_init: Initializer = zeros,
) -> Model:
    """The gated linear recurrence as a model; see `layers.linear_recurrence`.

    Args:
      hidden: size of the state.
      kernel_init, gate_bias_init, bias_init: see `layers.linear_recurrence_cell_init`.

    Apply takes x (batch, time, features), or a pair (x, lengths), and returns the states
    (batch, time, hidden), or the pair of them and the lengths.

    >>> params, _ = linear_recurrence(4).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> linear_recurrence(4).apply(params, (), jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 4)
    """

    def init_cell(key, features):
        inits = dict(kernel_init=kernel_init, gate_bias_init=gate_bias_init, bias_init=bias_init)
        return layers.linear_recurrence_cell_init(key, features, hidden, **inits)

    return _recurrent("linear_recurrence", init_cell, layers.linear_recurrence)


def bidirectional(layer: Model) -> Model:
    """One layer from first to last step, its twin from last to first; the outputs side by side.

    Args:
      layer: of sequences, such as `lstm(64)`. The twin has parameters and noise of its own.

    Apply takes x (batch, time, features), or a pair (x, lengths): then each sequence is reversed
    within its own length. It returns (batch, time, 2 hidden), forward first, or the pair of that
    and the lengths. Parameters and state: {'forward': ..., 'backward': ...}.
    Raises: ValueError if the layer does not keep the axes of batch and time.
    Source: Schuster & Paliwal 1997, Bidirectional recurrent neural networks.

    >>> params, state = bidirectional(gru(4)).init(jax.random.key(0), jnp.zeros((2, 5, 3)))
    >>> bidirectional(gru(4)).apply(params, state, jnp.zeros((2, 5, 3)))[0].shape
    (2, 5, 8)
    """

    def init(key, x):
        parts = {name: init_child(layer, (name,), key, x) for name in ("forward", "backward")}
        return tuple({name: part[i] for name, part in parts.items()} for i in (0, 1))

    def apply(params, model_state, x, *, key=None, train=False):
        inputs, outputs, states = {"forward": x, "backward": _reverse(x)}, {}, {}
        for name, turned in inputs.items():
            outputs[name], states[name] = apply_child(
                layer, (name,), params, model_state, turned, key=key, train=train
            )
        _expect_steps(x, outputs["forward"])
        ahead, lengths = split_lengths(outputs["forward"])
        behind, _ = split_lengths(_reverse(outputs["backward"]))
        return _join(jnp.concatenate([ahead, behind], axis=-1), lengths), states

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
            f"lengths of x where it has them, got shape {outputs.shape}; put last_step() and the "
            "like behind bidirectional, and other layers into keep_lengths"
        )


def _reverse(x: Any) -> Any:
    values, lengths = split_lengths(x)
    return _join(layers.reverse_sequences(values, lengths=lengths), lengths)


def keep_lengths(layer: Layer) -> Model:
    """`layer` on the values of a pair (values, lengths), and the lengths with what it makes.

    Args:
      layer: a model or plain function that knows nothing of lengths, and treats each step alike:
        an embedding, a linear layer, dropout. Its outputs at padding are ignored by the recurrent
        layers above.

    A plain array, without lengths, goes through `layer` as it is.

    >>> y, lengths = keep_lengths(jnp.cos).apply({}, (), (jnp.zeros((2, 1, 1)), jnp.ones(2)))[0]
    >>> y.ravel().tolist(), lengths.tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    model = as_model(layer, "keep_lengths")

    def init(key, x):
        return model.init(key, split_lengths(x)[0])

    def apply(params, model_state, x, *, key=None, train=False):
        values, lengths = split_lengths(x)
        y, model_state = model.apply(params, model_state, values, key=key, train=train)
        return _join(y, lengths), model_state

    return Model(init=init, apply=apply)


def last_step() -> Model:
    """The values at each sequence's last real step: (batch, time, ...) to (batch, ...).

    Apply takes x, or a pair (x, lengths). A sequence of length 0 gives its first step, which is 0
    behind a recurrent layer. Behind `bidirectional`, the backward half of that step has seen no
    other step.

    >>> x = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]])
    >>> last_step().apply({}, (), (x, jnp.array([3, 2])))[0].tolist()
    [3.0, 5.0]
    """

    def apply(params, model_state, x, *, key=None, train=False):
        values, lengths = split_lengths(x)
        if lengths is None:
            return values[:, -1], model_state
        last = jnp.clip(indices(lengths), 1, values.shape[1]) - 1
        rows = jnp.arange(values.shape[0], dtype=jnp.int32)
        return values[rows, last], model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)
