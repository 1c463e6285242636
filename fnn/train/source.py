"""What `fit` needs of examples that do not lie on the device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.train.check import check
from fnn.train.devices import Devices, everywhere
from fnn.train.recipe import RecipeFunction
from fnn.train.upcoming import upcoming
from fnn.types import Data, Hyper, Pair, PRNGKey


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


def checked(
    recipe: RecipeFunction, data: Data, *, key: PRNGKey, hyper: Hyper, batch_size: int
) -> Data:
    """The data as arrays on the device, a source as it is.

    Raises: ValueError for what `check` finds. Of a source it sees the first batch, since to read
      all of it may take as long as to train.
    """
    seen = data
    if isinstance(data.train, Source):
        first = jax.tree.map(lambda a: np.asarray(a[:batch_size]), tuple(data.train))
        seen = Data(train=first, valid=data.valid)
    check(recipe, seen, key=key, hyper=hyper, batch_size=batch_size)
    valid = jax.tree.map(jnp.asarray, data.valid)
    if isinstance(data.train, Source):
        return Data(train=data.train, valid=valid)
    return Data(train=jax.tree.map(jnp.asarray, data.train), valid=valid)


def everywhere_but_sources(devices: Devices, data: Data) -> Data:
    """The data with a copy on each of the devices, a source of steps as it is.

    >>> data = Data(train=(np.ones(2), np.ones(2)), valid=(np.ones(2), np.ones(2)))
    >>> everywhere_but_sources(jax.devices()[:1], data).train[0].committed
    True
    """
    train = data.train if isinstance(data.train, Source) else everywhere(devices, data.train)
    return Data(train=train, valid=everywhere(devices, data.valid))


def first_batch(train: Pair, key: PRNGKey, batch_size: int) -> Pair:
    """What the first step of a run sees; `key` is the stream of the order.

    >>> x, y = first_batch((np.arange(6), np.arange(6)), jax.random.key(0), 3)
    >>> x.shape, bool((x == y).all())
    ((3,), True)
    """
    if isinstance(train, Source):
        with train.batches(key, batch_size, 0) as batches:
            return tuple(next(batches))
    indices = upcoming(key, 0, tree.length(train), batch_size, 1)[0]
    return jax.tree.map(lambda a: jnp.asarray(a)[indices], tuple(train))
