"""One computation for all arrays of one shape."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from fnn.tree import stack, unstack


def by_shape(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`function(a, b, ...)` for each a, b, ... of the columns, once for each set of shapes.

    Args:
      function: maps over a first axis, along which it gets the arrays of one shape stacked, and
        gives arrays with the same first axis.
      columns: equally long sequences of arrays, or of trees of them.

    Returns: a result for each row, in the order of the rows.

    >>> double = lambda x: 2 * x
    >>> [x.tolist() for x in by_shape(double, [jnp.ones(2), jnp.ones(1), jnp.zeros(2)])]
    [[2.0, 2.0], [2.0], [0.0, 0.0]]
    """
    groups: dict[object, list[int]] = {}
    rows = list(zip(*columns, strict=True))
    for i, row in enumerate(rows):
        leaves, structure = jax.tree.flatten(row)
        alike = structure, *((x.shape, x.dtype) for x in leaves)
        groups.setdefault(alike, []).append(i)
    results: dict[int, Any] = {}
    for places in groups.values():
        together = function(*stack([rows[i] for i in places]))
        results.update(zip(places, unstack(together, len(places)), strict=True))
    return [results[i] for i in range(len(results))]
