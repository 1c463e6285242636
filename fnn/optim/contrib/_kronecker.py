"""Kronecker factors of matrices, whole or split into blocks."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes, tree
from fnn.optim._base import moving_average
from fnn.optim._by_shape import map_by_shape
from fnn.tree import Mask
from fnn.types import Params, Scalar

Factors = dict[str, dict[str, Array]]  # path -> {'left': (m, m), 'right': (n, n)} or fewer
Matrices = dict[str, Array]  # path -> (..., m, n)


def as_matrices(leaves: Params, params: Params, stacked: Mask | None) -> Matrices:
    """Leaves with two axes or more as (m, n), with n the last axis; as (..., m, n) if stacked."""
    marks = jax.tree.leaves(stacked(params)) if stacked else [False] * len(tree.paths(params))
    rows = zip(tree.paths(leaves), jax.tree.leaves(leaves), marks, strict=True)
    return {
        path: leaf if is_stacked else jax.lax.collapse(leaf, 0, leaf.ndim - 1)
        for path, leaf, is_stacked in rows
        if leaf.ndim >= 2
    }


def zero_factors(matrices: Matrices, max_size: int) -> Factors:
    """Zeros for the factors of each matrix; sides longer than `max_size` have none."""

    def zeros(x: Array) -> dict[str, Array]:
        dtype = dtypes.at_least_float32(x)
        sizes = {"left": x.shape[-2], "right": x.shape[-1]}
        return {
            side: jnp.zeros((*x.shape[:-2], n, n), dtype)
            for side, n in sizes.items()
            if n <= max_size
        }

    return {path: zeros(x) for path, x in matrices.items()}


def average_grams(decay: Scalar, factors: Factors, matrices: Matrices) -> Factors:
    """Moving averages of G G^T for the left side and G^T G for the right."""

    def gram(side: str, x: Array) -> Array:
        return x @ x.mT if side == "left" else x.mT @ x

    return {
        path: {s: moving_average(decay, old, gram(s, matrices[path])) for s, old in both.items()}
        for path, both in factors.items()
    }


def multiply(factors: dict[str, Array], x: Array, *, transposed: bool = False) -> Array:
    """left x right^T, or left^T x right; a missing factor is the identity."""
    if "left" in factors:
        x = (factors["left"].mT if transposed else factors["left"]) @ x
    if "right" in factors:
        x = x @ (factors["right"] if transposed else factors["right"].mT)
    return x


def map_factors(function: Callable[..., Array], *factors: Factors) -> Factors:
    """`function` of each factor, with one call for all factors of equal shape."""
    names = [(path, side) for path, both in factors[0].items() for side in both]
    columns: list[Any] = [[each[path][side] for path, side in names] for each in factors]
    results = dict(zip(names, map_by_shape(function, *columns), strict=True))
    return {path: {s: results[path, s] for s in both} for path, both in factors[0].items()}


def split_blocks(matrices: Matrices, block_size: int, max_size: int) -> Matrices:
    """The blocks of all matrices, named 'path[i,j]'; a matrix of one block keeps its name.

    A side of n is split into ceil(n / block_size) parts, whose sizes differ by one at most. Sides
    longer than `max_size` are not split. Raises ValueError if two names coincide.
    """
    blocks: Matrices = {}
    for path, x in matrices.items():
        rows, columns = (1 if n > max_size else max(1, -(-n // block_size)) for n in x.shape[-2:])
        for i, row in enumerate(jnp.array_split(x, rows, axis=-2)):
            for j, block in enumerate(jnp.array_split(row, columns, axis=-1)):
                name = f"{path}[{i},{j}]" if rows * columns > 1 else path
                if name in blocks:
                    raise ValueError(
                        f"shampoo: expected one matrix named {name!r}, got two; rename a leaf, "
                        "since the blocks of another have such names"
                    )
                blocks[name] = block
    return blocks


def join_blocks(blocks: Matrices, path: str) -> Array:
    """The matrix of that path from its blocks."""
    if path in blocks:
        return blocks[path]

    def row(i: int) -> list[Array]:
        names = (f"{path}[{i},{j}]" for j in itertools.count())
        return [blocks[name] for name in itertools.takewhile(blocks.__contains__, names)]

    return jnp.block(list(itertools.takewhile(len, map(row, itertools.count()))))
