"""Tables of text."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells as lines with aligned columns, two spaces apart.

    Args:
      left: how many columns, from the first on, are aligned left; the others are aligned right.

    >>> print(table([['name', 'n'], ['a', '10'], ['bcd', '5']]))
    name   n
    a     10
    bcd    5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)
