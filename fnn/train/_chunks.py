"""Chunks of steps, each one call of a compiled program of about a second."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fnn.keys import RunKeys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._job import Job
from fnn.train._scan import block_indices, block_length, gather
from fnn.train._source import Source
from fnn.train.devices import Devices
from fnn.types import Hyper, Pair, TrainState

# (state, steps) -> state, recorded; `recorded` has at least that many rows
Advance = Callable[[TrainState, int], tuple[TrainState, Recorded]]

_MOST_STEPS, _MOST_BYTES = 4096, 2**26  # of the record of a chunk


@contextmanager
def chunks(job: Job, start_step: int) -> Iterator[Advance]:
    """A context whose value is `advance(state, steps)`, from step `start_step` on.

    `steps` is at most `most_steps(job)`. Where a source fails, the steps before it are returned,
    and the next call raises before it uses the state.
    """
    if isinstance(job.data.train, Source):
        with job.data.train.batches(job.keys.order, job.batch_size, start_step) as batches:
            yield partial(_fetched, job, batches, [])
    else:
        most = most_steps(job)

        def advance(state: TrainState, steps: int) -> tuple[TrainState, Recorded]:
            static = (job.recipe, job.devices, job.batch_size, most)
            # int32 like the loop's counters, also where x64 would make Python ints int64.
            return _indexed(*static, state, job.keys, job.hyper, job.data.train, np.int32(steps))

        yield advance


def most_steps(job: Job) -> int:
    """The longest chunk whose record fits into memory."""
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
        batch = gather(train, indices)
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
) -> tuple[TrainState, Recorded]:
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
        static, key = (job.recipe, job.devices), job.keys.noise
        state, row = _donating_step(*static, state, batch, key, job.hyper)
        recorded.append(row)
    return state, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(recorded))


_donating_step = jax.jit(compiled.step, static_argnums=(0, 1), donate_argnums=2)


class Pace:
    """Adapts the chunk length so that each chunk takes about `seconds`, in at most `most` steps.

    The first chunk is a single step, whose time is that of the compilation and is ignored. From the
    second on, a chunk has at most 16 times the steps of the previous one.
    """

    def __init__(
        self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._length, self._compiled = 1, False
        self.rate = 0.0  # steps per second; 0 until it is known

    def run(self, advance: Advance, state: TrainState, most: int) -> tuple[TrainState, Recorded]:
        """Runs a chunk of at most `most` steps; its record is in NumPy arrays."""
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
