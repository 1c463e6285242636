"""A table as an array: numbers standardised, categories as units, by what was fitted once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fnn.data.tables import Table


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What `fit_encoder` learned from the training part; plain values that JSON can hold.

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

        Raises: ValueError for a table without one of the columns.
        """
        self._expect_columns(table)
        columns = table.columns
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
        self._expect_columns(table)
        coded = [
            _positions(table.columns[name], np.array(values))
            for name, values in self.categories.items()
        ]
        return np.stack(coded, axis=1) if coded else np.zeros((len(table), 0), np.int32)

    def invert(self, x: Float[np.ndarray, "rows features"]) -> Table:
        """The table that `apply` made x from; '' where no unit is set, NaN where one says so."""
        x = np.asarray(x, np.float64)
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

    def _expect_columns(self, table: Table) -> None:
        wanted = [*self.numeric, *self.categories]
        absent = [name for name in wanted if name not in table.columns]
        if absent:
            raise ValueError(
                f"Encoder: expected the columns {wanted}, got none named {absent}; give it a table "
                "like the one that it was fitted on"
            )


def fit_encoder(table: Table) -> Encoder:
    """Means and deviations of the numbers, and the values of the categories.

    Fit it on the training part alone: what it learns from the other parts is a leak.

    Raises: ValueError for an empty table, or a column of numbers that are all missing.

    >>> fit_encoder(Table(columns={'age': np.array([20.0, np.nan, 40.0])})).features
    ('age', 'age=?')
    """
    if len(table) == 0:
        raise ValueError("fit_encoder: expected at least one row, got none; check the split")
    numeric = {name: _moments(name, table.columns[name]) for name in table.numeric}
    categories = {
        name: tuple(np.unique(table.columns[name]).tolist()) for name in table.categorical
    }
    with_missing = tuple(n for n in table.numeric if np.isnan(table.columns[n]).any())
    return Encoder(numeric=numeric, categories=categories, with_missing=with_missing)


def _moments(name: str, column: np.ndarray) -> tuple[float, float]:
    known = column[~np.isnan(column)]
    if len(known) == 0:
        raise ValueError(
            f"fit_encoder: expected numbers in column {name!r}, got none; leave it out"
        )
    std = float(known.std())
    return float(known.mean()), std if std > 0 else 1.0


def _positions(column: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 + the place of each entry among the sorted values; 0 for one that is not among them."""
    at = np.searchsorted(values, column).clip(max=len(values) - 1)
    return np.where(values[at] == column, at + 1, 0).astype(np.int32)
