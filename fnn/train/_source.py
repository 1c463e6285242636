"""Where batches come from: arrays on the device, or a source on the host."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from fnn import tree
from fnn.keys import fold_name
from fnn.order import order_block
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


def upcoming(
    key: PRNGKey, step: int, n: int, batch_size: int, steps: int
) -> Int[np.ndarray, "steps batch"]:
    """`order_block` as a NumPy array, compiled once for all steps and keys.

    It is computed by the processor, where there is one: an accelerator would come to it only after
    the training steps that wait there.

    Args:
      key: typed key of the run's order, `run_keys(key).order`; it is not consumed.
      step: the first one, counted from 0.
      n: number of examples.
      batch_size, steps: with at most n examples together.

    >>> upcoming(jax.random.key(0), 3, 10, 5, 2).shape
    (2, 5)
    """
    words, impl = np.asarray(jax.random.key_data(key)), jax.random.key_impl(key)
    with jax.default_device(_processor()):
        return np.asarray(_compiled(words, impl, np.int32(step), n, batch_size, steps))


@jax.jit
def placed(batch: Any) -> Any:
    """The arrays of `batch` on the device; for NumPy's this is quicker than `jax.device_put`.

    >>> placed({'x': np.ones(2, np.float32)})['x'].tolist()
    [1.0, 1.0]
    """
    return batch


def _processor() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


@partial(jax.jit, static_argnums=(1, 3, 4, 5))
def _compiled(words: Array, impl: Any, step: Array, n: int, batch_size: int, steps: int) -> Array:
    return order_block(jax.random.wrap_key_data(words, impl=impl), step, n, batch_size, steps)


def seed_keys(key: PRNGKey, n: int) -> Key[Array, " n"]:
    """The key itself, and n - 1 others.

    >>> key = jax.random.key(0)
    >>> keys = seed_keys(key, 3)
    >>> keys.shape, bool(keys[0] == key), bool(keys[1] == keys[2])
    ((3,), True, False)
    """
    others = fold_name(key, "other seeds")
    members = [key, *(jax.random.fold_in(others, i) for i in range(1, n))]
    # By their bits: to stack keys is to use them, and the run of `key` is yet to come, or has been.
    bits = jnp.stack([jax.random.key_data(member) for member in members])
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))
