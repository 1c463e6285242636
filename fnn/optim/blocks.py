"""Matrices cut into blocks, and put together again."""

import itertools

import jax.numpy as jnp
from jaxtyping import Array

from fnn.optim.kronecker import Matrices


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
