"""Vectorization over arrays of equal shape."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from fnn.tree import stack, unstack


def map_by_shape(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`map(function, *columns)`, with one call for all rows of equal shapes, stacked on axis 0."""
    groups: dict[object, list[int]] = {}
    rows = list(zip(*columns, strict=True))
    for i, row in enumerate(rows):
        leaves, structure = jax.tree.flatten(row)
        key = structure, *((x.shape, x.dtype) for x in leaves)
        groups.setdefault(key, []).append(i)
    results: dict[int, Any] = {}
    for indices in groups.values():
        stacked = function(*stack([rows[i] for i in indices]))
        results.update(zip(indices, unstack(stacked, len(indices)), strict=True))
    return [results[i] for i in range(len(results))]
