"""Tables: named columns of numbers and of categories, with missing entries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fnn._messages import refuse
from fnn.data._arrays import is_masked

Column = np.ndarray  # float64 with NaN where missing, or str with '' where missing
_EXACT = 2**53  # integers up to here are float64 numbers


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of one length: float64 numbers, or strings.

    A missing entry is NaN in a column of numbers and '' in one of strings. Integers and bools
    become float64, so the kind of a column does not depend on missing entries.

    Raises: ValueError for columns of unequal length, or of neither numbers nor strings.

    >>> table = Table(columns={'age': np.array([39.0, np.nan]), 'sex': np.array(['F', 'M'])})
    >>> len(table), table.numeric, table.categorical
    (2, ('age',), ('sex',))
    >>> table.take([1]).columns['sex'].tolist()
    ['M']
    """

    columns: Mapping[str, Column]
    # The text of each number in the file, for an encoder with categories in this column.
    written: Mapping[str, Column] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping):
            hint = "give {name: frame[name].to_numpy() for name in frame}"
            refuse("Table", "columns={name: array}", self.columns, hint)
        columns = {name: _column(name, column) for name, column in self.columns.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Table: expected columns of one length, got {lengths}; check where they come from"
            )
        object.__setattr__(self, "columns", columns)

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
        """The table of the rows with the given indices."""
        return self._with(lambda columns: {name: c[rows] for name, c in columns.items()})

    def without(self, *names: str) -> "Table":
        """The table without some columns.

        Raises: ValueError for an unknown name.
        """
        self._expect("without", names)
        return self._with(lambda columns: {n: c for n, c in columns.items() if n not in names})

    def with_kinds(self, kinds: Mapping[str, str]) -> "Table":
        """The table with some columns converted to kind 'number' or 'category'.

        Numbers that were read from a file become their text in the file.

        Raises: ValueError for an unknown name or kind, entries that are not numbers, or numbers
          without text.

        >>> table = Table(columns={'size': np.array(['36', '', '38'])})
        >>> table.with_kinds({'size': 'number'}).columns['size'].tolist()
        [36.0, nan, 38.0]
        """
        self._expect("with_kinds", kinds)
        columns, written = dict(self.columns), dict(self.written)
        for name, kind in kinds.items():
            if kind == "number":
                columns[name] = self.numbers(name)
                written.setdefault(name, self.columns[name])
            elif kind == "category":
                columns[name] = self.categories(name)
                written.pop(name, None)
            else:
                raise ValueError(
                    f"Table.with_kinds: expected 'number' or 'category' for column {name!r}, got "
                    f"{kind!r}"
                )
        return Table(columns=columns, written=written)

    def numbers(self, name: str) -> Column:
        """A column as float64, NaN where an entry is missing.

        Raises: ValueError for an entry that is not a number.
        """
        column = self.columns[name]
        if column.dtype.kind == "f":
            return column
        numbers = [to_number(entry) if entry else np.nan for entry in column.tolist()]
        for row, number in enumerate(numbers):
            if number is None:
                raise ValueError(
                    f"Table: expected numbers in column {name!r}, got {column[row].item()!r} in "
                    f"row {row}; correct it, or add it to missing="
                )
        return np.array(numbers, np.float64)

    def categories(self, name: str) -> Column:
        """A column as strings, '' where an entry is missing.

        Raises: ValueError for numbers that were not read from a file.
        """
        column = self.columns[name]
        if column.dtype.kind != "f":
            return column
        if name not in self.written:
            raise ValueError(
                f"Table: expected categories in column {name!r}, got numbers; give strings, such "
                "as column.astype(int).astype(str)"
            )
        return self.written[name]

    def _with(self, change: Any) -> "Table":
        return Table(columns=change(self.columns), written=change(self.written))

    def _expect(self, where: str, names: Any) -> None:
        absent = [name for name in names if name not in self.columns]
        if absent:
            raise ValueError(
                f"Table.{where}: expected names among {list(self.columns)}, got {absent}"
            )


_CHARACTERS = frozenset("0123456789+-.eEinfatyINFATY")


def to_number(entry: str) -> float | None:
    """The value of a decimal literal, or None; neither '1_000' nor '٣' is one.

    >>> to_number('1e3'), to_number('1_000'), to_number('inf')
    (1000.0, None, inf)
    """
    if not _CHARACTERS.issuperset(entry):
        return None
    try:
        return float(entry)
    except ValueError:
        return None


def _column(name: str, column: Any) -> Column:
    if not isinstance(column, np.ndarray) or is_masked(column) or column.dtype.kind not in "iufbUO":
        words = f"column {name!r} as a NumPy array of numbers or strings"
        refuse("Table", words, column, _hint(column))
    if column.ndim != 1:
        raise ValueError(f"Table: expected column {name!r} of shape (n,), got {column.shape}")
    if column.dtype.kind == "O":
        return _strings(name, column)
    if column.dtype.kind == "U":
        return column
    if column.dtype.kind in "iu" and len(column):
        largest = max(int(column.max()), -int(column.min()))
        if largest > _EXACT:
            raise ValueError(
                f"Table: expected integers up to 2^53 in column {name!r}, got {largest}, which "
                "float64 may round; give column.astype(str) for categories"
            )
    return column.astype(np.float64)


def _hint(column: Any) -> str:
    if hasattr(column, "to_numpy"):
        return "give column.to_numpy(), of strings column.fillna('').to_numpy(str)"
    return "give " + ("column.filled(np.nan)" if is_masked(column) else "np.asarray(column, float)")


def _strings(name: str, column: np.ndarray) -> Column:
    for row, entry in enumerate(column):
        if not isinstance(entry, str):
            raise ValueError(
                f"Table: expected column {name!r} as numbers or strings, got an object array with "
                f"{entry!r} in row {row}; give column.astype(np.float64), or strings with '' where "
                "one is missing"
            )
    return column.astype(np.str_)
