"""What `fit` shows while it runs: a live line in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple


class Report(NamedTuple):
    """How far a fit is."""

    step: int
    steps: int
    steps_per_second: float
    loss: float
    valid: dict[str, float]  # of the latest evaluation; {} before the first

    @property
    def seconds_left(self) -> float:
        """At the present rate."""
        return (self.steps - self.step) / self.steps_per_second if self.steps_per_second else 0.0


Progress = Callable[[int], AbstractContextManager[Callable[[Report], None]]]  # steps -> a context


@contextmanager
def silent(steps: int) -> Iterator[Callable[[Report], None]]:
    """Show nothing.

    >>> with silent(10) as show:
    ...     show(Report(5, 10, 1.0, 0.5, {}))
    """
    yield lambda report: None


@contextmanager
def lines(steps: int, *, every_seconds: float = 1.0) -> Iterator[Callable[[Report], None]]:
    """A plain line after an evaluation, at most one every `every_seconds`, and one at the end."""
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
    """A live bar in the terminal; needs rich (the extra `fit`)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(compact=True),  # all of it fits into 80 columns
    ]
    with Progress(*columns) as progress:
        task = progress.add_task("fit", total=steps, text="compiling")

        def show(report: Report) -> None:
            text = f"{report.steps_per_second:,.0f}/s  loss {report.loss:.4f}  {valid_text(report)}"
            progress.update(task, completed=report.step, text=text)

        yield show


def auto(steps: int) -> AbstractContextManager[Callable[[Report], None]]:
    """The bar where there is a terminal and rich is installed, plain lines elsewhere."""
    if not sys.stdout.isatty():
        return lines(steps)
    try:
        import rich.progress  # noqa: F401
    except ModuleNotFoundError:
        return lines(steps)
    return bar(steps)
