"""TensorBoard event files of a fit."""

import functools
import itertools
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from fnn.train._log import Store

_FLUSH_SECONDS = 1.0  # between flushes, which wait for the disk
_files = itertools.count()  # makes names of files opened within one second unique


class TensorBoard:
    """A store for `fit` that writes scalars to event files and wraps another store.

    `train/loss`, `train/lr` and the norms are of single steps, `valid/...` of evaluations. A killed
    process loses at most the last second. On resume, TensorBoard drops later steps.

    Args:
      path: the directory of the event files; show it with `tensorboard --logdir PATH`.
      store: of checkpoints and rows, e.g. a `RunDir`; None for none, without resumption.
      most_points: number of steps written between two reports of a fit (1 s), the last one always
        among them; bounds the size of the files.

    Raises: ModuleNotFoundError without tensorboardX, which is in the extra `tensorboard`.

    >>> import tempfile
    >>> path = tempfile.mkdtemp()
    >>> with TensorBoard(path) as store:                      # fit(..., store=store)
    ...     store.log([{'step': 0, 'loss': 1.5}, {'step': 0, 'valid': {'loss': 1.0}}])
    >>> len(list(Path(path).iterdir()))
    1
    """

    def __init__(self, path: str | Path, store: Store | None = None, *, most_points: int = 250):
        if most_points < 1:
            raise ValueError(f"TensorBoard: expected most_points above 0, got {most_points}")
        _package()
        self._path, self._store, self._most = Path(path), store, most_points
        self._writer: Any = None  # of the event file; None before the first row
        self._flushed = 0.0

    def has(self, name: str) -> bool:
        """Whether the wrapped store has a tree under `name`."""
        return self._store is not None and self._store.has(name)

    def save(self, name: str, tree: PyTree, meta: dict[str, Any]) -> None:
        """Saves `tree` and `meta` in the wrapped store."""
        if self._store is not None:
            self._store.save(name, tree, meta)

    def load(self, name: str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """The tree and its meta data in the wrapped store."""
        if self._store is None:
            raise ValueError("TensorBoard: expected a store to load from, got none; give store=")
        return self._store.load(name, like)

    def rows(self, up_to_step: int) -> list[dict[str, Any]]:
        """The rows of the wrapped store up to a step; TensorBoard drops later ones."""
        self.close()
        package = _package()
        start = package.SessionLog(status=package.SessionLog.START)
        self._write(max(0, up_to_step + 1), session_log=start)
        return [] if self._store is None else self._store.rows(up_to_step)

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Writes a subset of the rows, and logs all of them in the wrapped store."""
        if self._store is not None:
            self._store.log(rows)
        trained = [row for row in rows if "valid" not in row]
        for row in (trained[i] for i in _thinned(len(trained), self._most)):
            values = dict(row)
            self._scalars("train", values.pop("step"), values)
        evaluated = [row for row in rows if "valid" in row]
        for row in evaluated:
            self._scalars("valid", row["step"], row["valid"])
        if self._writer and (evaluated or time.monotonic() > self._flushed + _FLUSH_SECONDS):
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the event file; the next row opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _scalars(self, group: str, step: int, values: dict[str, Any]) -> None:
        summary = _package().Summary()
        for name, value in values.items():
            elements = np.asarray(value, np.float64)
            for index, element in np.ndenumerate(elements):  # of a vector, each by its index
                tag = "/".join([group, name, *map(str, index)])
                summary.value.add(tag=tag, simple_value=float(element))
        self._write(step, summary=summary)

    def _write(self, step: int, **content: Any) -> None:
        package = _package()
        if self._writer is None:
            self._path.mkdir(parents=True, exist_ok=True)
            suffix = f".{os.getpid()}.{next(_files):04d}"
            self._writer = package.EventsWriter(str(self._path / "events"), suffix)
        self._writer.write_event(package.Event(step=step, wall_time=time.time(), **content))


def _thinned(n: int, most: int) -> list[int]:
    """At most `most` evenly spaced indices below n, with the last one."""
    return [(i + 1) * n // min(n, most) - 1 for i in range(min(n, most))]


class _Package(NamedTuple):
    """The classes of tensorboardX; its SummaryWriter flushes in a thread of its own."""

    EventsWriter: Any
    Event: Any
    SessionLog: Any
    Summary: Any


@functools.cache
def _package() -> _Package:
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TensorBoard: needs tensorboardX; pip install 'fnn[tensorboard]'", name=error.name
        ) from error
    return _Package(EventsWriter, Event, SessionLog, Summary)
