"""The rows of a fit as TensorBoard's event files."""

import functools
import itertools
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from fnn.train._log import Store

_FLUSH_SECONDS = 1.0  # a flush waits for the disk
_files = itertools.count()  # two files that are opened within a second need two names


class TensorBoard:
    """A store for `fit` that writes the scalars to event files, and passes all on to another store.

    `train/loss`, `train/lr` and the norms are those of single steps, `valid/...` those of each
    evaluation. A kill loses at most the last second. At a resume TensorBoard drops what comes after
    the checkpoint.

    Args:
      path: the directory for the event files; show it by `tensorboard --logdir PATH`.
      store: what keeps checkpoints and rows, e.g. a `RunDir`; None keeps none, and nothing can be
        resumed.
      most_points: of the steps between two reports of a fit (1 s) so many are written, the last
        one always; the event files of quick steps would become large.

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
        """Whether the other store has a tree under `name`."""
        return self._store is not None and self._store.has(name)

    def save(self, name: str, tree: PyTree, meta: dict[str, Any]) -> None:
        """Keep `tree` and `meta` in the other store."""
        if self._store is not None:
            self._store.save(name, tree, meta)

    def load(self, name: str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """What the other store has under `name`."""
        if self._store is None:
            raise ValueError("TensorBoard: expected a store to load from, got none; give store=")
        return self._store.load(name, like)

    def rows(self, up_to_step: int) -> list[dict[str, Any]]:
        """The rows of the other store; TensorBoard drops the later ones of its own."""
        self.close()
        package = _package()
        start = package.SessionLog(status=package.SessionLog.START)
        self._write(max(0, up_to_step + 1), session_log=start)
        return [] if self._store is None else self._store.rows(up_to_step)

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Write the scalars of `rows`, thinned, and pass all of them on."""
        if self._store is not None:
            self._store.log(rows)
        made = [row for row in rows if "valid" not in row]
        for row in (made[i] for i in _thinned(len(made), self._most)):
            values = dict(row)
            self._scalars("train", values.pop("step"), values)
        evaluated = [row for row in rows if "valid" in row]
        for row in evaluated:
            self._scalars("valid", row["step"], row["valid"])
        if self._writer and (evaluated or time.monotonic() > self._flushed + _FLUSH_SECONDS):
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """End the event file; the next row begins another one."""
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
    """At most `most` of the numbers below n, evenly, the last one among them.

    >>> _thinned(10, 3), _thinned(2, 3)
    ([2, 5, 9], [0, 1])
    """
    return [(i + 1) * n // min(n, most) - 1 for i in range(min(n, most))]


class _Package(NamedTuple):
    """What is used of tensorboardX: not its SummaryWriter, whose thread flushes when it likes."""

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
