"""Leaves as matrices, and a factor for each of their two sides: L of the rows, R of the columns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes, tree
from fnn.optim.by_shape import by_shape
from fnn.tree import Mask
from fnn.types import Params

Sides = dict[str, dict[str, Array]]  # path -> {'left': (m, m), 'right': (n, n)} or fewer
Matrices = dict[str, Array]  # path -> (..., m, n)


def as_matrices(leaves: Params, params: Params, stacked: Mask | None) -> Matrices:
    """The leaves with two axes or more, by path: the last axis is n, all before it are m.

    Args:
      stacked: which of `params` hold several matrices, in their last two axes; None is none.

    >>> x = {'bias': jnp.zeros(2), 'kernel': jnp.zeros((3, 3, 1, 2))}
    >>> jax.tree.map(jnp.shape, as_matrices(x, x, None))
    {'kernel': (9, 2)}
    """
    marks = jax.tree.leaves(stacked(params)) if stacked else [False] * len(tree.paths(params))
    rows = zip(tree.paths(leaves), jax.tree.leaves(leaves), marks, strict=True)
    return {
        path: leaf if several else jax.lax.collapse(leaf, 0, leaf.ndim - 1)
        for path, leaf, several in rows
        if leaf.ndim >= 2
    }


def sides_of(matrices: Matrices, max_size: int) -> Sides:
    """Zeros for the factors of each matrix; a side longer than `max_size` has none.

    >>> jax.tree.map(jnp.shape, sides_of({'kernel': jnp.zeros((9, 2))}, 8))
    {'kernel': {'right': (2, 2)}}
    """
    sizes = {
        path: {"left": (*x.shape[:-2], x.shape[-2]), "right": (*x.shape[:-2], x.shape[-1])}
        for path, x in matrices.items()
    }
    return {
        path: {
            side: jnp.zeros((*size, size[-1]), dtypes.at_least_float32(matrices[path]))
            for side, size in both.items()
            if size[-1] <= max_size
        }
        for path, both in sizes.items()
    }


def gram(side: str, x: Array) -> Array:
    """G G^T for the left side, G^T G for the right.

    >>> gram('left', jnp.array([[1.0, 2.0]])).tolist()
    [[5.0]]
    """
    return x @ x.mT if side == "left" else x.mT @ x


def between(factors: dict[str, Array], x: Array, *, transposed: bool = False) -> Array:
    """left x right^T, or left^T x right; a side that is not there is the identity.

    >>> between({'left': jnp.array([[3.0]])}, jnp.array([[1.0, 2.0]])).tolist()
    [[3.0, 6.0]]
    """
    if "left" in factors:
        x = (factors["left"].mT if transposed else factors["left"]) @ x
    if "right" in factors:
        x = x @ (factors["right"] if transposed else factors["right"].mT)
    return x


def map_sides(function: Callable[..., Array], *sides: Sides) -> Sides:
    """`function` of the factors, all of one shape at once.

    >>> sides = {'kernel': {'left': jnp.ones((1, 1)), 'right': jnp.ones((2, 2))}}
    >>> map_sides(lambda x: 2 * x, sides)['kernel']['left'].tolist()
    [[2.0]]
    """
    names = [(path, side) for path, both in sides[0].items() for side in both]
    columns: list[Any] = [[each[path][side] for path, side in names] for each in sides]
    results = dict(zip(names, by_shape(function, *columns), strict=True))
    return {path: {side: results[path, side] for side in both} for path, both in sides[0].items()}
