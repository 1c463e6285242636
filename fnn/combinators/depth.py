"""What loops over blocks of one shape share: their draws, and their own part of what is stacked."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from fnn import tree
from fnn.types import PRNGKey


def draw_each(init: Callable[[PRNGKey], Any], key: PRNGKey, places: Int[Array, "n"]) -> Any:
    """`init(fold_in(key, place))` for each place, stacked along a first axis of n.

    In a loop, so that one is compiled: for a batch of keys it would take twice as long, and written
    out n times as long.

    >>> draw_each(jax.random.normal, jax.random.key(0), jnp.arange(3)).shape
    (3,)
    """
    return lax.map(lambda place: init(jax.random.fold_in(key, place)), places)


def in_memory(i: Int[Array, ""], slices: Any) -> Any:
    """The same trees, the `i`-th slices of stacked ones, with the small leaves in memory on a CPU.

    Its compiler would cut them out of what is stacked a number at a time, within each loop over
    elements that reads them, and such loops take five to ten times as long. Nothing is computed
    together across a conditional; this one's condition always holds.

    >>> in_memory(jnp.int32(1), {'bias': jnp.array([1.0, 2.0])})['bias'].tolist()
    [1.0, 2.0]
    """
    leaves, structure = jax.tree.flatten(slices)
    small = {place: leaf for place, leaf in enumerate(leaves) if tree.is_small(leaf)}
    small = _kept(i, small) if small else {}
    whole = [small.get(place, leaf) for place, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, whole)


@jax.custom_jvp  # derivatives pass by it
def _kept(i: Array, leaves: Any) -> Any:
    def on_cpu(i, leaves):
        return lax.cond(i >= 0, lambda now: now, partial(jax.tree.map, jnp.zeros_like), leaves)

    return lax.platform_dependent(i, leaves, cpu=on_cpu, default=lambda i, leaves: leaves)


@_kept.defjvp
def _kept_jvp(primals, tangents):
    return _kept(*primals), tangents[1]
