"""Recurrent cells and layers: the plain cell, LSTM and GRU.

Each exists as a cell, for one step, and as a layer over time (`rnn`, `lstm`, `gru`) with the same
parameters, which multiplies all steps by the input kernel at once. Parameters: {'input':
{'kernel', 'bias'}, 'hidden': {'kernel'}}, the gates concatenated along the last axis.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from fnn.activations import sigmoid
from fnn.initializers import Initializer, blockwise, lecun_normal, orthogonal, zeros
from fnn.keys import fold_name
from fnn.layers._recurrent_vjp import Cell, Slopes, cell_step, unroll
from fnn.layers.embedding import embedding
from fnn.layers.linear import add_bias, linear, linear_init
from fnn.layers.sequence import Carry, expect_carry, keep_real, real_steps
from fnn.types import Params, PRNGKey, Scalar
from fnn.xla import is_symbolic


def _cell_init(
    key: PRNGKey,
    in_features: int,
    hidden: int,
    blocks: int,
    kernel_init: Initializer,
    recurrent_init: Initializer,
    bias_init: Initializer,
) -> Params:
    inputs = linear_init(
        fold_name(key, "input"),
        in_features,
        blocks * hidden,
        kernel_init=kernel_init,
        bias_init=bias_init,
    )
    recurrent = linear_init(
        fold_name(key, "hidden"), hidden, blocks * hidden, bias=False, kernel_init=recurrent_init
    )
    return {"input": inputs, "hidden": recurrent}


class _Layer(NamedTuple):
    """A cell, its inputs, and its carry of zeros."""

    name: str
    cell: Cell
    inputs: Callable[[Params, Array], tuple[Array, ...]]  # from x, at one step or at all steps
    carry: Callable[[Array], Carry]  # from a hidden state of zeros


def _start(layer: _Layer, kernel: Array, like: Array, carry: Carry | None) -> Carry:
    hidden = jnp.zeros((*like.shape[:-1], kernel.shape[0]), like.dtype)
    if carry is None:
        return layer.carry(hidden)
    expect_carry(layer.name, layer.carry(hidden), carry)
    return carry


def _one_step(layer: _Layer, params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
    kernel = params["hidden"]["kernel"]
    inputs = layer.inputs(params, x)
    return cell_step(layer.cell, kernel, _start(layer, kernel, inputs[0], carry), inputs)


def _all_steps(
    layer: _Layer, params: Params, x: Array, carry: Carry | None, lengths: Array | None
) -> tuple[Carry, Array]:
    if x.ndim != 3:
        raise ValueError(
            f"{layer.name}: expected x of shape (batch, time, features), got {x.shape}; "
            f"put the batch first, or use {layer.name}_cell for a single step"
        )
    valid = real_steps(layer.name, x, lengths)
    inputs = layer.inputs(params, jnp.swapaxes(keep_real(x, valid), 0, 1))
    carry, hidden = _unrolled(layer, params, inputs, carry, valid)
    return carry, keep_real(hidden, valid)


def _unrolled(
    layer: _Layer,
    params: Params,
    inputs: tuple[Array, ...],
    carry: Carry | None,
    valid: Array | None,
) -> tuple[Carry, Array]:
    kernel = params["hidden"]["kernel"]
    start = _start(layer, kernel, inputs[0][0], carry)
    carry, hidden = unroll(layer.cell, kernel, start, inputs, valid)
    return carry, jnp.swapaxes(hidden, 0, 1)


def rnn_cell_init(
    key: PRNGKey,
    in_features: int,
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    recurrent_init: Initializer = blockwise(orthogonal()),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `rnn_cell` and `rnn`.

    Args:
      in_features: I.
      hidden: H, the size of the hidden state.
      kernel_init, recurrent_init, bias_init: initializers of the kernel of the input, of the
        kernel of the hidden state, and of the bias.

    Returns: {'input': {'kernel': (I, H), 'bias': (H,)}, 'hidden': {'kernel': (H, H)}}, float32.

    >>> rnn_cell_init(jax.random.key(0), 3, 4)['hidden']['kernel'].shape
    (4, 4)
    """
    return _cell_init(key, in_features, hidden, 1, kernel_init, recurrent_init, bias_init)


def _rnn_inputs(params: Params, x: Array) -> tuple[Array, ...]:
    return (linear(params["input"], x),)


def _rnn_advance(hidden: Array, sums: list[Array], others: Any) -> tuple[Array, Slopes]:
    h = jnp.tanh(sums[0])
    return h, 1 - h * h


