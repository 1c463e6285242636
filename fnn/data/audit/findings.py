"""What an audit found, with its numbers and what to do about it."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WIDTHS = (18, 22, 26, 44)  # characters of the columns that `Findings` prints
EXAMPLES = 8  # of a finding; enough to look at


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of the data.

    >>> Finding(kind='constant label', where='train', numbers={'label': 3}, advice='look').where
    'train'
    """

    kind: str
    where: str  # the split, or two of them, and the features if it is theirs
    numbers: Mapping[str, float | int]
    advice: str
    examples: tuple[int | tuple[int, int], ...] = ()  # rows; pairs of rows where two are concerned


@dataclass(frozen=True)
class Findings:
    """All that was found: true if there is something, and printed as a table.

    >>> print(Findings())
    no findings
    >>> made = Findings((Finding(kind='a', where='train', numbers={'n': 2}, advice='look'),))
    >>> len(made), bool(made), [one.kind for one in made]
    (1, True, ['a'])
    """

    found: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __str__(self) -> str:
        if not self.found:
            return "no findings"
        rows = [("kind", "where", "numbers", "advice"), *map(_cells, self.found)]
        return "\n".join(line for row in rows for line in _lines(row))


def _cells(one: Finding) -> tuple[str, str, str, str]:
    numbers = ", ".join(f"{name} {_short(value)}" for name, value in one.numbers.items())
    shown = f" (examples {', '.join(map(str, one.examples[:3]))})" if one.examples else ""
    return one.kind, one.where, numbers, one.advice + shown


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _lines(row: tuple[str, ...]) -> Iterator[str]:
    cells = [textwrap.wrap(cell, width) for cell, width in zip(row, WIDTHS, strict=True)]
    for i in range(max(map(len, cells))):
        parts = [cell[i] if i < len(cell) else "" for cell in cells]
        padded = [part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True)]
        yield "  ".join(padded).rstrip()
