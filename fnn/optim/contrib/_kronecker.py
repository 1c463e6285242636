"""Kronecker-factored statistics of matrices, whole or cut into blocks."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes, tree
from fnn.optim._by_shape import by_shape
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


def cut(matrices: Matrices, block_size: int, max_size: int) -> Matrices:
    """The blocks of all matrices, named by path and place; a matrix of one block keeps its name.

    A side of n is cut into ceil(n / block_size) even parts, whose sizes differ by one at most. A
    side longer than `max_size` is left whole.

    Raises: ValueError, if a matrix has the name of another's block.

    >>> blocks = cut({'kernel': jnp.zeros((5, 2)), 'table': jnp.zeros((9, 3))}, 3, 8)
    >>> {name: block.shape for name, block in blocks.items()}
    {'kernel[0,0]': (3, 2), 'kernel[1,0]': (2, 2), 'table': (9, 3)}
    """
    blocks: Matrices = {}
    for path, x in matrices.items():
        rows, columns = (_parts(n, block_size, max_size) for n in x.shape[-2:])
        for i, row in enumerate(jnp.array_split(x, rows, axis=-2)):
            for j, block in enumerate(jnp.array_split(row, columns, axis=-1)):
                name = _name(path, i, j) if rows * columns > 1 else path
                if name in blocks:
                    raise ValueError(
                        f"blocks.cut: expected one matrix named {name!r}, got two; rename a leaf, "
                        "since the blocks of another have such names"
                    )
                blocks[name] = block
    return blocks


def join(blocks: Matrices, path: str) -> Array:
    """The matrix of that path from its blocks.

    >>> x = {'kernel': jnp.arange(10.0).reshape(5, 2)}
    >>> bool((join(cut(x, 3, 8), 'kernel') == x['kernel']).all())
    True
    """
    if path in blocks:
        return blocks[path]
    return jnp.concatenate([_row(blocks, path, i) for i in _places(blocks, path)], axis=-2)


def _places(blocks: Matrices, path: str) -> list[int]:
    return list(itertools.takewhile(lambda i: _name(path, i, 0) in blocks, itertools.count()))


def _row(blocks: Matrices, path: str, i: int) -> Array:
    names = itertools.takewhile(blocks.__contains__, (_name(path, i, j) for j in itertools.count()))
    return jnp.concatenate([blocks[name] for name in names], axis=-1)


def _parts(size: int, block_size: int, max_size: int) -> int:
    return 1 if size > max_size else max(1, -(-size // block_size))


def _name(path: str, i: int, j: int) -> str:
    return f"{path}[{i},{j}]"