def _rnn_pull(slope: Array, dh: Array) -> tuple[Array, list[Array], tuple[Array, ...]]:
    return jnp.zeros_like(dh), [dh * slope], ()


_RNN = _Layer(
    "rnn", Cell(1, lambda hidden: hidden, _rnn_advance, _rnn_pull), _rnn_inputs, lambda h: h
)


def rnn_cell(
    params: Params, carry: Float[Array, "..."], x: Float[Array, "*batch in"]
) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
    """h' = tanh(x W + h U + b): the plain recurrent cell.

    Args:
      carry: h (*batch, hidden); zeros to start.
      x: (*batch, in_features), one time step.

    Returns: h' twice, as the carry and as the output.
    Raises: ValueError if x or the carry do not fit the parameters.
    Source: Elman 1990, Finding structure in time; with tanh, as is usual since.

    >>> params = {'input': {'kernel': jnp.ones((1, 1))}, 'hidden': {'kernel': jnp.ones((1, 1))}}
    >>> rnn_cell(params, jnp.array([[0.5]]), jnp.array([[-0.5]]))[1].tolist()
    [[0.0]]
    """
    return _one_step(_RNN, params, carry, x)


def rnn(
    params: Params,
    x: Float[Array, "..."],
    *,
    carry: Float[Array, "..."] | None = None,
    lengths: Integer[Array, "..."] | None = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch time hidden"]]:
    """`rnn_cell` over time.

    Args:
      params: from `rnn_cell_init`.
      x: (batch, time, in_features).
      carry: the hidden state to start from, (batch, hidden); None for zeros.
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Returns: the hidden state after each sequence's last real step (batch, hidden), and those of
      all steps (batch, time, hidden), 0 at padding.
    Raises: ValueError if x, the carry or the lengths do not fit.

    >>> params = rnn_cell_init(jax.random.key(0), 3, 4)
    >>> carry, y = rnn(params, jnp.ones((2, 5, 3)), lengths=jnp.array([5, 2]))
    >>> carry.shape, y.shape, bool((y[1, 2:] == 0).all()), bool((carry[1] == y[1, 1]).all())
    ((2, 4), (2, 5, 4), True, True)
    """
    return _all_steps(_RNN, params, x, carry, lengths)


class LSTMCarry(NamedTuple):
    """The state of an LSTM."""

    hidden: Float[Array, "*batch hidden"]  # h, also the output
    cell: Float[Array, "*batch hidden"]  # c


def lstm_cell_init(
    key: PRNGKey,
    in_features: int,
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    recurrent_init: Initializer = blockwise(orthogonal()),
    bias_init: Initializer = zeros,
    forget_bias: Scalar = 1.0,
) -> Params:
    """Parameters of `lstm_cell` and `lstm`; with the gates in the order i, f, g, o.

    Args:
      in_features: I.
      hidden: H, the size of the hidden state and of the cell.
      kernel_init, recurrent_init, bias_init: initializers of the kernel of the input, of the
        kernel of the hidden state (all gates at once), and of the bias.
      forget_bias: added to the bias of the forget gate. 1 as in Keras and Haiku (Jozefowicz et al.
        2015); 0 in Flax, PyTorch and Equinox.

    Returns: {'input': {'kernel': (I, 4H), 'bias': (4H,)}, 'hidden': {'kernel': (H, 4H)}}, float32.
      PyTorch has a second bias, which is redundant: add the two.

    >>> lstm_cell_init(jax.random.key(0), 3, 2)['input']['bias'].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    params = _cell_init(key, in_features, hidden, 4, kernel_init, recurrent_init, bias_init)
    bias = params["input"]["bias"]
    forget = bias.at[hidden : 2 * hidden].add(jnp.asarray(forget_bias, bias.dtype))
    return {**params, "input": {**params["input"], "bias": forget}}


def _lstm_inputs(params: Params, x: Array) -> tuple[Array, ...]:
    return tuple(jnp.split(linear(params["input"], x), 4, axis=-1))


class _LSTMSlopes(NamedTuple):
    i: Array  # dc'/d(sum of the gate) for i, f and g; dh'/d(sum of o)
    f: Array
    g: Array
    o: Array
    new: Array  # dh'/dc'
    old: Array  # dc'/dc


def _lstm_advance(
    carry: LSTMCarry, sums: list[Array], others: Any
) -> tuple[LSTMCarry, _LSTMSlopes]:
    i, f, g, o = sigmoid(sums[0]), sigmoid(sums[1]), jnp.tanh(sums[2]), sigmoid(sums[3])
    c = f * carry.cell + i * g
    t = jnp.tanh(c)
    slopes = _LSTMSlopes(
        i=g * i * (1 - i),
        f=carry.cell * f * (1 - f),
        g=i * (1 - g * g),
        o=t * o * (1 - o),
        new=o * (1 - t * t),
        old=f,
    )
    return LSTMCarry(hidden=o * t, cell=c), slopes


def _lstm_pull(
    slopes: _LSTMSlopes, d: LSTMCarry
) -> tuple[LSTMCarry, list[Array], tuple[Array, ...]]:
    dc = d.cell + d.hidden * slopes.new
    dsums = [dc * slopes.i, dc * slopes.f, dc * slopes.g, d.hidden * slopes.o]
    return LSTMCarry(hidden=jnp.zeros_like(d.hidden), cell=dc * slopes.old), dsums, ()


_LSTM = _Layer(
    "lstm",
    Cell(4, lambda carry: carry.hidden, _lstm_advance, _lstm_pull),
    _lstm_inputs,
    lambda h: LSTMCarry(hidden=h, cell=h),
)


def lstm_cell(
    params: Params, carry: LSTMCarry, x: Float[Array, "*batch in"]
) -> tuple[LSTMCarry, Float[Array, "*batch hidden"]]:
    """The long short-term memory cell.

        i, f, g, o = x W + h U + b
        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(c')

    Args:
      params: from `lstm_cell_init`.
      carry: h and c, each (*batch, hidden); zeros to start.
      x: (*batch, in_features), one time step.

    Returns: the new carry, and h'.
    Raises: ValueError if x or the carry do not fit the parameters.
    Source: Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber & Cummins 2000.

    >>> params = lstm_cell_init(jax.random.key(0), 3, 4)
    >>> carry = LSTMCarry(hidden=jnp.zeros((2, 4)), cell=jnp.zeros((2, 4)))
    >>> carry, y = lstm_cell(params, carry, jnp.ones((2, 3)))
    >>> y.shape, y is carry.hidden
    ((2, 4), True)
    """
    return _one_step(_LSTM, params, carry, x)


def lstm(
    params: Params,
    x: Float[Array, "..."],
    *,
    carry: LSTMCarry | None = None,
    lengths: Integer[Array, "..."] | None = None,
) -> tuple[LSTMCarry, Float[Array, "batch time hidden"]]:
    """`lstm_cell` over time.

    Args:
      params: from `lstm_cell_init`.
      x: (batch, time, in_features).
      carry: h and c to start from, each (batch, hidden); None for zeros.
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Returns: the carry after each sequence's last real step, and h of all steps
      (batch, time, hidden), 0 at padding.
    Raises: ValueError if x, the carry or the lengths do not fit.

    >>> params = lstm_cell_init(jax.random.key(0), 3, 4)
    >>> carry, y = lstm(params, jnp.ones((2, 5, 3)))
    >>> carry.cell.shape, y.shape
    ((2, 4), (2, 5, 4))
    """
    return _all_steps(_LSTM, params, x, carry, lengths)


def gru_cell_init(
    key: PRNGKey,
    in_features: int,
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    recurrent_init: Initializer = blockwise(orthogonal()),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `gru_cell` and `gru`; with the gates in the order r, z, n.

    Args:
      in_features: I.
      hidden: H, the size of the hidden state.
      kernel_init, recurrent_init, bias_init: initializers of the kernel of the input, of the
        kernel of the hidden state (all gates at once), and of both biases.

    Returns: {'input': {'kernel': (I, 3H), 'bias': (3H,)}, 'hidden': {'kernel': (H, 3H), 'bias':
      (H,)}}, float32. The second bias belongs to n, inside the reset; PyTorch has one for r and z
      as well, which is redundant: add it to the first.

    >>> jax.tree.map(jnp.shape, gru_cell_init(jax.random.key(0), 3, 2)['hidden'])
    {'bias': (2,), 'kernel': (2, 6)}
    """
    params = _cell_init(key, in_features, hidden, 3, kernel_init, recurrent_init, bias_init)
    bias = bias_init(fold_name(fold_name(key, "hidden"), "bias"), (hidden,))
    return {**params, "hidden": {**params["hidden"], "bias": bias}}


def _gru_inputs(params: Params, x: Array) -> tuple[Array, ...]:
    r, z, n = jnp.split(linear(params["input"], x), 3, axis=-1)
    return r, z, add_bias(params["hidden"], jnp.zeros_like(n)), n


class _GRUSlopes(NamedTuple):
    r: Array  # dh' by the sums of r and z, the third product, the input of n, and h
    z: Array
    product: Array
    n: Array
    old: Array


def _gru_advance(
    h: Array, sums: list[Array], others: tuple[Array, ...]
) -> tuple[Array, _GRUSlopes]:
    r, z, product = sigmoid(sums[0]), sigmoid(sums[1]), sums[2]
    n = jnp.tanh(others[0] + r * product)
    by_n = (1 - z) * (1 - n * n)
    slopes = _GRUSlopes(
        r=by_n * product * r * (1 - r), z=(h - n) * z * (1 - z), product=by_n * r, n=by_n, old=z
    )
    return (1 - z) * n + z * h, slopes


def _gru_pull(slopes: _GRUSlopes, dh: Array) -> tuple[Array, list[Array], tuple[Array, ...]]:
    return dh * slopes.old, [dh * slopes.r, dh * slopes.z, dh * slopes.product], (dh * slopes.n,)


_GRU = _Layer(
    "gru", Cell(3, lambda hidden: hidden, _gru_advance, _gru_pull), _gru_inputs, lambda h: h
)


def gru_cell(
    params: Params, carry: Float[Array, "..."], x: Float[Array, "*batch in"]
) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
    """The gated recurrent unit, with the reset after the product.

        r = sigmoid(x W_r + b_r + h U_r),    z = sigmoid(x W_z + b_z + h U_z)
        n = tanh(x W_n + b_n + r (h U_n + d))
        h' = (1 - z) n + z h

    Args:
      params: from `gru_cell_init`.
      carry: h (*batch, hidden); zeros to start.
      x: (*batch, in_features), one time step.

    Returns: h' twice, as the carry and as the output.
    Raises: ValueError if x or the carry do not fit the parameters.
    Source: Cho et al. 2014, arXiv:1406.1078. Deviates: the reset gate acts on h U_n + d instead of
      on h, as in cuDNN, PyTorch, Flax and Keras, so that one product serves all gates; and z keeps
      the old state, where the paper's first version writes the new one.

    >>> params = gru_cell_init(jax.random.key(0), 3, 4)
    >>> gru_cell(params, jnp.zeros((2, 4)), jnp.ones((2, 3)))[1].shape
    (2, 4)
    """
    return _one_step(_GRU, params, carry, x)


def gru(
    params: Params,
    x: Float[Array, "..."],
    *,
    carry: Float[Array, "..."] | None = None,
    lengths: Integer[Array, "..."] | None = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch time hidden"]]:
    """`gru_cell` over time.

    Args:
      params: from `gru_cell_init`.
      x: (batch, time, in_features).
      carry: the hidden state to start from, (batch, hidden); None for zeros.
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Returns: the hidden state after each sequence's last real step (batch, hidden), and those of
      all steps (batch, time, hidden), 0 at padding.
    Raises: ValueError if x, the carry or the lengths do not fit.

    >>> params = gru_cell_init(jax.random.key(0), 3, 4)
    >>> gru(params, jnp.ones((2, 5, 3)))[1].shape
    (2, 5, 4)
    """
    return _all_steps(_GRU, params, x, carry, lengths)


def over_tokens(
    layer: Callable[..., tuple[Carry, Array]],
    params: Params,
    table: Float[Array, "vocabulary in"],
    tokens: Integer[Array, "batch time"],
    *,
    carry: Carry | None = None,
) -> tuple[Carry, Float[Array, "batch time hidden"]]:
    """`layer` over embedded tokens: layer(params, table[tokens]), with fewer products.

    With fewer rows in the table than tokens, as for characters, the rows are multiplied by the
    input kernel before the lookup, once each.

    Args:
      layer: `rnn`, `lstm` or `gru`; any other layer is applied to the embedded tokens.
      table: that of `embedding_init`.
      tokens: integers in [0, vocabulary), as in `embedding`.
      carry: the initial carry; None for the layer's own.

    Returns: those of the layer.
    Raises: ValueError for tokens that are not integers, or shapes that do not fit.

    >>> params, table = rnn_cell_init(jax.random.key(0), 3, 4), jnp.ones((2, 3))
    >>> over_tokens(rnn, params, table, jnp.array([[0, 1, 0]]))[1].shape
    (1, 3, 4)
    """
    known = next(
        (own for its, own in ((rnn, _RNN), (lstm, _LSTM), (gru, _GRU)) if its is layer), None
    )
    if known is None or is_symbolic(tokens.size) or tokens.size < len(table):
        return layer(params, embedding({"table": table}, tokens), carry=carry)
    rows = known.inputs(params, table)
    inputs = tuple(embedding({"table": part}, tokens.T) for part in rows)
    return _unrolled(known, params, inputs, carry, None)
