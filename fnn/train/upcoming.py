"""For those who fetch a run's examples themselves, on the host: their order, and the way back."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from fnn.order import order_block
from fnn.types import PRNGKey


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
