"""The state of an optimizer in the memory of the host."""

from typing import Any

import jax
from jaxtyping import PyTree

from fnn.optim._wrap import wrap
from fnn.types import Objective, Optimizer, Params


def offload(optimizer: Optimizer) -> Optimizer:
    """Keeps the arrays of an optimizer's state in host memory ('pinned_host').

    Each update copies them to the device and back, which XLA overlaps with other work where it can.
    Saves the device's memory between two updates: two arrays of the parameters' size for Adam.
    Scalars, such as counts, stay on the device.

    State: that of `optimizer`. A checkpoint of one is a checkpoint of the other.
    Source: Ren et al. 2021, arXiv:2101.06840 (ZeRO-Offload). Deviates: the update itself is
      computed on the device.

    >>> from fnn.optim import adam
    >>> opt, params = offload(adam()), {'w': jnp.ones(2)}
    >>> _, state = opt.update({'w': jnp.ones(2)}, opt.init(params), params, 0.1)
    >>> state.m['w'].sharding.memory_kind
    'pinned_host'
    """

    def init(params: Params) -> Any:
        return _moved(optimizer.init(params), jax.memory.Space.Host)

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None
    ) -> tuple[Params, Any]:
        state = _moved(state, jax.memory.Space.Device)
        updates, state = optimizer.update(grads, state, params, lr, objective)
        return updates, _moved(state, jax.memory.Space.Host)

    def weights(state: Any, params: Params) -> Params:
        return optimizer.weights(_moved(state, jax.memory.Space.Device), params)

    return wrap("offload", optimizer, init, update, weights=weights, inner=lambda state: state)


def _moved(state: PyTree, space: Any) -> PyTree:
    return jax.tree.map(lambda leaf: jax.device_put(leaf, space) if leaf.ndim else leaf, state)
