"""Chunks of steps from where the examples are: compiled loops on the device, or batch by batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn.keys import RunKeys
from fnn.train.pace import Advance
from fnn.train.recipe import RecipeFunction
from fnn.train.record import COLUMNS
from fnn.train.run import block_indices, block_length, make_advance
from fnn.train.source import Source
from fnn.train.step import pure_step
from fnn.types import Hyper, Pair, TrainState


@contextmanager
def chunks(
    recipe: RecipeFunction,
    batch_size: int,
    keys: RunKeys,
    hyper: Hyper,
    train: Pair,
    start_step: int,
    most: int,
) -> Iterator[Advance]:
    """A context that gives `advance(state, steps) -> state, rows`, from step `start_step` on.

    Args:
      most: steps of a chunk.
    """
    if isinstance(train, Source):
        with train.batches(keys.order, batch_size, start_step) as batches:
            yield lambda state, steps: _fetched(recipe, state, keys, hyper, batches, steps)
    else:
        yield lambda state, steps: _indexed(
            recipe, batch_size, most, state, keys, hyper, train, steps
        )


# The number of steps is an argument: one program serves chunks of every length.
@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _indexed(
    recipe: RecipeFunction,
    batch_size: int,
    most: int,
    state: TrainState,
    keys: RunKeys,
    hyper: Hyper,
    train: Pair,
    steps: Array,
) -> tuple[TrainState, Float[Array, "most 5"]]:
    advance, in_block = make_advance(recipe), block_length(train, batch_size)

    def block(b, carry):
        upcoming = block_indices(keys, carry[0].step, train, batch_size, in_block)

        def one(i, carry):
            state, rows = carry
            indices = jax.lax.dynamic_index_in_dim(upcoming, i, keepdims=False)
            state, metrics = advance(state, indices, keys, hyper, train)
            # Not rows.at[...].set, which is a scatter: on a CPU that is a loop of its own.
            place = b * in_block + i
            return state, jax.lax.dynamic_update_index_in_dim(rows, metrics.values, place, 0)

        return jax.lax.fori_loop(0, jnp.minimum(in_block, steps - b * in_block), one, carry)

    rows = jnp.zeros((most, len(COLUMNS)))
    blocks = (steps + in_block - 1) // in_block
    return jax.lax.fori_loop(0, blocks, block, (state, rows))


def _fetched(
    recipe: RecipeFunction,
    state: TrainState,
    keys: RunKeys,
    hyper: Hyper,
    batches: Iterator[Pair],
    steps: int,
) -> tuple[TrainState, Float[np.ndarray, "steps 5"]]:
    rows = []
    for _ in range(steps):  # the device works on one while the next is fetched
        state, row = _one(recipe, state, next(batches), keys, hyper)
        rows.append(row)
    return state, np.stack(jax.device_get(rows))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _one(
    recipe: RecipeFunction, state: TrainState, batch: Pair, keys: RunKeys, hyper: Hyper
) -> tuple[TrainState, Array]:
    state, metrics = pure_step(recipe)(state, batch, keys.noise, hyper)
    return state, metrics.values
