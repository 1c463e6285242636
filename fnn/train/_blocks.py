"""Steps of a run on examples that lie on the device: indices in blocks, then a scan of steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from fnn import tree
from fnn.keys import RunKeys
from fnn.order import order_block
from fnn.train.checkpointed_scan import Scan
from fnn.types import Pair, TrainState

# (state, step, indices of the batch) -> state, what to record
Advance = Callable[[TrainState, Int[Array, ""], Int[Array, " batch"]], tuple[TrainState, PyTree]]


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
    """`length` steps of a run from step `first` on; what they record is stacked along axis 0."""
    in_block = even_block_length(train, batch_size, length)

    def block(state, begin):
        steps = begin + jnp.arange(in_block, dtype=jnp.int32)
        indices = block_indices(keys, begin, train, batch_size, in_block)
        return scan(lambda state, now: advance(state, *now), state, (steps, indices))

    begins = first + in_block * jnp.arange(length // in_block, dtype=jnp.int32)
    state, recorded = scan(block, state, begins)
    return state, jax.tree.map(lambda a: a.reshape(length, *a.shape[2:]), recorded)


def rows(train: Pair, indices: Int[Array, " batch"]) -> Pair:
    """The examples at `indices`, all of which exist."""
    return jax.tree.map(lambda a: a.at[indices].get(mode="promise_in_bounds"), tuple(train))


def block_length(train: Pair, batch_size: int) -> int:
    """For how many steps to compute the indices together: 2,048 examples, at most an epoch."""
    return max(1, min(2048, tree.length(train)) // batch_size)


def even_block_length(train: Pair, batch_size: int, length: int) -> int:
    """The largest divisor of `length` up to `block_length`."""
    most = min(length, block_length(train, batch_size))
    return max(d for d in range(1, most + 1) if length % d == 0)


def block_indices(
    keys: RunKeys, step: Int[Array, ""] | int, train: Pair, batch_size: int, steps: int
) -> Int[Array, "steps batch"]:
    """The indices of the examples in `train` that the `steps` steps from `step` on see."""
    return order_block(keys.order, step, tree.length(train), batch_size, steps)


def struct_of(examples: Pair, batch_size: int) -> Pair:
    """Shapes and dtypes of a batch; its first part is enough for a model's init."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), jnp.result_type(a)),
        tuple(examples),
    )
