"""Sequences of examples as arrays with a shape, without reading them whole."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fnn.train._source import arrays, is_plain_list


def columns(where: str, values: PyTree) -> PyTree:
    """`values` with arrays or `Column`s as leaves; arrays, np.memmap and h5py's are unchanged.

    Raises: ValueError for rows of unequal length or of text.

    >>> columns('here', [[1, 2], [3, 4]]).shape, columns('here', range(3)).shape
    ((2, 2), (3,))
    """

    def column(leaf: Any) -> Any:
        if hasattr(leaf, "shape") and not hasattr(leaf, "detach"):
            return leaf
        if isinstance(leaf, list) or hasattr(leaf, "detach"):
            return arrays(leaf)
        indexed = hasattr(leaf, "__len__") and hasattr(leaf, "__getitem__")
        return Column(leaf) if indexed and not isinstance(leaf, str) else leaf

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
        first = _row(rows[0]) if len(rows) else np.zeros(0)
        self._rows, self.dtype, self.shape = rows, first.dtype, (len(rows), *first.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        indices = [int(i) for i in rows]
        try:
            taken = self._rows[indices]
        except TypeError:  # indexed by one integer at a time
            taken = [self._rows[i] for i in indices]
        values = _row(taken) if hasattr(taken, "shape") else np.stack([_row(row) for row in taken])
        return values.astype(self.dtype, copy=False).reshape(len(indices), *self.shape[1:])


def _row(row: Any) -> np.ndarray:
    return np.asarray(arrays(row))
