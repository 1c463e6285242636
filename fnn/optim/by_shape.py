"""One computation for all arrays of one shape."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array


def by_shape(function: Callable[..., Array], *columns: Sequence[Array]) -> list[Array]:
    """`function(a, b, ...)` for each a, b, ... of the columns, once for each set of shapes.

    Args:
      function: maps over a first axis, along which it gets the arrays of one shape stacked, and
        gives an array with the same first axis.
      columns: equally long sequences of arrays.

    Returns: a result for each row, in the order of the rows.

    >>> double = lambda x: 2 * x
    >>> [x.tolist() for x in by_shape(double, [jnp.ones(2), jnp.ones(1), jnp.zeros(2)])]
    [[2.0, 2.0], [2.0], [0.0, 0.0]]
    """
    groups: dict[object, list[int]] = {}
    for i, row in enumerate(zip(*columns, strict=True)):
        groups.setdefault(tuple((x.shape, x.dtype) for x in row), []).append(i)
    results: dict[int, Array] = {}
    for places in groups.values():
        stacked = function(*(jnp.stack([column[i] for i in places]) for column in columns))
        results.update({i: stacked[n] for n, i in enumerate(places)})
    return [results[i] for i in range(len(results))]
