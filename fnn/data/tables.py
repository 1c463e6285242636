"""Tables: columns of numbers and of categories, read from CSV, with what is missing in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Column = np.ndarray  # float64 with NaN where missing, or str with '' where missing


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of one length: float64 numbers, or strings.

    What is missing is NaN among the numbers and '' among the strings.

    >>> table = Table(columns={'age': np.array([39.0, np.nan]), 'sex': np.array(['F', 'M'])})
    >>> len(table), table.numeric, table.categorical
    (2, ('age',), ('sex',))
    >>> table.take([1]).columns['sex'].tolist()
    ['M']
    """

    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Table: expected columns of one length, got {lengths}; check where they come from"
            )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the columns of numbers."""
        return tuple(name for name, column in self.columns.items() if column.dtype.kind == "f")

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the columns of strings."""
        return tuple(name for name, column in self.columns.items() if column.dtype.kind != "f")

    def take(self, rows: Any) -> "Table":
        """The table of some rows, by their indices."""
        return Table(columns={name: column[rows] for name, column in self.columns.items()})

    def without(self, *names: str) -> "Table":
        """The table without some columns."""
        kept = {name: column for name, column in self.columns.items() if name not in names}
        return Table(columns=kept)


def read_csv(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    missing: Sequence[str] = ("", "?", "NA", "NaN"),
    separator: str = ",",
    comment: str | None = None,
) -> Table:
    """The table in a CSV file.

    A column whose every entry is a number or missing becomes numbers, every other one strings,
    with the blanks around them taken away.

    Args:
      names: of the columns, if the first line does not hold them.
      missing: entries that stand for nothing.
      separator: between the entries of a line.
      comment: the character that begins a line, or the rest of one, that is no data.

    Raises: ValueError for a file without rows, or one whose rows do not fit the names;
      ModuleNotFoundError without pandas.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'tiny.csv'
    >>> _ = file.write_text('age, sex\\n39, F\\n?, M\\n')
    >>> read_csv(file).columns['age'].tolist()
    [39.0, nan]
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "read_csv: needs pandas; pip install 'fnn[data]'", name="pandas"
        ) from error
    try:
        frame = pandas.read_csv(
            path,
            names=None if names is None else list(names),
            na_values=list(missing),
            keep_default_na=False,
            sep=separator,
            comment=comment,
            skipinitialspace=True,
            index_col=False,
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise ValueError(f"read_csv: expected a table in {path}, got none: {error}") from error
    if len(frame) == 0:
        raise ValueError(f"read_csv: expected rows in {path}, got none; check the file")
    return Table(columns={str(name).strip(): _column(frame[name]) for name in frame})


def _column(series: Any) -> Column:
    if series.dtype.kind in "iufb":
        return series.to_numpy(np.float64)
    return series.fillna("").astype(str).str.strip().to_numpy(np.str_)
