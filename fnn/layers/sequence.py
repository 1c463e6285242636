"""Recurrence over time: a scan of any cell, padded sequences, both directions, several layers.

Shapes: x (batch, time, features). Padding comes last in a sequence. With `lengths`, padded steps
leave the carry unchanged, their outputs are 0, and their gradients exactly 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer, Shaped

from fnn.dtypes import indices
from fnn.expect import spec
from fnn.types import Params

Carry = Any  # the state of a cell: an array or a pytree of them, batch axis first
Step = Callable[[Params, Carry, Any], tuple[Carry, Any]]  # cell(params, carry, x) -> carry, y
Layer = Callable[..., tuple[Carry, Array]]  # layer(params, x, *, carry, lengths) -> carry, y


def scan_cell(
    cell: Step,
    params: Params,
    carry: Carry,
    x: Shaped[Array, "batch time *features"],
    *,
    lengths: Integer[Array, "batch"] | None = None,
) -> tuple[Carry, Any]:
    """Scans a cell over time.

    For custom cells; `rnn`, `lstm` and `gru` are faster with theirs.

    Args:
      cell: `cell(params, carry, x) -> (carry, y)`, with x (batch, *features).
      carry: the initial carry.
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Returns: the carry after each sequence's last real step, and y (batch, time, ...), 0 at padding.
    Raises: ValueError for lengths that are not integers of shape (batch,).

    >>> add = lambda params, carry, x: (carry + x, carry + x)
    >>> x = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> carry, y = scan_cell(add, {}, jnp.zeros(2), x, lengths=jnp.array([3, 1]))
    >>> carry.tolist(), y.tolist()
    ([6.0, 4.0], [[1.0, 3.0, 6.0], [4.0, 0.0, 0.0]])
    """
    valid = real_steps("scan_cell", x, lengths)
    inputs = jnp.swapaxes(keep_real(x, valid), 0, 1)
    carry, y = masked_scan(partial(cell, params), carry, inputs, valid)
    return carry, jax.tree.map(lambda leaf: keep_real(jnp.swapaxes(leaf, 0, 1), valid), y)


def real_steps(where: str, x: Array, lengths: Array | None) -> Bool[Array, "batch time"] | None:
    """Which steps of x (batch, time, ...) are not padding; None if there are no lengths."""
    if lengths is None:
        return None
    if lengths.shape != x.shape[:1] or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"{where}: expected lengths of shape {x.shape[:1]} and an integer dtype, got "
            f"{spec(lengths)}; give the number of real steps of each sequence"
        )
    return jnp.arange(x.shape[1], dtype=jnp.int32)[None] < indices(lengths)[:, None]


def expect_carry(where: str, expected: Carry, carry: Carry) -> None:
    """Raise for a carry that differs from the expected one in structure, shapes or dtypes."""
    wanted, given = (jax.tree.map(spec, tree) for tree in (expected, carry))
    structures: list[Any] = [jax.tree.structure(tree) for tree in (wanted, given)]
    if structures[0] != structures[1] or wanted != given:
        raise ValueError(
            f"{where}: expected the carry {wanted}, got {given}; start from zeros, or continue "
            "from the carry that this layer returned"
        )


def keep_real(x: Array, valid: Array | None, fill: float = 0) -> Array:
    """x with `fill` at padding; x itself if `valid` is None."""
    return x if valid is None else select_rows(valid, x, jnp.full_like(x, fill))


def select_rows(condition: Array, a: Array, b: Array) -> Array:
    """a in the rows where the condition, of the leading axes, holds; b in the others."""
    return jnp.where(jnp.expand_dims(condition, tuple(range(condition.ndim, a.ndim))), a, b)


def masked_scan(
    step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, inputs: Any, valid: Array | None
) -> tuple[Carry, Any]:
    """`lax.scan` over time-major inputs, whose carry padded steps leave unchanged."""

    def masked(carry: Carry, now: Any) -> tuple[Carry, Any]:
        inputs, real = now
        new, y = step(carry, inputs)
        return new if real is None else jax.tree.map(partial(select_rows, real), new, carry), y

    return lax.scan(masked, carry, (inputs, None if valid is None else valid.T))


def reverse_sequences(
    x: Shaped[Array, "batch time *features"], *, lengths: Integer[Array, "batch"] | None = None
) -> Shaped[Array, "batch time *features"]:
    """Reverses each sequence within its own length, padding excluded; its own inverse.

    Args:
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Raises: ValueError for lengths that are not integers of shape (batch,).

    >>> reverse_sequences(jnp.array([[1, 2, 3], [4, 5, 6]]), lengths=jnp.array([3, 2])).tolist()
    [[3, 2, 1], [5, 4, 6]]
    """
    valid = real_steps("reverse_sequences", x, lengths)
    if valid is None or lengths is None:
        return jnp.flip(x, axis=1)
    time = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    source = jnp.where(valid, valid.sum(axis=1, dtype=jnp.int32)[:, None] - 1 - time, time)
    rows = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
    return x.at[rows, source].get(mode="promise_in_bounds", unique_indices=True)


def bidirectional(
    layer: Layer,
    params: Params,
    x: Float[Array, "batch time features"],
    *,
    carry: tuple[Carry, Carry] | None = None,
    lengths: Integer[Array, "batch"] | None = None,
) -> tuple[tuple[Carry, Carry], Float[Array, "batch time both"]]:
    """One layer over the steps forward, another backward; concatenates their outputs.

    Args:
      layer: such as `lstm`: `layer(params, x, carry=, lengths=) -> (carry, y)`.
      params: {'forward': ..., 'backward': ...}, parameters of the layer.
      carry: the initial carries, forward first; None for the layer's own.
      lengths: number of real steps of each sequence, in [0, time]; the backward layer starts at
        the last of them. None for all.

    Returns: the two carries, and y (batch, time, 2 hidden), forward first, 0 at padding.
    Source: Schuster & Paliwal 1997, Bidirectional recurrent neural networks.

    >>> from fnn.layers import rnn, rnn_cell_init
    >>> params = rnn_cell_init(jax.random.key(0), 3, 4)
    >>> x = jnp.zeros((2, 5, 3))
    >>> bidirectional(rnn, {'forward': params, 'backward': params}, x)[1].shape
    (2, 5, 8)
    """
    start = (None, None) if carry is None else carry
    last, forward = layer(params["forward"], x, carry=start[0], lengths=lengths)
    x = reverse_sequences(x, lengths=lengths)
    first, backward = layer(params["backward"], x, carry=start[1], lengths=lengths)
    backward = reverse_sequences(backward, lengths=lengths)
    return (last, first), jnp.concatenate([forward, backward], axis=-1)


def multilayer(
    layer: Layer,
    params: list[Params],
    x: Float[Array, "batch time features"],
    *,
    carry: list[Carry] | None = None,
    lengths: Integer[Array, "batch"] | None = None,
) -> tuple[list[Carry], Float[Array, "batch time hidden"]]:
    """A stack of recurrent layers: each gets the outputs of the one below.

    Args:
      layer: such as `lstm`, or `partial(bidirectional, lstm)`.
      params: the parameters of each layer, the lowest first.
      carry: the initial carry of each layer; None for the layer's own.
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Returns: the carry of each layer, and the outputs of the top layer.
    Raises: ValueError if there are not as many carries as layers.

    >>> from fnn.layers import rnn, rnn_cell_init
    >>> params = [rnn_cell_init(jax.random.key(0), 3, 4), rnn_cell_init(jax.random.key(1), 4, 5)]
    >>> carries, y = multilayer(rnn, params, jnp.zeros((2, 6, 3)))
    >>> [carry.shape for carry in carries], y.shape
    ([(2, 4), (2, 5)], (2, 6, 5))
    """
    starts = [None] * len(params) if carry is None else carry
    if len(starts) != len(params):
        raise ValueError(
            f"multilayer: expected {len(params)} carries, got {len(starts)}; give one for each "
            "layer"
        )
    carries = []
    for layer_params, start in zip(params, starts, strict=True):
        last, x = layer(layer_params, x, carry=start, lengths=lengths)
        carries.append(last)
    return carries, x
