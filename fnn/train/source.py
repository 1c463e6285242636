"""Examples that are not on the device, and the first batch of a run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from fnn import tree
from fnn.train.upcoming import upcoming
from fnn.types import Pair, PRNGKey


@runtime_checkable
class Source(Protocol):
    """A pair (x, y) that also hands out batches; `fnn.data.Streamed` is the one from the host.

    The leaves of the pair have a shape, with the number of examples first, and can be sliced.
    """

    def batches(
        self, key: PRNGKey, batch_size: int, start_step: int
    ) -> AbstractContextManager[Iterator[Any]]:
        """The batches of the steps from `start_step` on: the rows that `order` names, in order."""
        ...


def first_batch(train: Pair, key: PRNGKey, batch_size: int) -> Pair:
    """The batch of the first step of a run; `key` is the stream of the order."""
    if isinstance(train, Source):
        with train.batches(key, batch_size, 0) as batches:
            return tuple(next(batches))
    indices = upcoming(key, 0, tree.length(train), batch_size, 1)[0]
    return jax.tree.map(lambda a: jnp.asarray(a)[indices], tuple(train))
