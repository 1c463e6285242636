"""The record of a fit: its history in memory, and its rows and checkpoints in a store."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.train.callbacks import Carries, expect_json
from fnn.train.early_stopping import EarlyStopping
from fnn.train.store import Store
from fnn.types import Data, History, Hyper, Metrics, PRNGKey, TrainState

COLUMNS = ("loss", "lr", "grad_norm", "update_norm", "param_norm")  # of Metrics.values


def fingerprint(key: PRNGKey, hyper: Hyper, data: Data, **numbers: int) -> dict[str, Any]:
    """What must be the same for a resumed run to be the run that was interrupted."""
    leaves = zip(tree.paths(hyper), jax.tree.leaves(hyper), strict=True)
    return {
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "hyper": {path: np.asarray(leaf).tolist() for path, leaf in leaves},
        "examples": tree.length(data.train),
        **numbers,
    }


class Record:
    """Collects what a fit sees, and passes it on to the store, if there is one."""

    def __init__(self, store: Store | None, made_by: dict[str, Any]):
        self._store, self._made_by = store, made_by
        self._values: list[np.ndarray] = []  # one (steps, 5) array per chunk
        self._eval_steps: list[int] = []
        self._valid: list[dict[str, float]] = []

    @property
    def latest_valid(self) -> dict[str, float]:
        """The latest evaluation; {} before the first."""
        return self._valid[-1] if self._valid else {}

    def steps(self, first: int, values: np.ndarray) -> None:
        """The metrics of the steps from `first` on."""
        self._values.append(values)
        if self._store is not None:
            rows = [dict(zip(COLUMNS, row, strict=True)) for row in values.tolist()]
            self._store.log([{"step": first + i, **row} for i, row in enumerate(rows)])

    def evaluation(self, step: int, valid: dict[str, float]) -> None:
        """The validation metrics after `step` updates."""
        self._eval_steps.append(step)
        self._valid.append(valid)
        if self._store is not None:
            self._store.log([{"step": step - 1, "valid": valid}])

    def save(self, name: str, state: TrainState, stopping: EarlyStopping, carries: Carries) -> None:
        """Keep `state`, and beside it what a resume needs to go on, in the store."""
        if self._store is not None:
            expect_json(carries)
            meta = {
                "step": int(state.step),
                "made_by": self._made_by,
                "early_stopping": stopping.as_json(),
                "callbacks": carries,
            }
            self._store.save(name, state, meta)

    def holds_a_run(self) -> bool:
        """Whether the store has something to resume."""
        return self._store is not None and self._store.has("last")

    def begin(self, carries: Carries) -> None:
        """Make the store ready for a new run.

        Raises: ValueError for carries that it cannot keep.
        """
        if self._store is not None:
            expect_json(carries)
            # Rows without a checkpoint: their run was killed before its first one.
            self._store.rows(up_to_step=-1)

    def resume(self, like: TrainState) -> tuple[TrainState, TrainState, EarlyStopping, Carries]:
        """The last state, the best one, the early stopping and the carries that the store holds.

        Raises: ValueError if the run in the store was made with other arguments.
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
        self._read(self._store.rows(up_to_step=meta["step"] - 1))
        best = self._store.load("best", like)[0] if self._store.has("best") else like
        stopping = EarlyStopping(**meta["early_stopping"])
        return last, best, stopping, meta.get("callbacks", {})

    def _read(self, rows: list[dict[str, Any]]) -> None:
        # What was not finite is null in JSON, and comes back as NaN.
        values = [[row[c] for c in COLUMNS] for row in rows if "loss" in row]
        self._values = [np.asarray(values, np.float32).reshape(-1, len(COLUMNS))]
        evaluations = [row for row in rows if "valid" in row]
        self._eval_steps = [row["step"] + 1 for row in evaluations]
        self._valid = [
            {name: math.nan if value is None else value for name, value in row["valid"].items()}
            for row in evaluations
        ]

    def history(self) -> History:
        """All that was seen, as `run` returns it."""
        values = np.concatenate(self._values or [np.zeros((0, len(COLUMNS)), np.float32)])
        names = self._valid[0] if self._valid else {}
        return History(
            train=Metrics(values=jnp.asarray(values)),
            eval_steps=jnp.asarray(self._eval_steps, jnp.int32),
            valid={k: jnp.asarray([v[k] for v in self._valid], jnp.float32) for k in names},
        )
