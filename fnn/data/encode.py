"""Encoding of tables as arrays: standardized numbers and one-hot categories."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fnn._messages import refuse
from fnn.data._arrays import expect_numbers
from fnn.data.tables import Column, Table

_ROUNDINGS = 8  # a decimal fraction is rounded by half of one, a sum of a few by several


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The statistics and categories of a training set, as plain values that JSON can hold.

    A column keeps the kind that it was fitted with: in a column of categories `7` is the category
    '7', even in a file whose entries are all numbers.

    >>> table = Table(columns={'age': np.array([20.0, 40.0]), 'sex': np.array(['F', 'M'])})
    >>> encoder = fit_encoder(table)
    >>> encoder.features
    ('age', 'sex=F', 'sex=M')
    >>> encoder.apply(table).tolist()
    [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    >>> encoder.invert(encoder.apply(table)).columns['sex'].tolist()
    ['F', 'M']
    """

    numeric: dict[str, tuple[float, float]]  # column -> mean, standard deviation
    categories: dict[str, tuple[str, ...]]  # column -> its values, sorted
    with_missing: tuple[str, ...]  # numeric columns with an indicator of missing entries

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each column of the array."""
        one_hot = [f"{name}={value}" for name, vs in self.categories.items() for value in vs]
        return (*self.numeric, *(f"{name}=?" for name in self.with_missing), *one_hot)

    def apply(self, table: Table) -> Float[np.ndarray, "rows features"]:
        """The table as a float32 array with a column for each of `features`.

        A missing number becomes the mean, 0. A category unknown to the encoder is all 0.

        Raises: ValueError for a table without one of the columns, or with entries that are not
          finite numbers in a column fitted on numbers.
        """
        columns = self._columns(table)
        parts = [
            np.nan_to_num((columns[name] - mean) / std)[:, None]
            for name, (mean, std) in self.numeric.items()
        ]
        parts += [np.isnan(columns[name])[:, None] for name in self.with_missing]
        parts += [
            columns[name][:, None] == np.array(values)[None, :]
            for name, values in self.categories.items()
        ]
        return np.concatenate([part.astype(np.float32) for part in parts], axis=1)

    def codes(self, table: Table) -> Int[np.ndarray, "rows columns"]:
        """The categories as int32 indices for embeddings: from 1, and 0 for unknown ones."""
        columns = self._columns(table)
        codes = [_codes(columns[name], np.array(vs)) for name, vs in self.categories.items()]
        return np.stack(codes, axis=1) if codes else np.zeros((len(table), 0), np.int32)

    def invert(self, x: Float[np.ndarray, "rows features"]) -> Table:
        """The inverse of `apply`; '' for unknown categories, NaN where the indicator is set."""
        x = np.asarray(expect_numbers("Encoder.invert", x), np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.features):
            raise ValueError(
                f"Encoder.invert: expected x of shape (rows, {len(self.features)}), got {x.shape}; "
                "give it what apply returned"
            )
        columns: dict[str, np.ndarray] = {}
        for i, (name, (mean, std)) in enumerate(self.numeric.items()):
            columns[name] = x[:, i] * std + mean
        at = len(self.numeric)
        for name in self.with_missing:
            columns[name] = np.where(x[:, at] > 0.5, np.nan, columns[name])
            at += 1
        for name, values in self.categories.items():
            one_hot = x[:, at : at + len(values)]
            known = np.array(values)[one_hot.argmax(axis=1)]
            columns[name] = np.where(one_hot.max(axis=1) > 0.5, known, "")
            at += len(values)
        return Table(columns=columns)

    def _columns(self, table: Table) -> dict[str, Column]:
        """The fitted columns, each of the kind it was fitted with."""
        _expect_table("Encoder", table)
        wanted = [*self.numeric, *self.categories]
        absent = [name for name in wanted if name not in table.columns]
        if absent:
            raise ValueError(
                f"Encoder: expected the columns {wanted}, got none named {absent}; give it a table "
                "like the one that it was fitted on"
            )
        numbers = {name: _finite("Encoder", name, table.numbers(name)) for name in self.numeric}
        return numbers | {name: table.categories(name) for name in self.categories}


def fit_encoder(table: Table) -> Encoder:
    """Means and standard deviations of the numeric columns, and the values of the categorical ones.

    Fit it on the training part alone: statistics of the other parts are a leak. A deviation within
    the rounding of the column, 8 max |x| eps, counts as 0 and becomes 1, as for a constant.

    Raises: ValueError for an empty table, a column of missing numbers only, or an infinite number.

    >>> fit_encoder(Table(columns={'age': np.array([20.0, np.nan, 40.0])})).features
    ('age', 'age=?')
    """
    _expect_table("fit_encoder", table)
    if len(table) == 0:
        raise ValueError("fit_encoder: expected at least one row, got none; check the split")
    numeric = {name: _moments(name, table.columns[name]) for name in table.numeric}
    categories = {
        name: tuple(np.unique(table.columns[name]).tolist()) for name in table.categorical
    }
    with_missing = tuple(n for n in table.numeric if np.isnan(table.columns[n]).any())
    return Encoder(numeric=numeric, categories=categories, with_missing=with_missing)


def _expect_table(where: str, table: Table) -> None:
    if not isinstance(table, Table):
        hint = "make one by read_csv, or of arrays by Table(columns={name: array})"
        refuse(where, "a Table", table, hint)


def _finite(where: str, name: str, column: Column) -> Column:
    infinite = np.flatnonzero(np.isinf(column))
    if len(infinite):
        raise ValueError(
            f"{where}: expected finite numbers in column {name!r}, got {column[infinite[0]]} in "
            f"row {infinite[0]}; correct it, or make it NaN if it is missing"
        )
    return column


def _moments(name: str, column: Column) -> tuple[float, float]:
    known = _finite("fit_encoder", name, column)[~np.isnan(column)]
    if len(known) == 0:
        raise ValueError(
            f"fit_encoder: expected numbers in column {name!r}, got none; drop the column"
        )
    # Shifted by one of its values a constant is exactly 0; scaled, its squares do not overflow.
    shifted = known - known[0]
    scale = float(np.abs(shifted).max()) or 1.0
    std = scale * float((shifted / scale).std())
    rounding = _ROUNDINGS * float(np.abs(known).max()) * np.finfo(np.float64).eps
    return float(known[0] + shifted.mean()), std if std > rounding else 1.0


def _codes(column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 + the index of each entry among the sorted values; 0 for unknown entries."""
    at = np.searchsorted(values, column).clip(max=len(values) - 1)
    return np.where(values[at] == column, at + 1, 0).astype(np.int32)
