"""Figure of a learning-rate range test: loss over learning rate, with the suggestion."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from fnn.diagnose import RangeCurve
from fnn.report.figure import INK, TRAIN, VALID, figure, gaps, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(curve: RangeCurve) -> "Figure":
    """The smoothed loss over the learning rate, as mean and range of the seeds, and the suggestion.

    The curve ends where the loss diverged; the losses of single batches are faint.

    Raises: ValueError for curves of many tests; ModuleNotFoundError without matplotlib.

    >>> lrs = jnp.array([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
    >>> losses = jnp.array([[3.0, 2.9, 2.5, 1.0, 0.9, 9.0]])
    >>> curve = RangeCurve(lrs=lrs, losses=losses, smoothed=losses)
    >>> draw(curve).axes[0].get_lines()[-1].get_label()
    'suggestion: 0.005'
    """
    _expect_one_test(curve)
    whole = figure(6.4, 3.8)
    axes = whole.subplots()
    tidy(axes, "loss in the range test")
    axes.set_xscale("log")
    kept = np.asarray(curve.kept)
    _losses(curve, kept | np.append(True, kept[:-1]), axes)  # with the first step that diverged
    _mark(curve, axes)
    axes.set_xlabel("learning rate", loc="right", fontsize=8, color=INK)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return whole


def save(curve: RangeCurve, path: str | Path) -> None:
    """Writes the figure of `draw` to a file, in the format of its extension."""
    draw(curve).savefig(path, dpi=120)


def _expect_one_test(curve: RangeCurve) -> None:
    if curve.losses.ndim != 2:
        raise ValueError(
            "report.lr_find: expected the curve of one test, with losses of shape (seeds, steps), "
            f"got {curve.losses.shape}; take one of many by jax.tree.map(lambda a: a[0], curve)"
        )


def _losses(curve: RangeCurve, shown: Bool[np.ndarray, " steps"], axes: "Axes") -> None:
    lrs, raw, smoothed = (gaps(a)[..., shown] for a in (curve.lrs, curve.losses, curve.smoothed))
    mean = gaps(curve.mean)[shown]
    for losses in raw:
        axes.plot(lrs, losses, linewidth=0.5, color=TRAIN, alpha=0.15)
    if len(smoothed) > 1:
        lowest, highest = smoothed.min(axis=0), smoothed.max(axis=0)
        axes.fill_between(lrs, lowest, highest, color=TRAIN, alpha=0.2, linewidth=0)
    seeds = f"mean of {len(smoothed)} seeds" if len(smoothed) > 1 else "smoothed"
    axes.plot(lrs, mean, linewidth=1.8, color=TRAIN, label=seeds)
    if np.isfinite(mean).any():  # a diverged batch would flatten the rest of the curve
        low, high = np.nanmin(raw), np.nanmax(mean)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _mark(curve: RangeCurve, axes: "Axes") -> None:
    if np.isfinite(lr := float(curve.suggestion)):
        axes.axvline(lr, color=VALID, linewidth=1.2, linestyle="--", label=f"suggestion: {lr:.2g}")
