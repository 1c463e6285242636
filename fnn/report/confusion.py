"""The confusion matrix of a classifier, and its HTML table."""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Int, Integer

Matrix = Int[np.ndarray, "classes classes"]


def matrix(
    labels: Integer[np.ndarray, "*n"],
    predictions: Integer[np.ndarray, "..."],
    classes: int,
    *,
    ignore_index: int | None = None,
) -> Matrix:
    """Counts of each label (row) and prediction (column).

    Args:
      labels, predictions: integers in [0, classes), of one shape.
      ignore_index: a label that is not counted, such as -100.

    Raises: ValueError for shapes that differ, and for values out of range.

    >>> matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    if labels.shape != predictions.shape:
        raise ValueError(
            f"confusion.matrix: expected a prediction for each label, got {predictions.shape} "
            f"for {labels.shape}; take the argmax over the classes"
        )
    if ignore_index is not None:
        kept = labels.astype(np.int64) != ignore_index
        labels, predictions = labels[kept], predictions[kept]
    for name, values in (("labels", labels), ("predictions", predictions)):
        bad = values[(values < 0) | (values >= classes)]
        if len(bad):
            raise ValueError(
                f"confusion.matrix: expected {name} in [0, {classes}), got {bad[0]}; "
                "give as many classes as there are"
            )
    rows, columns = labels.astype(np.int64).ravel(), predictions.astype(np.int64).ravel()
    counts = np.bincount(rows * classes + columns, minlength=classes**2)
    return counts.reshape(classes, classes)


def table(matrix: Matrix, class_names: Sequence[str] | None = None) -> str:
    """The matrix as an HTML table, with the recall of each row and the precision of each column.

    A cell is shaded by its fraction of the row.

    Args:
      class_names: in the order of the labels; None for their indices.

    Raises: ValueError for too few or too many class names.

    >>> '<td class="miss" style="--fraction:0.500">1</td>' in table(np.array([[2, 0], [1, 1]]))
    True
    """
    names = _names(class_names, len(matrix))
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    of_row, of_column = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    lines = []
    for i, row in enumerate(matrix.tolist()):
        cells = "".join(_cell(n, of_row[i], hit=i == j) for j, n in enumerate(row))
        recall = f'<td class="side">{_percent(row[i], of_row[i])}</td>'
        lines.append(f'<tr><th scope="row">{names[i]}</th>{cells}{recall}</tr>')
    hits = zip(matrix.diagonal().tolist(), of_column, strict=True)
    precision = "".join(f'<td class="side">{_percent(hit, of)}</td>' for hit, of in hits)
    return (
        '<div class="wide"><table class="confusion">'
        "<caption>Rows: labels. Columns: predictions.</caption>"
        f'<thead><tr><td></td>{head}<th scope="col" class="side">recall</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody><tfoot><tr>"
        f'<th scope="row" class="side">precision</th>{precision}<td></td></tr></tfoot>'
        "</table></div>"
    )


def _names(class_names: Sequence[str] | None, classes: int) -> list[str]:
    names = [escape(str(n)) for n in (range(classes) if class_names is None else class_names)]
    if len(names) != classes:
        raise ValueError(
            f"confusion.table: expected {classes} class names, got {len(names)}; give one a class"
        )
    return names


def _cell(n: int, of_row: int, *, hit: bool) -> str:
    if n == 0:
        return "<td></td>"
    return f'<td class="{"hit" if hit else "miss"}" style="--fraction:{n / of_row:.3f}">{n}</td>'


def _percent(n: int, of: int) -> str:
    return f"{100 * n / of:.0f} %" if of else "–"
