"""The compiled program of a sweep, for as many members at once as fit into memory."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree, UInt32

from fnn import tree
from fnn.measures import Recorded
from fnn.train.state import Start
from fnn.train.sweeps._member import Plan, first_state, run_span
from fnn.train.sweeps.search import Settings
from fnn.types import Data, Hyper

Words = UInt32[np.ndarray, "keys words"] | UInt32[Array, "keys words"]  # jax.random.key_data

_CPU_BYTES = 2**26  # members beyond the cache gain no speed, and delay the first results


class Span(NamedTuple):
    """The steps from `first` to `last`."""

    first: int
    last: int
    continues: bool  # whether there is a span after it


class Layout(NamedTuple):
    """Number of keys and settings in a chunk, and the devices that share them."""

    keys: int
    settings: int
    devices: tuple[jax.Device, ...]
    by_key: bool  # the devices share the keys, not the settings

    @property
    def members_per_device(self) -> int:
        return self.keys * self.settings // len(self.devices)


class Chunk(NamedTuple):
    """The result of a program; all leaves have leading axes (keys, settings)."""

    state: PyTree  # TrainState where the span continues, else ()
    kept: PyTree
    recorded: Recorded
    valid: dict[str, Float[Array, "keys settings evals"]]
    made: Int[Array, "keys settings"]  # updates


@partial(jax.jit, static_argnums=(0, 1, 2))
def program(
    plan: Plan,
    span: Span,
    layout: Layout,
    states: PyTree,
    keys: Words,
    settings: Settings,
    data: Data,
    start: Start,
) -> Chunk:
    """All members of a chunk over the steps of `span`; `states` are () for the first span.

    The outer map is over keys and the inner one over settings: results that depend on a key alone
    (order of the data, batches, first weights, noise) are computed once for all its settings.
    """

    def member(state: PyTree, words: Array, hyper: Hyper, data: Data, start: Start) -> Chunk:
        key = plan.key(words)
        if span.first == 0:
            state = first_state(plan, key, hyper, data, start)
        state, recorded, valid = run_span(plan, state, key, hyper, data, span.first, span.last)
        kept = plan.keep(state)
        return Chunk(state if span.continues else (), kept, recorded, valid, state.step)

    over_settings = jax.vmap(member, in_axes=(0, None, 0, None, None))
    over_all = jax.vmap(over_settings, in_axes=(0, 0, None, None, None))
    return _shared(over_all, layout)(states, keys, settings, data, start)


def _shared(function: Any, layout: Layout) -> Any:
    """The function with its members divided among the devices."""
    if len(layout.devices) == 1:
        return function
    mesh = Mesh(np.array(layout.devices), ("members",))
    keys, settings = (P("members"), P()) if layout.by_key else (P(), P("members"))
    both = P("members") if layout.by_key else P(None, "members")
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(both, keys, settings, P(), P()),
        out_specs=both,
        check_vma=False,
    )


def choose_layout(n_keys: int, n_settings: int, most: int, devices: list[jax.Device]) -> Layout:
    """Chunks of equal size with at most `most` (and at least one) members on each device.

    A chunk has all keys of a setting if they fit; devices share the settings if there are enough.

    >>> device = jax.devices()[0]
    >>> choose_layout(4, 100, 150, [device])[:2]    # 3 chunks of 34 settings, the last has 32
    (4, 34)
    >>> choose_layout(4, 100, 3, [device])[:2]      # 2 chunks of keys for each setting
    (2, 1)
    """
    shared = devices[: max(n_keys, n_settings)]
    by_key = n_settings < len(shared)
    outer, inner = (n_settings, n_keys) if by_key else (n_keys, n_settings)
    outer = _even(outer, most, 1)
    inner = _even(inner, most // outer * len(shared), len(shared))
    keys, settings = (inner, outer) if by_key else (outer, inner)
    return Layout(keys, settings, tuple(shared), by_key)


def _even(n: int, most: int, multiple: int) -> int:
    """The size of the fewest equal parts of n, each at most `most`; all multiples of `multiple`."""
    most = max(1, most // multiple)
    units = -(-n // multiple)
    parts = -(-units // most)
    return -(-units // parts) * multiple


def fitting_layout(
    plan: Plan,
    span: Span,
    keys: Words,
    settings: Settings,
    data: Data,
    start: Start,
    memory_bytes: int | None,
    devices: list[jax.Device],
) -> tuple[Layout, Any]:
    """The widest layout whose compiled program fits into the memory, and that program.

    The first width is estimated from the state of one member. If the program uses more memory by
    the compiler's own account, a narrower one is compiled.
    """
    n_keys, n_settings = len(keys), len(jax.tree.leaves(settings)[0])
    budget = default_bytes(devices[0]) if memory_bytes is None else memory_bytes
    state = jax.eval_shape(
        partial(first_state, plan), plan.key(keys[0]), _row(settings), data, start
    )
    most = max(1, budget // _estimate(plan, span, state, data))
    while True:
        layout = choose_layout(n_keys, n_settings, most, devices)
        shapes = (*_argument_shapes(layout, span, state, keys, settings), data, start)
        leaves, structure = jax.tree.flatten(jax.tree.map(_struct, shapes))
        compiled = _compiled(plan, span, layout, structure, tuple(leaves))
        used, width = _bytes_used(compiled), layout.members_per_device
        if used <= budget or width == 1:
            return layout, compiled
        most = max(1, min(width - 1, int(0.9 * width * budget / used)))


def _struct(a: Any) -> jax.ShapeDtypeStruct:
    """The type of an argument, with its sharding where it is committed to a device."""
    sharding = a.sharding if getattr(a, "committed", False) else None
    weak = getattr(a, "weak_type", False)
    return jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=weak, sharding=sharding)


@lru_cache(maxsize=32)
def _compiled(
    plan: Plan,
    span: Span,
    layout: Layout,
    structure: Any,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
) -> Any:
    """The program for arguments of these shapes, cached for further sweeps."""
    return program.lower(plan, span, layout, *jax.tree.unflatten(structure, leaves)).compile()


def default_bytes(device: jax.Device) -> int:
    """Half of an accelerator's memory, where known; 64 MiB for a CPU."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return stats["bytes_limit"] // 2 if stats and "bytes_limit" in stats else _CPU_BYTES


def _estimate(plan: Plan, span: Span, state: PyTree, data: Data) -> int:
    """Bytes of one member: history, state with gradients and updates, batches."""
    batch = jax.tree.map(lambda a: a[: plan.batch_size], data.train)
    history = 4 * 8 * (span.last - span.first)
    return history + 4 * tree.nbytes(state) + 4 * tree.nbytes(batch)


def _bytes_used(compiled: Any) -> int:
    """Bytes on each device, without the data."""
    stats = compiled.memory_analysis()
    return 0 if stats is None else stats.temp_size_in_bytes + stats.output_size_in_bytes


def _row(settings: Settings) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), settings)


def _argument_shapes(
    layout: Layout, span: Span, state: PyTree, keys: Words, settings: Settings
) -> tuple[PyTree, PyTree, PyTree]:
    """States, keys and settings of a chunk."""
    shape = jax.ShapeDtypeStruct
    front = (layout.keys, layout.settings)
    states = (
        () if span.first == 0 else jax.tree.map(lambda a: shape(front + a.shape, a.dtype), state)
    )
    rows = jax.tree.map(lambda a: shape((layout.settings, *a.shape[1:]), a.dtype), settings)
    return states, shape((layout.keys, *keys.shape[1:]), keys.dtype), rows
