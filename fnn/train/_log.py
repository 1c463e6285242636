"""The record of a run in memory, and the store that keeps it."""

import math
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.measures import Recorded, flat, measured
from fnn.train._job import Job
from fnn.train.callbacks import Carries, EarlyStopping, Event, expect_json
from fnn.train.state import checksum
from fnn.types import History, TrainState

Values = dict[str, np.ndarray]


class Store(Protocol):
    """Trees of arrays by name, each with JSON metadata, and a log of rows."""

    def has(self, name: str) -> bool:
        """Whether there is a tree under `name`."""
        ...

    def save(self, name: str, tree: PyTree, meta: dict[str, Any]) -> None:
        """Saves `tree` and `meta` under `name`, replacing the former ones; all or nothing."""
        ...

    def load(self, name: str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """The tree under `name`, whose structure, shapes and dtypes must be those of `like`."""
        ...

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Appends rows, each with its 'step'."""
        ...

    def rows(self, up_to_step: int) -> list[dict[str, Any]]:
        """The rows of steps up to `up_to_step`; later ones are dropped from the log."""
        ...


def fingerprint(job: Job, **numbers: int) -> dict[str, Any]:
    """The arguments in which a resumed run must agree with the interrupted one."""
    leaves = zip(tree.paths(job.hyper), jax.tree.leaves(job.hyper), strict=True)
    return {
        "key": np.asarray(jax.random.key_data(job.key)).tolist(),
        "hyper": {path: np.asarray(leaf).tolist() for path, leaf in leaves},
        "examples": tree.length(job.data.train),
        "batch_size": job.batch_size,
        "init": checksum(job.start),
        **numbers,
    }


class Checkpoint(NamedTuple):
    """What a store holds of an interrupted run."""

    last: TrainState
    best: TrainState
    stopping: EarlyStopping
    carries: Carries
    position: Any  # of an iterable of batches


class _Chunk(NamedTuple):
    """The metrics of some consecutive steps by name, and the steps at which they were measured."""

    train: Values
    steps: Values


class Record:
    """The history of a fit so far, which it also writes to the store, if there is one.

    Args:
      made_by: see `fingerprint`.
      shapes: of the record of a step.
    """

    def __init__(self, store: Store | None, made_by: dict[str, Any], shapes: Recorded) -> None:
        self._store, self._made_by, self._shapes = store, made_by, flat(shapes)
        self._steps = 0  # recorded so far
        self._chunks: list[_Chunk] = []
        self._eval_steps: list[int] = []
        self._valid: list[dict[str, float]] = []

    @property
    def latest_valid(self) -> dict[str, float]:
        """The latest evaluation; {} before the first."""
        return self._valid[-1] if self._valid else {}

    def steps(self, first: int, recorded: Recorded) -> Event:
        """Adds the steps from `first` on; returns the event for the callbacks."""
        n = len(recorded[1]["loss"])
        train, train_steps = measured(recorded, first, n)
        every = np.arange(first, first + n, dtype=np.int32)
        chunk = _Chunk(train, {name: train_steps.get(name, every) for name in train})
        self._chunks.append(chunk)
        self._steps = first + n
        if self._store is not None:
            self._store.log(_rows(chunk, first, n))
        return Event(
            step=self._steps,
            steps=self._steps,
            train=train,
            train_steps=train_steps,
            valid={},
            read_history=self.history,
        )

    def evaluation(self, step: int, valid: dict[str, float]) -> None:
        """Adds the validation metrics after `step` updates."""
        self._eval_steps.append(step)
        self._valid.append(valid)
        if self._store is not None:
            self._store.log([{"step": step - 1, "valid": valid}])

    def save(
        self,
        name: str,
        state: TrainState,
        stopping: EarlyStopping,
        carries: Carries,
        position: Any = None,
    ) -> None:
        """Saves a checkpoint in the store."""
        if self._store is not None:
            expect_json(carries)
            meta = {
                "step": int(state.step),
                "made_by": self._made_by,
                "early_stopping": asdict(stopping),
                "callbacks": carries,
                "position": position,
            }
            self._store.save(name, state, meta)

    @property
    def stores(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    def holds_a_run(self) -> bool:
        """Whether the store has a run to resume."""
        return self._store is not None and self._store.has("last")

    def begin(self, carries: Carries) -> None:
        """Prepares the store for a new run; raises for carries that it cannot save."""
        if self._store is not None:
            expect_json(carries)
            # Drops rows without a checkpoint, of a run that was killed before its first one.
            self._store.rows(up_to_step=-1)

    def resume(self, like: TrainState) -> Checkpoint:
        """Reads the history and the checkpoint of the run in the store.

        Raises: ValueError if that run was made with other arguments.
        """
        assert self._store is not None
        last, meta = self._store.load("last", like)
        before = meta["made_by"]
        changed = [k for k in self._made_by if self._made_by[k] != before.get(k)]
        if changed:
            lines = [f"  {k}: expected {before.get(k)}, got {self._made_by[k]}" for k in changed]
            raise ValueError(
                "fit: expected the arguments of the run to be resumed, but these differ:\n"
                + "\n".join(lines)
                + "\nuse the former ones, or start a new run in another store"
            )
        self._read(self._store.rows(up_to_step=meta["step"] - 1), meta["step"])
        best = self._store.load("best", like)[0] if self._store.has("best") else like
        stopping = EarlyStopping(**meta["early_stopping"])
        return Checkpoint(last, best, stopping, meta.get("callbacks", {}), meta.get("position"))

    def _read(self, rows: list[dict[str, Any]], steps: int) -> None:
        chunk, evaluations = _Chunk({}, {}), [row for row in rows if "valid" in row]
        trained = [row for row in rows if "valid" not in row]
        for name in dict.fromkeys(name for row in trained for name in row if name != "step"):
            having = [row for row in trained if name in row]
            dtype = self._shapes[name].dtype if name in self._shapes else np.float32
            # JSON has null for values that were not finite; NumPy reads it as NaN.
            chunk.train[name] = np.array([row[name] for row in having], dtype)
            chunk.steps[name] = np.array([row["step"] for row in having], np.int32)
        self._chunks, self._steps = [chunk], steps
        self._eval_steps = [row["step"] + 1 for row in evaluations]
        self._valid = [
            {name: math.nan if value is None else value for name, value in row["valid"].items()}
            for row in evaluations
        ]

    def history(self) -> History:
        """The history so far, as `run` returns it."""
        empty = {name: np.zeros((0, *a.shape), a.dtype) for name, a in self._shapes.items()}
        chunks = [_Chunk(empty, dict.fromkeys(empty, np.zeros(0, np.int32))), *self._chunks]
        names = dict.fromkeys(name for chunk in chunks for name in chunk.train)
        train = {n: np.concatenate([c.train[n] for c in chunks if n in c.train]) for n in names}
        steps = {n: np.concatenate([c.steps[n] for c in chunks if n in c.steps]) for n in names}
        return History(
            train={name: jnp.asarray(values) for name, values in train.items()},
            train_steps={n: jnp.asarray(s) for n, s in steps.items() if len(s) < self._steps},
            eval_steps=jnp.asarray(self._eval_steps, jnp.int32),
            valid={
                name: jnp.asarray([row[name] for row in self._valid], jnp.float32)
                for name in self.latest_valid
            },
        )


def _rows(chunk: _Chunk, first: int, n: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"step": first + i} for i in range(n)]
    for name, values in chunk.train.items():
        for step, value in zip(chunk.steps[name].tolist(), values.tolist(), strict=True):
            rows[step - first][name] = value
    return rows
