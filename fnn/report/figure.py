"""Figures without the global state of pyplot, and their embedding in HTML pages."""

import html
import io
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, TRAIN, VALID = "#1f2328", "#d8dee4", "#2563eb", "#ea580c"
# In a page, colors are CSS variables, which follow the reader's choice of light or dark.
_IN_PAGE = {INK: "var(--ink)", GRID: "var(--line)", TRAIN: "var(--train)", VALID: "var(--valid)"}


def matplotlib() -> ModuleType:
    """The package matplotlib, imported on first use.

    Raises: ModuleNotFoundError with the extra to install.

    >>> matplotlib().__name__
    'matplotlib'
    """
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "report: needs matplotlib; pip install 'fnn[report]'", name=error.name
        ) from error
    return matplotlib


def figure(width: float, height: float) -> "Figure":
    """An empty figure of width by height inches.

    >>> figure(6, 4).get_size_inches().tolist()
    [6.0, 4.0]
    """
    return matplotlib().figure.Figure(figsize=(width, height), layout="constrained")


def tidy(axes: "Axes", title: str) -> None:
    """Applies the common style: a title on the left, a faint grid, no box.

    >>> axes = figure(1, 1).subplots()
    >>> tidy(axes, 'loss')
    >>> axes.get_title(loc='left')
    'loss'
    """
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.grid(True, axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=8, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def gaps(values: Any) -> np.ndarray:
    """`values` in float64 with NaN, which is drawn as a gap, for non-finite ones.

    >>> gaps([1.0, np.inf]).tolist()
    [1.0, nan]
    """
    wide = np.asarray(values, np.float64)
    return np.where(np.isfinite(wide), wide, np.nan)


def svg(figure: "Figure", name: str, *, label: str) -> str:
    """A figure as an <svg> element, in the colors and font of the page.

    Args:
      name: prefix of the ids in the element, unique in the page.
      label: alternative text.

    >>> text = svg(figure(1, 1), 'empty', label='nothing')
    >>> text.startswith('<svg role="img" aria-label="nothing"'), text.endswith('</svg>')
    (True, True)
    """
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Text is kept as text: small, sharp and searchable.
    with matplotlib().rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for color, variable in _IN_PAGE.items():
        text = text.replace(color, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
