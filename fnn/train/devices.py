"""Data parallelism: each device computes the sums of an equal part of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from fnn import dtypes, tree
from fnn.expect import expect_divided
from fnn.recipe import whole_batch
from fnn.types import BatchLoss, Gradient, LossSums, ModelState, Pair, Params, PRNGKey

Devices = Sequence[jax.Device]
Measure = Callable[[PyTree, Pair], PyTree]

_AXIS = "batch"


def shared_gradient(devices: Devices, gradient: Gradient = whole_batch) -> Gradient:
    """The sums and gradients of `gradient`, added over equal parts of a batch, one on each device.

    Part i has noise from `fold_in(key, i)`. The model state is averaged over the devices; its
    leaves that are not floats are the first device's. With fewer than two devices it is `gradient`.

    Raises: ValueError at trace time for a batch that the devices do not divide.
    """
    if len(devices) < 2:
        return gradient

    def of_batch(
        loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]:
        def of_part(
            params: Params, model_state: ModelState, part: Pair, key: PRNGKey
        ) -> tuple[LossSums, Params]:
            noise = jax.random.fold_in(key, jax.lax.axis_index(_AXIS))
            sums, grads = gradient(loss, params, model_state, part, noise)
            model_state = jax.tree.map(_mean_or_first, sums.model_state)
            sums = sums._replace(model_state=())
            sums, grads = jax.lax.psum((sums, dtypes.wide(grads)), _AXIS)
            return sums._replace(model_state=model_state), grads

        expect_divided("devices", batch, len(devices))
        on_all = _on_all(devices, of_part, P(), P(), P(_AXIS), P())
        return on_all(params, model_state, tuple(batch), key)

    return of_batch


def shared_sums(devices: Devices, measure: Measure) -> Measure:
    """`measure(weights, batch)`, sums over the examples, each device adding up a part of them.

    Every device measures a batch that they do not divide as a whole. `measure` takes its arrays as
    arguments: those in its closure would be on no device.
    """
    if len(devices) < 2:
        return measure

    def of_batch(weights: PyTree, batch: Pair) -> PyTree:
        def of_part(weights: PyTree, part: Pair) -> PyTree:
            return jax.lax.psum(measure(weights, part), _AXIS)

        if tree.length(batch) % len(devices):
            return measure(weights, batch)
        return _on_all(devices, of_part, P(), P(_AXIS))(weights, batch)

    return of_batch


def everywhere(devices: Devices, arrays: PyTree) -> PyTree:
    """The arrays, replicated on all devices, inside or outside of a jit; unchanged for ()."""
    if not devices:
        return arrays
    mesh = _mesh(devices)

    def replicated(leaf: Any) -> NamedSharding:
        host = jax.typeof(leaf).memory_space == jax.memory.Space.Host
        return NamedSharding(mesh, P(), memory_kind="pinned_host" if host else None)

    return jax.device_put(arrays, jax.tree.map(replicated, arrays))


def _on_all(devices: Devices, function: Callable[..., Any], *specs: P) -> Callable[..., Any]:
    """`function` on each of the devices, with the same result on all."""
    mesh = _mesh(devices)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)


def _mesh(devices: Devices) -> Mesh:
    return Mesh(np.array(devices), (_AXIS,))


def _mean_or_first(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        wide = leaf.astype(dtypes.at_least_float32(leaf))
        return jax.lax.pmean(wide, _AXIS).astype(leaf.dtype)
    return jax.lax.all_gather(leaf, _AXIS)[0]
