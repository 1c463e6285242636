"""Curves of a run over its steps: loss, validation metrics, learning rate and measures."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from fnn.report.figure import INK, TRAIN, VALID, figure, gaps, tidy
from fnn.types import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Callable[["Axes"], None]
Values = Float[np.ndarray, " n"]
Steps = Int[np.ndarray, " n"]
Points = tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]  # steps, values

_COLUMNS = 3
_WIDTH, _HEIGHT = 3.6, 2.4  # of a panel, in inches
_MOST = 1000  # points of a curve
_MOST_LINES = 64  # elements of a vector
_TITLES = {
    "lr": "learning rate",
    "penalty": "penalty",
    "grad_norm": "gradient norm",
    "update_norm": "update norm",
    "param_norm": "parameter norm",
}
_LOG = ("penalty", "grad_norm", "update_norm")


def draw(history: History, *, best_step: int | None = None) -> "Figure":
    """A figure of a run with a panel for each curve.

    Training curves are drawn raw (faint) and smoothed over 2 % of the run; evaluations as dots.

    Args:
      history: of one run.
      best_step: step of the best evaluation, marked by a line; None for no line.

    Raises: ValueError for a history of many runs; ModuleNotFoundError without matplotlib.

    >>> train = {name: jnp.ones(20) for name in ('loss', 'lr', 'grad_norm')}
    >>> history = History(train=train, eval_steps=jnp.array([10, 20]),
    ...                   valid={'loss': jnp.array([0.5, 0.4]), 'accuracy': jnp.array([0.8, 0.9])})
    >>> [axes.get_title(loc='left') for axes in draw(history).axes]
    ['loss', 'accuracy', 'learning rate', 'gradient norm']
    """
    drawn = panels(history, best_step=best_step)
    rows = -(-len(drawn) // _COLUMNS)
    whole = figure(_COLUMNS * _WIDTH, rows * _HEIGHT)
    for position, panel in enumerate(drawn.values(), start=1):
        panel(whole.add_subplot(rows, _COLUMNS, position))
    return whole


def save(history: History, path: str | Path, *, best_step: int | None = None) -> None:
    """Writes the figure of `draw` to a file, in the format of its extension."""
    draw(history, best_step=best_step).savefig(path, dpi=100)


def panels(history: History, *, best_step: int | None = None) -> dict[str, Panel]:
    """The panels of `draw` by name, as functions that draw on given axes.

    Raises: ValueError for a history of many runs.
    """
    _expect_one_run(history)
    evaluated = sorted(history.valid, key=lambda name: name != "loss")
    drawn = {name: partial(_metric, history, name) for name in dict.fromkeys(["loss", *evaluated])}
    known = [name for name in _TITLES if name in history.train]
    others = sorted(history.train.keys() - drawn.keys() - _TITLES.keys())
    for name in [*known, *others]:
        drawn[_TITLES.get(name, name)] = partial(_measure, history, name)
    return {name: partial(_panel, name, part, best_step) for name, part in drawn.items()}


def _expect_one_run(history: History) -> None:
    shape = history.train["loss"].shape
    if len(shape) != 1:
        raise ValueError(
            f"report.curves: expected the history of one run, with a loss of shape (steps,), "
            f"got {shape}; take one of many by jax.tree.map(lambda a: a[0], history)"
        )


def _panel(name: str, part: Panel, best_step: int | None, axes: "Axes") -> None:
    tidy(axes, name)
    part(axes)
    axes.margins(x=0.02)
    axes.set_xlabel("step", loc="right", fontsize=8, color=INK)
    if best_step is not None:
        axes.axvline(best_step, color=INK, linewidth=0.8, linestyle=(0, (2, 3)), label="best")
    if name == "loss":
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper right")


def _metric(history: History, name: str, axes: "Axes") -> None:
    """An evaluated metric, and the same of the training steps if they measure it."""
    if name in history.train:
        _noisy(history.steps(name), gaps(history.train[name]), axes, log=name == "loss")
    if name in history.valid:
        steps, values = np.asarray(history.eval_steps), gaps(history.valid[name])
        size = 3 if len(steps) <= 60 else 0  # many dots would hide the line
        axes.plot(
            steps, values, "o-", markersize=size, linewidth=1.2, color=VALID, label="validation"
        )


def _measure(history: History, name: str, axes: "Axes") -> None:
    steps, values = np.asarray(history.steps(name)), gaps(history.train[name])
    if name == "lr":
        axes.plot(*extremes(steps, values), linewidth=1.6, color=TRAIN)
    elif values.ndim == 1:
        _noisy(steps, values, axes, log=name in _LOG)
    else:  # a line for each element, the first the darkest
        lines = values.reshape(len(values), math.prod(values.shape[1:])).T[:_MOST_LINES]
        for i, line in enumerate(lines):
            shade = 1 - 0.8 * i / len(lines)
            axes.plot(*smoothed(steps, line), linewidth=1, color=TRAIN, alpha=shade)
        if (lines > 0).any():
            axes.set_yscale("log")


def _noisy(steps: Any, values: Values, axes: "Axes", *, log: bool) -> None:
    if log and (values > 0).any():
        axes.set_yscale("log")
        values = np.where(values > 0, values, np.nan)  # such as the update at lr 0
    steps = np.asarray(steps)
    axes.plot(*extremes(steps, values), linewidth=0.7, color=TRAIN, alpha=0.3)
    axes.plot(*smoothed(steps, values), linewidth=1.6, color=TRAIN, label="training")


def extremes(steps: Steps, values: Values, most: int = _MOST) -> Points:
    """Downsamples a curve to the minimum and maximum of each of most/2 segments.

    >>> x, y = extremes(np.arange(6), np.array([0.0, 3.0, 1.0, 2.0, 9.0, 8.0]), most=4)
    >>> x.tolist(), y.tolist()
    ([0, 0, 3, 3], [0.0, 3.0, 2.0, 9.0])
    """
    n = len(values)
    if n <= most:
        return steps, values
    starts = np.linspace(0, n, most // 2, endpoint=False).astype(int)
    pairs = [np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)]
    return np.repeat(steps[starts], 2), np.stack(pairs, axis=1).ravel()


def smoothed(steps: Steps, values: Values, most: int = _MOST) -> Points:
    """Centered moving average over 2 r + 1 values, where r is 1 % of their number.

    At the ends and at gaps, it is over the available values.

    >>> x, y = smoothed(np.arange(300), np.array([0.0, 3.0, 1.0] * 100))   # r = 3
    >>> x[150].item(), y[150].round(3).item(), y[0].item()
    (150, 1.143, 1.0)
    """
    n, known = len(values), np.isfinite(values)
    x = np.linspace(0, n - 1, min(n, most)).astype(int)
    first, last = np.maximum(x - n // 100, 0), np.minimum(x + n // 100 + 1, n)
    totals = np.concatenate([[0], np.cumsum(np.where(known, values, 0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    total, count = totals[last] - totals[first], counts[last] - counts[first]
    return steps[x], np.where(count > 0, total / np.maximum(count, 1), np.nan)
