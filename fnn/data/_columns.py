"""Sequences of examples that are no arrays, with the shape and the rows of one."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fnn.train._given import arrays, is_plain_list


def columns(where: str, values: PyTree) -> PyTree:
    """`values` with arrays or `Column`s for leaves; arrays, np.memmap and h5py's stay as they are.

    Args:
      where: how an error message begins.

    Raises: ValueError for rows of unequal length or of text.

    >>> columns('here', [[1, 2], [3, 4]]).shape, columns('here', range(3)).shape
    ((2, 2), (3,))
    """

    def column(leaf: Any) -> Any:
        if hasattr(leaf, "shape") and not hasattr(leaf, "detach"):
            return leaf
        if isinstance(leaf, list) or hasattr(leaf, "detach"):
            return arrays(leaf)
        rows = hasattr(leaf, "__len__") and hasattr(leaf, "__getitem__")
        return Column(leaf) if rows and not isinstance(leaf, str) else leaf

    try:
        return jax.tree.map(column, values, is_leaf=is_plain_list)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


class Column:
    """A sequence of rows of one shape, such as a column of Hugging Face datasets, as an array.

    >>> column = Column(range(10, 20))
    >>> column.shape, column[:2].tolist(), column[np.array([3, 1])].tolist()
    ((10,), [10, 11], [13, 11])
    """

    def __init__(self, rows: Any):
        first = arrays(np.zeros(0) if len(rows) == 0 else _row(rows[0]))
        self._rows, self.dtype, self.shape = rows, first.dtype, (len(rows), *first.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        every = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        indices = [int(i) for i in every]
        try:
            taken = self._rows[indices]
        except TypeError:  # it takes them one by one
            taken = [self._rows[i] for i in indices]
        stacked = taken if hasattr(taken, "shape") else list(map(_row, taken))
        values = np.asarray(arrays(stacked) if hasattr(stacked, "shape") else np.stack(stacked))
        return values.astype(self.dtype, copy=False).reshape(len(indices), *self.shape[1:])


def _row(row: Any) -> np.ndarray:
    return np.asarray(arrays(row))
