"""The findings of an audit, and the thresholds above which something is one."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WIDTHS = (18, 22, 26, 44)  # characters of the columns that `Findings` prints
EXAMPLES = 8  # listed per finding


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The thresholds of `audit`.

    >>> Limits(imbalance=20.0).imbalance
    20.0
    """

    # Labels
    imbalance: float = 10.0  # largest class over smallest: a constant guess is 91 % right
    fewest: int = 50  # examples for a statistical test of labels or features
    beats_chance: float = 4.0  # standard deviations over shuffled labels; one in 30,000 by chance
    leak: float = 0.99  # agreement of a single feature with the label; 0 is a guess

    # Features
    spread: float = 100.0  # ratio of two scales; the condition number of the loss is its square
    offset: float = 100.0  # mean over standard deviation: the same, for bias and weights
    size: float = 50.0  # root mean square, or its inverse: initial outputs are off by as much
    varies: float = 0.05  # fraction of rows off the median, below which a feature is only sparse

    # Between examples
    near: float = 0.4  # distance to the nearest over that to the fifth nearest neighbor
    by_luck: float = 0.01  # expected number of near-duplicates in a set without any

    # Between splits
    drift: float = 0.1  # total variation distance; less may be significant, but is harmless
    significance: float = 1e-3  # of a drift, after Bonferroni's correction for the features


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of the data.

    >>> Finding(kind='constant label', where='train', numbers={'label': 3}, advice='look').where
    'train'
    """

    kind: str
    where: str  # a split or two of them, and the features concerned
    numbers: Mapping[str, float | int]
    advice: str
    examples: tuple[int | tuple[int, int], ...] = ()  # rows, or pairs of rows


@dataclass(frozen=True)
class Findings:
    """All findings of an audit: false if there are none; printed, a table.

    >>> print(Findings())
    no findings
    >>> found = Findings((Finding(kind='a', where='train', numbers={'n': 2}, advice='look'),))
    >>> len(found), bool(found), [one.kind for one in found]
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
    numbers = ", ".join(
        f"{name} {value if isinstance(value, int) else format(value, '.3g')}"
        for name, value in one.numbers.items()
    )
    shown = f" (examples {', '.join(map(str, one.examples[:3]))})" if one.examples else ""
    return one.kind, one.where, numbers, one.advice + shown


def _lines(row: tuple[str, ...]) -> Iterator[str]:
    cells = [textwrap.wrap(cell, width) for cell, width in zip(row, WIDTHS, strict=True)]
    for i in range(max(map(len, cells))):
        parts = [cell[i] if i < len(cell) else "" for cell in cells]
        yield "  ".join(p.ljust(width) for p, width in zip(parts, WIDTHS, strict=True)).rstrip()
