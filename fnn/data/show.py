"""Figures of a batch: images with labels, rows of a table, or text."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn.data._arrays import expect_native
from fnn.data.tables import Table
from fnn.report.figure import GRID, INK, figure
from fnn.types import Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES, _ROWS, _COLUMNS = 24, 12, 12  # the most that are shown


def show(
    batch: Pair,
    *,
    classes: Sequence[str] = (),
    features: Sequence[str] = (),
    decode: Callable[[np.ndarray], str] | None = None,
) -> "Figure":
    """A figure of the first examples of a batch, for a notebook or `savefig`.

    Args:
      batch: (x, y), with y None for examples without labels. Images are x of shape (batch, height,
        width) or (batch, height, width, 1 or 3), uint8 or floats of any range; rows are x of shape
        (batch, features) or a Table; text is `decode` of each x.
      classes: the name of each label.
      features: the name of each column of rows.
      decode: from the tokens of an example to text, such as `Characters(...).decode`.

    Returns: a matplotlib Figure; no window is opened.
    Raises: ValueError for an empty batch, or x of another shape; ModuleNotFoundError without
      matplotlib.

    >>> images = np.zeros((5, 8, 8), np.uint8)
    >>> len(show((images, np.arange(5)), classes='abcde').axes)
    5
    """
    x, y = batch
    for name, part in (("x", x), ("y", y)):
        expect_native("data.show", part, name)
    if len(x) == 0:
        raise ValueError("data.show: expected at least one example, got an empty batch")
    labels = [_label(y, i, classes) for i in range(min(len(x), _IMAGES))]
    if decode is not None:
        texts = [decode(np.asarray(one)) for one in x[:_ROWS]]
        return _table([[repr(text)[1:-1][:100]] for text in texts], ["text"], labels)
    if isinstance(x, Table):
        names = list(x.columns)
        rows = [[_number(x.columns[name][i]) for name in names] for i in range(min(len(x), _ROWS))]
        return _table(rows, names, labels)
    x = np.asarray(x[:_IMAGES])
    if x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3)):
        return _images(x, labels)
    if x.ndim == 2:
        names = list(features) or [f"x[{i}]" for i in range(x.shape[1])]
        return _table([[_number(v) for v in row] for row in x[:_ROWS]], names, labels)
    raise ValueError(
        "data.show: expected images (batch, height, width[, 1 or 3]) or rows (batch, features), "
        f"got {x.shape}; pass decode= for text"
    )


def _images(x: np.ndarray, labels: list[str]) -> "Figure":
    columns = min(len(x), 8)
    rows = -(-len(x) // columns)
    canvas = figure(1.2 * columns, 1.4 * rows)
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    x = x[..., 0] if x.shape[-1] == 1 and x.ndim == 4 else x
    low, high = (0, 255) if x.dtype == np.uint8 else (float(x.min()), float(x.max()))
    scaled = np.clip((x.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    for panel, image, label in zip(panels, scaled, labels, strict=False):
        panel.imshow(image, cmap="gray", vmin=0, vmax=1)
        panel.set_title(label, fontsize=8, color=INK)
        panel.set_axis_off()
    for panel in panels[len(x) :]:
        panel.remove()
    return canvas


def _table(rows: list[list[str]], names: list[str], labels: list[str]) -> "Figure":
    """At most `_COLUMNS` columns, and one that counts the rest."""
    more = len(names) - _COLUMNS
    if more > 0:
        names = [*names[:_COLUMNS], f"and {more} more"]
        rows = [[*row[:_COLUMNS], "..."] for row in rows]
    labeled = any(labels)
    cells = [[*row, label] if labeled else row for row, label in zip(rows, labels, strict=False)]
    canvas = figure(max(4, 1.1 * (len(names) + labeled)), 0.3 * (len(rows) + 1.5))
    panel = canvas.subplots()
    panel.set_axis_off()
    heads = [*names, "label"] if labeled else names
    drawn = panel.table(cells, colLabels=heads, loc="center", cellLoc="left", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    drawn.auto_set_column_width(list(range(len(heads))))
    for (row, _), cell in drawn.get_celld().items():
        cell.set_edgecolor(GRID)
        cell.get_text().set(color=INK, fontweight="bold" if row == 0 else "normal")
    return canvas


def _label(y: Any, i: int, classes: Sequence[str]) -> str:
    if y is None:
        return ""
    value = np.asarray(y[i])
    if classes and value.ndim == 0 and np.issubdtype(value.dtype, np.integer):
        return str(classes[int(value)]) if 0 <= value < len(classes) else f"{value}, unknown"
    return _number(value) if value.ndim == 0 else str(value.round(2))


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
