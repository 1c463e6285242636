"""Chunks of steps, each one call of a compiled program of about a second."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fnn.keys import RunKeys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._blocks import block_indices, block_length, rows
from fnn.train._job import Job
from fnn.train._source import Source
from fnn.train.devices import Devices
from fnn.types import Hyper, Pair, TrainState

# (state, steps) -> state, recorded; `recorded` has at least so many rows
Advance = Callable[[TrainState, int], tuple[TrainState, Recorded]]

_MOST_STEPS, _MOST_BYTES = 4096, 2**26  # of what a chunk records


@contextmanager
def chunks(job: Job, start_step: int) -> Iterator[Advance]:
    """A context that gives `advance(state, steps)`, from step `start_step` on.

    Its steps are at most `most_steps(job)`. Where a source fails, the steps before are returned,
    and the next call raises before it uses the state.
    """
    if isinstance(job.data.train, Source):
        with job.data.train.batches(job.keys.order, job.batch_size, start_step) as batches:
            yield partial(_fetched, job, batches, [])
    else:
        most = most_steps(job)

        def advance(state, steps):
            loop = (job.recipe, job.devices, job.batch_size, most)
            # int32 also where Python's numbers become int64: those of the loop's counters.
            return _indexed(*loop, state, job.keys, job.hyper, job.data.train, np.int32(steps))

        yield advance


def most_steps(job: Job) -> int:
    """How many steps a chunk has at most: the rows that it records must fit into memory."""
    leaves = jax.tree.leaves(job.recorded_shapes())
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return max(1, min(_MOST_STEPS, _MOST_BYTES // row))


# The number of steps is an argument: one program serves chunks of every length.
@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _indexed(
    recipe: RecipeFunction,
    devices: Devices,
    batch_size: int,
    most: int,
    state: TrainState,
    keys: RunKeys,
    hyper: Hyper,
    train: Pair,
    steps: Array,
) -> tuple[TrainState, Recorded]:
    in_block = block_length(train, batch_size)

    def one(state: TrainState, indices: Array) -> tuple[TrainState, Recorded]:
        batch = rows(train, indices)
        return compiled.step(recipe, devices, state, batch, keys.noise, hyper)

    def block(b: Array, carry: tuple[TrainState, Recorded]) -> tuple[TrainState, Recorded]:
        indices = block_indices(keys, carry[0].step, train, batch_size, in_block)

        def at(i: Array, carry: tuple[TrainState, Recorded]) -> tuple[TrainState, Recorded]:
            state, recorded = carry
            state, row = one(state, jax.lax.dynamic_index_in_dim(indices, i, keepdims=False))
            # Not `.at[].set()`: that is a scatter, a loop of its own on a CPU.
            put = partial(jax.lax.dynamic_update_index_in_dim, index=b * in_block + i, axis=0)
            return state, jax.tree.map(put, recorded, row)

        return jax.lax.fori_loop(0, jnp.minimum(in_block, steps - b * in_block), at, carry)

    _, row = jax.eval_shape(one, state, jnp.zeros(batch_size, jnp.int32))
    recorded = jax.tree.map(lambda a: jnp.zeros((most, *a.shape), a.dtype), row)
    blocks = (steps + in_block - 1) // in_block
    return jax.lax.fori_loop(0, blocks, block, (state, recorded))


def _fetched(
    job: Job, batches: Iterator[Pair], failure: list[Exception], state: TrainState, steps: int
) -> tuple[TrainState, PyTree]:
    recorded: list[Any] = []
    for _ in range(steps):  # the device works on one batch while the next is fetched
        try:
            if failure:
                raise failure[0]
            batch = next(batches)
        except Exception as error:
            failure[:] = [error]
            if not recorded:
                raise
            break
        state, row = _one(job.recipe, job.devices, state, batch, job.keys, job.hyper)
        recorded.append(row)
    return state, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(recorded))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _one(
    recipe: RecipeFunction,
    devices: Devices,
    state: TrainState,
    batch: Pair,
    keys: RunKeys,
    hyper: Hyper,
) -> tuple[TrainState, Recorded]:
    return compiled.step(recipe, devices, state, batch, keys.noise, hyper)


class Pace:
    """Adapts the chunk length so that each chunk takes about `seconds`.

    The first chunk is a single step, whose time is the compiler's and tells nothing. From the
    second on, a chunk is at most 16 times as long as the one before. A step that takes longer than
    `seconds` makes a chunk by itself.

    Args:
      seconds: to aim at.
      most: steps of a chunk.

    >>> pace = Pace(seconds=0.2, most=100)
    >>> lengths = []
    >>> def advance(state, steps):
    ...     lengths.append(steps)
    ...     return state, {1: {'loss': jnp.zeros(steps)}}
    >>> state = TrainState(step=jnp.int32(0), params={}, model_state=(), opt_state={})
    >>> _ = [pace.time(advance, state, 100) for _ in range(2)]
    >>> lengths, pace.rate > 0
    ([1, 1], True)
    """

    def __init__(
        self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._length, self._compiled = 1, False
        self.rate = 0.0  # steps per second; 0 until it is known

    def time(self, advance: Advance, state: TrainState, most: int) -> tuple[TrainState, Recorded]:
        """The state after a chunk of at most `most` steps, and what these recorded, in NumPy."""
        length = min(self._length, most)
        start = self._clock()
        state, recorded = advance(state, length)
        recorded = jax.tree.map(lambda a: np.array(a[:length]), jax.device_get(recorded))
        seconds = max(self._clock() - start, 1e-9)
        if self._compiled:
            self.rate = length / seconds
            wanted = int(self.rate * self._seconds)
            self._length = max(1, min(wanted, 16 * length, self._most))
        self._compiled = True
        return state, recorded
