"""The progress of a fit: a live line in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple


class Report(NamedTuple):
    """The progress of a fit so far."""

    step: int
    steps: int
    steps_per_second: float
    loss: float
    valid: dict[str, float]  # of the latest evaluation; {} before the first

    @property
    def seconds_left(self) -> float:
        """At the current rate."""
        return (self.steps - self.step) / self.steps_per_second if self.steps_per_second else 0.0


Progress = Callable[[int], AbstractContextManager[Callable[[Report], None]]]  # steps -> a context


@contextmanager
def silent(steps: int) -> Iterator[Callable[[Report], None]]:
    """Shows nothing.

    >>> with silent(10) as show:
    ...     show(Report(5, 10, 1.0, 0.5, {}))
    """
    yield lambda report: None


@contextmanager
def lines(steps: int, *, every_seconds: float = 1.0) -> Iterator[Callable[[Report], None]]:
    """Prints a line after an evaluation, at most one in `every_seconds`, and one at the end."""
    shown_at, latest, shown = -float("inf"), None, None

    def show(report: Report) -> None:
        nonlocal shown_at, latest, shown
        evaluated = latest is None or report.valid != latest.valid
        latest = report
        if evaluated and report.valid and time.monotonic() - shown_at >= every_seconds:
            print(line(report), flush=True)
            shown_at, shown = time.monotonic(), report

    try:
        yield show
    finally:
        if latest is not None and latest is not shown:
            print(line(latest), flush=True)


def line(report: Report) -> str:
    """One report as text.

    >>> line(Report(50, 100, 25.0, 0.5, {'loss': 0.6, 'accuracy': 0.9}))
    'step 50/100 | 25 steps/s | loss 0.5000 | valid loss 0.6000 accuracy 0.9000 | 2 s left'
    """
    return (
        f"step {report.step}/{report.steps} | {report.steps_per_second:,.0f} steps/s | "
        f"loss {report.loss:.4f} | {valid_text(report)} | {report.seconds_left:.0f} s left"
    )


def valid_text(report: Report) -> str:
    """The latest evaluation as text."""
    return "valid " + (" ".join(f"{k} {v:.4f}" for k, v in report.valid.items()) or "-")


@contextmanager
def bar(steps: int) -> Iterator[Callable[[Report], None]]:
    """A live progress bar in one line of the terminal; needs rich (the extra `fit`)."""
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console, latest = Console(), Report(0, steps, 0.0, float("nan"), {})
    if console.is_dumb_terminal:  # it cannot overwrite a line
        with lines(steps) as show:
            yield show
        return

    def row() -> Table:
        words = fitting(_parts(latest), console.width)
        drawn, used = Table.grid(padding=(0, 2, 0, 0), pad_edge=False), len("  ".join(words))
        left = min(24, console.width - used - 2)
        cells: list[Any] = list(words)
        if left >= 8:
            cells.insert(0, ProgressBar(total=steps, completed=latest.step, width=left))
        for _ in cells:
            drawn.add_column(no_wrap=True)
        drawn.add_row(*cells)
        return drawn

    def show_latest(report: Report) -> None:
        nonlocal latest
        latest = report

    with Live(get_renderable=row, console=console, refresh_per_second=10):
        yield show_latest


class Part(NamedTuple):
    """A part of a line; parts of high rank are dropped first, rank 0 never."""

    text: str
    rank: int


def fitting(parts: Sequence[Part], width: int) -> list[str]:
    """The parts, in order, that fit into `width` columns; those of low rank first.

    >>> fitting([Part('20/100', 0), Part('8/s', 2), Part('loss 0.5', 1)], width=16)
    ['20/100', 'loss 0.5']
    """
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.rank):
        if not kept or len("  ".join(p.text for p in [*kept, part])) <= width:
            kept.append(part)
    return [part.text for part in parts if part in kept]


def _parts(report: Report) -> list[Part]:
    # Constant width: the other parts do not move.
    done = Part(f"{report.step:{len(str(report.steps))}}/{report.steps}", 0)
    if not report.step:
        return [done, Part("compiling", 1)]
    first, *others = [f"{name} {value:.4f}" for name, value in report.valid.items()] or ["-"]
    return [
        done,
        Part(f"{report.steps_per_second:,.0f}/s", 4),
        Part(f"loss {report.loss:.4f}", 2),
        Part(f"valid {first}", 3),
        *(Part(other, 5 + i) for i, other in enumerate(others)),
        Part(clock(report.seconds_left), 1),
    ]


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, or hours:minutes:seconds.

    >>> clock(62), clock(3600 + 62)
    ('1:02', '1:01:02')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def auto(steps: int) -> AbstractContextManager[Callable[[Report], None]]:
    """`bar` in a terminal where rich is installed, `lines` elsewhere."""
    if sys.stdout is None or not sys.stdout.isatty():
        return lines(steps)
    try:
        import rich.progress  # noqa: F401
    except ModuleNotFoundError:
        return lines(steps)
    return bar(steps)
