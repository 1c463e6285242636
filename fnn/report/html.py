"""Self-contained HTML report of a run."""

import os
import platform
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import jax

from fnn.report.curves import panels
from fnn.report.figure import figure, svg
from fnn.types import History


def write(
    path: str | Path,
    *,
    title: str,
    headline: Mapping[str, str],
    config: Mapping[str, object],
    history: History,
    best_step: int | None = None,
    sections: Mapping[str, str] | None = None,
) -> None:
    """Writes the report of a run to the file `path`.

    Args:
      title: of the page.
      headline: the main results, name -> text.
      config: of the run; each value is shown by `str`.
      history: of one run; drawn as in `curves.draw`, with `best_step` marked.
      sections: heading -> HTML, between the curves and the config, e.g. of `confusion.table` and
        `misclassified.gallery`. The HTML is not escaped.

    Raises: ValueError for a history of many runs; ModuleNotFoundError without matplotlib.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'report.html'
    >>> history = History(train={'loss': jnp.ones(3)}, eval_steps=jnp.array([3]),
    ...                   valid={'loss': jnp.array([0.5])})
    >>> write(path, title='A run', headline={'accuracy': '98 %'}, config={'lr': 0.1},
    ...       history=history)
    >>> '<h1>A run</h1>' in path.read_text()
    True
    """
    template = string.Template(Path(__file__).with_name("page.html").read_text("utf-8"))
    page = template.substitute(
        title=escape(title),
        headline="".join(
            f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in headline.items()
        ),
        curves=_curves(history, best_step),
        sections="".join(
            f"<section><h2>{escape(k)}</h2>{v}</section>" for k, v in (sections or {}).items()
        ),
        config="".join(
            f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>'
            for k, v in config.items()
        ),
        made=escape(_made()),
    )
    Path(path).write_text(page, "utf-8")


def _curves(history: History, best_step: int | None) -> str:
    drawn = []
    for i, (name, panel) in enumerate(panels(history, best_step=best_step).items()):
        alone = figure(4.2, 2.6)
        panel(alone.subplots())
        drawn.append(svg(alone, f"curve-{i}", label=f"{name} over the steps"))
    return "".join(drawn)


def _made() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    python = platform.python_version()
    return f"{now}, Python {python}, JAX {jax.__version__}, {devices}, {os.cpu_count()} CPU cores"
