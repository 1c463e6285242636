"""Scans over the steps of a run, and a scan whose gradient needs O(sqrt(n)) memory."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from fnn import tree
from fnn.keys import RunKeys
from fnn.order import order_block
from fnn.types import Pair, TrainState

# f, init, xs, length -> carry, ys: `jax.lax.scan`, or a function with the same result.
Scan = Callable[..., tuple[Any, Any]]
# (state, step, indices of the batch) -> state, what to record
Advance = Callable[[TrainState, Int[Array, ""], Int[Array, " batch"]], tuple[TrainState, PyTree]]

_SHORT = 4  # steps of a scan that checkpoints do not help


def checkpointed_scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` whose gradient stores only every sqrt(n)-th carry, for n steps.

    The steps between two stored carries are recomputed in the backward pass, so memory is that of
    about 2 sqrt(n) carries instead of all intermediate values of n steps. Each level of nested
    scans adds one forward pass to the gradient. Without a gradient it is the plain scan.

    Args:
      f, init, xs, length: as for `jax.lax.scan`; any length, also a prime one.

    Returns: the last carry, and the outputs of all steps along their first axis.
    Source: Griewank 1992; Chen et al. 2016, arXiv:1604.06174, section 4.

    >>> decay = lambda rate: checkpointed_scan(lambda x, _: (rate * x, x), 1.0, length=5)
    >>> decay(0.5)[0].item(), decay(0.5)[1].tolist()
    (0.03125, [1.0, 0.5, 0.25, 0.125, 0.0625])
    >>> jax.grad(lambda rate: decay(rate)[0])(0.5).item()   # 5 rate^4
    0.3125
    """
    n = jax.tree.leaves(xs)[0].shape[0] if length is None else length
    if n < _SHORT:
        return jax.lax.scan(f, init, xs, length=n)
    inner = _segment_length(n)
    outer, rest = divmod(n, inner)

    def segment(carry: PyTree, xs: PyTree, length: int) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(f, carry, xs, length=length)

    head = jax.tree.map(lambda a: a[: n - rest].reshape(outer, inner, *a.shape[1:]), xs)
    # Inside a loop XLA cannot merge the recomputation with the original: no barrier is needed.
    kept = jax.checkpoint(partial(segment, length=inner), prevent_cse=False)
    carry, ys = jax.lax.scan(kept, init, head, length=outer)
    ys = jax.tree.map(lambda a: a.reshape(n - rest, *a.shape[2:]), ys)
    if rest:
        tail = jax.tree.map(lambda a: a[n - rest :], xs)
        carry, last = jax.checkpoint(partial(segment, length=rest))(carry, tail)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)
    return carry, ys


def _segment_length(n: int) -> int:
    """A divisor of n near its root, if there is one; else the root, with a remainder."""
    root = math.isqrt(n)
    return min(range(root // 2 + 1, 2 * root), key=lambda i: (n % i > 0, abs(i - root)))


def scan_steps(
    advance: Advance,
    state: TrainState,
    first: Int[Array, ""] | int,
    *,
    keys: RunKeys,
    train: Pair,
    batch_size: int,
    length: int,
    scan: Scan = jax.lax.scan,
) -> tuple[TrainState, PyTree]:
    """`length` steps from step `first` on; their records are stacked along axis 0."""
    most = min(length, block_length(train, batch_size))
    in_block = max(d for d in range(1, most + 1) if length % d == 0)

    def block(state: TrainState, begin: Int[Array, ""]) -> tuple[TrainState, PyTree]:
        steps = begin + jnp.arange(in_block, dtype=jnp.int32)
        indices = block_indices(keys, begin, train, batch_size, in_block)
        return scan(lambda state, now: advance(state, *now), state, (steps, indices))

    begins = first + in_block * jnp.arange(length // in_block, dtype=jnp.int32)
    state, recorded = scan(block, state, begins)
    return state, flatten_blocks(recorded)


def scan_legs(
    leg: Callable[[TrainState, Any, int], tuple[TrainState, tuple[PyTree, PyTree]]],
    state: TrainState,
    *,
    first: int = 0,
    last: int,
    every: int,
    scan: Scan = jax.lax.scan,
) -> tuple[TrainState, PyTree, PyTree]:
    """The steps from `first` to `last` in legs of `every` steps, and a shorter last one.

    Args:
      leg: (state, first step, length) -> state, (record of each step, record of the leg).

    Returns: the state, the records of all steps and those of all legs, along axis 0.
    """
    legs, rest = divmod(last - first, every)
    begins = first + every * jnp.arange(legs, dtype=jnp.int32)
    state, (steps, ends) = scan(lambda state, begin: leg(state, begin, every), state, begins)
    steps = flatten_blocks(steps)
    if rest:
        state, (tail, end) = leg(state, jnp.int32(last - rest), rest)
        steps = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), steps, tail)
        ends = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), ends, end)
    return state, steps, ends


def flatten_blocks(recorded: PyTree) -> PyTree:
    """Records (blocks, steps, ...) as (blocks steps, ...)."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), recorded)


def gather(train: Pair, indices: Int[Array, " batch"]) -> Pair:
    """The examples at `indices`, all of which are in bounds."""
    return jax.tree.map(lambda a: a.at[indices].get(mode="promise_in_bounds"), tuple(train))


def block_length(train: Pair, batch_size: int) -> int:
    """Steps whose indices are computed together: 2,048 examples, at most an epoch."""
    return max(1, min(2048, tree.length(train)) // batch_size)


def block_indices(
    keys: RunKeys, step: Int[Array, ""] | int, train: Pair, batch_size: int, steps: int
) -> Int[Array, "steps batch"]:
    """Indices of the examples in `train` for `steps` steps from `step` on."""
    return order_block(keys.order, step, tree.length(train), batch_size, steps)


def struct_of(examples: Pair, batch_size: int) -> Pair:
    """Shapes and dtypes of a batch."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), jnp.result_type(a)),
        tuple(examples),
    )
