"""A strict reader of comma-separated files: every line is a row of the table or an error."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fnn.data._contents import read_text
from fnn.data.tables import Column, Table, to_number

Row = tuple[int, list[str]]  # its first line, counted from 1, and its entries
ToFloat = Callable[[str], float | None]  # None for an entry that is not a number


def read_csv(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    missing: Sequence[str] = ("", "?", "NA", "NaN"),
    separator: str = ",",
    comment: str | None = None,
    decimal: str = ".",
    thousands: str | None = None,
    encoding: str = "utf-8",
    kinds: Mapping[str, str] | None = None,
) -> Table:
    """The table in a CSV file, plain or compressed with gzip, bzip2 or xz.

    A column of numbers and missing entries becomes float64, any other one strings, with the blanks
    around them stripped. An encoder keeps the kind that a column had when it was fitted, whatever
    another file holds there.

    Args:
      names: of the columns, if the first line does not hold them.
      missing: entries that mean a missing value, without the blanks around them.
      separator: between the entries of a line, one character.
      comment: the character that begins a comment, which extends to the end of the line.
      decimal: the decimal point.
      thousands: the character between groups of three digits; None for no grouping.
      encoding: of the file; a byte order mark is dropped.
      kinds: column -> 'number' or 'category', where the entries suggest the other.

    Returns: a Table. Blank lines are skipped.
    Raises: ValueError for a file without rows, a row with more or fewer entries than names,
      repeated names, quotes that do not close, text of another encoding, and entries of a column of
      kind 'number' that are not numbers; lines are counted from 1.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'tiny.csv'
    >>> _ = file.write_text('age, sex, zip\\n39, F, 01\\n?, M, 02\\n')
    >>> table = read_csv(file, kinds={'zip': 'category'})
    >>> table.columns['age'].tolist(), table.columns['zip'].tolist()
    ([39.0, nan], ['01', '02'])
    """
    to_float = _number_format(decimal, thousands)
    rows = _rows(path, read_text("read_csv", path, encoding), separator, comment)
    lines, heads, columns = _columns(path, rows, names)
    kinds = _expect_kinds(path, kinds or {}, heads)
    absent = {entry.strip() for entry in missing}
    parsed, written = {}, {}
    for name, entries in zip(heads, columns, strict=True):
        entries = tuple("" if entry in absent else entry for entry in entries)
        kind = kinds.get(name)
        numbers = None if kind == "category" else _numbers(entries, to_float)
        texts = np.array(entries, np.str_)
        if numbers is None and kind == "number":
            raise _not_a_number(path, name, lines, entries, to_float)
        if numbers is None:
            parsed[name] = texts
        else:
            parsed[name], written[name] = numbers, texts
    return Table(columns=parsed, written=written)


def _rows(path: str | Path, text: str, separator: str, comment: str | None) -> Iterator[Row]:
    if comment is not None and len(comment) != 1:
        raise ValueError(f"read_csv: expected a comment of one character, got {comment!r}")
    source = io.StringIO(text, newline="")
    lines = source if comment is None else _without_comments(source, comment)
    try:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    except TypeError as error:
        raise ValueError(
            f"read_csv: expected a separator of one character, got {separator!r}"
        ) from error
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"read_csv: expected a table in {path}, got {error} in line {line}; correct the "
                "quotes of this line"
            ) from error
        if row:
            yield line, [entry.strip() for entry in row]


def _without_comments(lines: Iterator[str], comment: str) -> Iterator[str]:
    """The lines up to an unquoted comment character."""
    quoted = False
    for line in lines:
        kept = line
        for i, character in enumerate(line):
            if character == '"':
                quoted = not quoted
            elif character == comment and not quoted:
                kept = line[:i] + "\n"
                break
        yield kept


def _columns(
    path: str | Path, rows: Iterator[Row], names: Sequence[str] | None
) -> tuple[list[int], list[str], list[tuple[str, ...]]]:
    """The line number of each row, the names, and the entries by column."""
    if names is None:
        _, names = next(rows, (0, None))
    if names is None:
        raise ValueError(f"read_csv: expected a table in {path}, got an empty file")
    names = list(names)
    if len(set(names)) < len(names):
        double = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"read_csv: expected columns of {path} with different names, got {double} more than "
            "once; rename them, or give names="
        )
    lines, entries = [], []
    for line, row in rows:
        if row == [""] and len(names) > 1:  # only blanks
            continue
        if len(row) != len(names):
            raise ValueError(
                f"read_csv: expected {len(names)} entries in each row of {path}, got {len(row)} in "
                f"line {line}; correct the line, or quote an entry that holds the separator"
            )
        lines.append(line)
        entries.append(row)
    if not entries:
        raise ValueError(f"read_csv: expected rows in {path}, got none; check the file")
    return lines, names, list(zip(*entries, strict=True))


def _expect_kinds(
    path: str | Path, kinds: Mapping[str, str], names: Sequence[str]
) -> Mapping[str, str]:
    wrong = {n: k for n, k in kinds.items() if n not in names or k not in ("number", "category")}
    if wrong:
        raise ValueError(
            f"read_csv: expected kinds 'number' or 'category' for columns of {path}, which has "
            f"{list(names)}, got {wrong}"
        )
    return kinds


def _number_format(decimal: str, thousands: str | None) -> ToFloat:
    if (decimal, thousands) == (".", None):
        return to_number
    if len(decimal) != 1 or (thousands is not None and len(thousands) != 1) or decimal == thousands:
        raise ValueError(
            "read_csv: expected decimal and thousands to be two different characters, got "
            f"{decimal!r} and {thousands!r}"
        )
    point, group = re.escape(decimal), re.escape(thousands or "")
    whole = rf"\d+|\d{{1,3}}(?:{group}\d{{3}})+" if thousands else r"\d+"
    pattern = re.compile(
        rf"[+-]?(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?|nan",
        re.ASCII | re.IGNORECASE,
    )

    def to_float(entry: str) -> float | None:
        if not pattern.fullmatch(entry):
            return None
        return float(entry.replace(thousands or "", "").replace(decimal, "."))

    return to_float


def _numbers(entries: Sequence[str], to_float: ToFloat) -> Column | None:
    """The entries as float64, or None if one is neither a number nor missing."""
    numbers = []
    for entry in entries:
        number = to_float(entry) if entry else np.nan
        if number is None:
            return None
        numbers.append(number)
    return np.array(numbers, np.float64)


def _not_a_number(
    path: str | Path, name: str, lines: Sequence[int], entries: Sequence[str], to_float: ToFloat
) -> ValueError:
    line, entry = next(
        (line, e) for line, e in zip(lines, entries, strict=True) if e and to_float(e) is None
    )
    return ValueError(
        f"read_csv: expected numbers in column {name!r} of {path}, got {entry!r} in line {line}; "
        "correct it, or add it to missing="
    )
