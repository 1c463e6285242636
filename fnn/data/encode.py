"""A table as an array: numbers standardized, categories as units, by what was fitted once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fnn.data._arrays import expect_numbers, name_of
from fnn.data.tables import Column, Table

_ROUNDINGS = 8  # a decimal fraction is off by half of one, a sum of a few by as many


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What `fit_encoder` learned from the training part; plain values that JSON can hold.

    A column keeps the kind that it had then: `7` in a column of categories is the category '7' in a
    table whose other entries are numbers as well, if the table was read from a file.

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
    with_missing: tuple[str, ...]  # numeric columns that get a unit that says so

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each column of the array."""
        units = [f"{name}={value}" for name, vs in self.categories.items() for value in vs]
        return (*self.numeric, *(f"{name}=?" for name in self.with_missing), *units)

    def apply(self, table: Table) -> Float[np.ndarray, "rows features"]:
        """The array of a table: float32, a column for each of `features`.

        A missing number is the mean, 0. A value that was not there when the encoder was fitted,
        a missing one too unless it was, has no unit: its units are all 0.

        Raises: ValueError for a table without one of the columns, or with entries that are no
          finite numbers where it was fitted on numbers.
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
        """The categories as numbers, for embeddings: int32, 0 for what was not seen when fitted."""
        columns = self._columns(table)
        coded = [
            _positions(columns[name], np.array(values)) for name, values in self.categories.items()
        ]
        return np.stack(coded, axis=1) if coded else np.zeros((len(table), 0), np.int32)

    def invert(self, x: Float[np.ndarray, "rows features"]) -> Table:
        """The table that `apply` made x from; '' where no unit is set, NaN where one says so."""
        x = np.asarray(expect_numbers("Encoder.invert: expected x", x), np.float64)
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
            units = x[:, at : at + len(values)]
            known = np.array(values)[units.argmax(axis=1)]
            columns[name] = np.where(units.max(axis=1) > 0.5, known, "")
            at += len(values)
        return Table(columns=columns)

    def _columns(self, table: Table) -> dict[str, Column]:
        """The columns that it was fitted on, each of the kind that it had then."""
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
    """Means and deviations of the numbers, and the values of the categories.

    Fit it on the training part alone: what it learns from the other parts is a leak. A deviation
    within the rounding of the numbers, 8 max |x| eps, is none, and becomes 1 as that of a constant.

    Raises: ValueError for an empty table, a column of numbers that are all missing, or an infinite
      number.

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
        raise ValueError(
            f"{where}: expected a Table, got {name_of(table)}; make one by read_csv, or of "
            "arrays by Table(columns={name: array})"
        )


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
            f"fit_encoder: expected numbers in column {name!r}, got none; leave it out"
        )
    # Measured from one of its values a constant is exactly 0; over the largest, squares fit.
    shifted = known - known[0]
    unit = float(np.abs(shifted).max()) or 1.0
    std = unit * float((shifted / unit).std())
    rounding = _ROUNDINGS * float(np.abs(known).max()) * np.finfo(np.float64).eps
    return float(known[0] + shifted.mean()), std if std > rounding else 1.0


def _positions(column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 + the place of each entry among the sorted values; 0 for one that is not among them."""
    at = np.searchsorted(values, column).clip(max=len(values) - 1)
    return np.where(values[at] == column, at + 1, 0).astype(np.int32)
