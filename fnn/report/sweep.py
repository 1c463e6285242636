"""Reports of a sweep: curves with bands, a map of two hyperparameters, and a CSV file."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn.report.figure import GRID, INK, VALID, figure, matplotlib, tidy
from fnn.train.sweeps.result import SweepResult, SweepTable, as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_MOST_NUMBERS = 100  # cells of a map that are annotated with their values
_MOST_LABELS = 9  # of an axis


def save_csv(table: SweepTable, path: str | Path) -> None:
    """Writes a table as comma-separated values in full precision; NaN is an empty cell.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'sweep.csv'
    >>> rows = [{'lr': 0.1, 'n': 1, 'loss mean': 0.25, 'loss std': float('nan')}]
    >>> save_csv(SweepTable(rows), path)
    >>> path.read_text().splitlines()
    ['lr,n,loss mean,loss std', '0.1,1,0.25,']
    """
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        for row in table.rows:
            writer.writerow([_cell(row[name]) for name in table.columns])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else repr(value)
    return as_text(value)


def draw_curves(
    result: SweepResult,
    *,
    metric: str = "loss",
    settings: Sequence[int] | None = None,
    most: int = 8,
) -> "Figure":
    """Each setting's validation metric over the steps: mean and standard deviation over keys.

    Args:
      metric: a name in `result.history.valid`.
      settings: indices of those to draw; None for `most` of them, evenly spaced in the order of
        their final mean.
      most: at least 2.

    Raises: ValueError for an unknown metric; ModuleNotFoundError without matplotlib.

    >>> from fnn.types import History
    >>> history = History(train={'loss': np.zeros((2, 3, 20))},
    ...                   eval_steps=np.broadcast_to([10, 20], (2, 3, 2)),
    ...                   valid={'loss': np.random.default_rng(0).uniform(size=(2, 3, 2))})
    >>> steps = np.full((2, 3), 20, np.int32)
    >>> result = SweepResult(settings={'lr': [0.1, 0.2]}, history=history, made=steps,
    ...                      reached=steps, kept=[()], interrupted=False)
    >>> [text.get_text() for text in draw_curves(result).axes[0].get_legend().get_texts()]
    ['0.1', '0.2']
    """
    _expect_metric("draw_curves", metric, list(result.history.valid))
    chosen = _spread(result, metric, most) if settings is None else list(settings)
    whole = figure(8.4, 4.2)
    axes = whole.add_subplot()
    tidy(axes, metric)
    steps = np.asarray(result.history.eval_steps)[0, 0]
    named = [name for name, values in result.settings.items() if len(set(map(str, values))) > 1]
    colors = matplotlib().colormaps["viridis"](np.linspace(0, 0.9, max(2, len(chosen))))
    for setting, color in zip(chosen, colors, strict=False):
        label = ", ".join(_short(result.settings[name][setting]) for name in named)
        _band(axes, steps, np.asarray(result.history.valid[metric])[setting], color, label)
    if all((np.asarray(line.get_ydata()) > 0).any() for line in axes.get_lines()):
        axes.set_yscale("log", nonpositive="clip")
    axes.margins(x=0.02)
    axes.set_xlabel("step", loc="right", fontsize=8, color=INK)
    legend = axes.legend(
        title=", ".join(named),
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )
    legend.get_title().set(fontsize=8, color=INK)
    return whole


def _expect_metric(where: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise ValueError(f"report.sweep.{where}: expected one of {names}, got {name!r}")


def _spread(result: SweepResult, metric: str, most: int) -> list[int]:
    """Evenly spaced settings in the order of their final mean, without diverged ones."""
    means = np.array([row[f"{metric} mean"] for row in result.table().rows])
    order = np.argsort(means)[: np.isfinite(means).sum()]
    ranks = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)
    return order[ranks].tolist()


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else as_text(value)


def _band(axes: "Axes", steps: Any, values: np.ndarray, color: Any, label: str) -> None:
    """`values` (keys, evaluations); NaN after the end of a run."""
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / n
    squares = np.where(known, (values - mean) ** 2, 0).sum(axis=0, dtype=np.float64)
    std = np.sqrt(squares / np.maximum(n - 1, 1))
    mean = np.where(known.any(axis=0), mean, np.nan)
    axes.plot(steps, mean, linewidth=1.6, color=color, label=label)
    axes.fill_between(steps, mean - std, mean + std, color=color, alpha=0.18, linewidth=0)


def draw_map(
    table: SweepTable,
    *,
    x: str,
    y: str,
    value: str,
    best: Callable[[np.ndarray], Any] = np.nanargmin,
    norm: "Normalize | None" = None,
    title: str | None = None,
) -> "Figure":
    """A heat map of a column of the table over two hyperparameters.

    Rows of the table in one cell (of a third hyperparameter) are averaged. Cells without a finite
    value are crossed out; the best one is framed, has the lightest color, and is in the title.

    Args:
      x, y: columns of numbers, shown in rising order.
      value: a column of numbers, such as 'loss mean'.
      best: the index of the best cell, e.g. `np.nanargmax` for an accuracy.
      norm: of the colors, e.g. `matplotlib.colors.LogNorm()`; None for a linear one.
      title: of the colors; None for `value`.

    Raises: ValueError for an unknown column; ModuleNotFoundError without matplotlib.

    >>> rows = [{'lr': lr, 'decay': d, 'loss mean': lr + d} for lr in (0.1, 0.2) for d in (0, 1)]
    >>> axes = draw_map(SweepTable(rows), x='lr', y='decay', value='loss mean').axes[0]
    >>> axes.get_title(loc='left'), [text.get_text() for text in axes.get_yticklabels()]
    ('loss mean: best 0.1 at lr 0.1, decay 0', ['0', '1'])
    """
    for name in (x, y, value):
        _expect_metric("draw_map", name, table.columns)
    xs, ys, cells = _cells(table, x, y, value)
    whole = figure(7.2, 5.6)
    axes = whole.add_subplot()
    image = axes.imshow(cells, origin="lower", aspect="auto", norm=norm)
    axes.set_facecolor(GRID)
    _ticks(axes.xaxis, xs)
    _ticks(axes.yaxis, ys)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    _crosses(axes, cells)
    found = ""
    if np.isfinite(cells).any():
        row, column = np.unravel_index(int(best(cells)), cells.shape)
        _frame(axes, int(row), int(column))
        image.set_cmap("viridis" if cells[row, column] > np.nanmedian(cells) else "viridis_r")
        found = (
            f": best {cells[row, column]:.4g} at {x} {_short(xs[column])}, {y} {_short(ys[row])}"
        )
    tidy(axes, f"{title or value}{found}")
    axes.grid(False)
    if cells.size <= _MOST_NUMBERS:
        _numbers(axes, cells, image)
    bar = whole.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", colors=INK, labelsize=8, length=0)
    return whole


def _cells(
    table: SweepTable, x: str, y: str, value: str
) -> tuple[list[Any], list[Any], np.ndarray]:
    """The values of both axes, and the mean of `value` in each cell (y, x); NaN for empty ones."""
    xs, ys = (sorted({row[name] for row in table.rows}) for name in (x, y))
    found: dict[tuple[int, int], list[float]] = {}
    for row in table.rows:
        if np.isfinite(row[value]):
            found.setdefault((ys.index(row[y]), xs.index(row[x])), []).append(row[value])
    cells = np.full((len(ys), len(xs)), np.nan)
    for index, values in found.items():
        cells[index] = np.mean(values)
    return xs, ys, cells


def _ticks(axis: Any, values: list[Any]) -> None:
    """A label for each value, or for every second, third, ... of many."""
    every = -(-len(values) // _MOST_LABELS)
    axis.set_ticks(range(0, len(values), every), [_short(v) for v in values[::every]])


def _crosses(axes: "Axes", cells: np.ndarray) -> None:
    rows, columns = np.nonzero(~np.isfinite(cells))
    axes.plot(columns, rows, "x", color=INK, markersize=5, markeredgewidth=0.8, alpha=0.6)


def _frame(axes: "Axes", row: int, column: int) -> None:
    patch = matplotlib().patches.Rectangle(
        (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=VALID, linewidth=2.2, zorder=3
    )
    axes.add_patch(patch)


def _numbers(axes: "Axes", cells: np.ndarray, image: Any) -> None:
    for (row, column), number in np.ndenumerate(cells):
        if np.isfinite(number):
            dark = sum(image.cmap(image.norm(number))[:3]) < 1.5
            color = "white" if dark else INK
            axes.text(column, row, f"{number:.3g}", ha="center", va="center", size=8, color=color)
