"""The log of a sweep on the host, filled chunk by chunk."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from fnn.measures import Named, Recorded, measured
from fnn.train.sweeps._chunk import Chunk, Span
from fnn.train.sweeps.result import SweepResult
from fnn.types import History

Rows = Int[np.ndarray, "_"]  # indices of settings or of keys


class Members(NamedTuple):
    """The members of a group in a chunk."""

    group: int
    settings: Rows
    keys: Rows

    @property
    def cells(self) -> tuple[Any, ...]:
        return np.ix_(self.settings, self.keys)


class SweepLog:
    """The records of all members; leading axes (group, setting, key)."""

    def __init__(self, groups: int, n_settings: int, n_keys: int, eval_steps: list[int]) -> None:
        self.shape = (groups, n_settings, n_keys)
        self._eval_steps = np.array(eval_steps, np.int32)
        self._recorded: Recorded = {}
        self._valid: dict[str, np.ndarray] = {}
        self._kept: dict[int, PyTree] = {}
        self._states: dict[int, PyTree] = {}
        self._made = np.zeros(self.shape, np.int32)
        self._reached = np.zeros(self.shape, np.int32)

    def add(self, members: Members, span: Span, chunk: Chunk) -> None:
        """Adds the result of a program; raises if groups have different metrics."""
        chunk = jax.tree.map(lambda a: _unpadded(a, members), chunk)
        rows, keys = members.cells
        for n, named in chunk.recorded.items():
            for name, buffer in self._metrics_of_steps(n, named).items():
                buffer[members.group][rows, keys, span.first : span.last] = named[name]
        evals = slice(*np.searchsorted(self._eval_steps, [span.first, span.last], side="right"))
        for name, buffer in self._metrics(chunk.valid).items():
            buffer[members.group][rows, keys, evals] = chunk.valid[name]
        self._made[members.group][rows, keys] = chunk.made
        self._reached[members.group][rows, keys] = span.last
        self._write(self._kept, members, chunk.kept)
        self._write(self._states, members, chunk.state)

    def _metrics_of_steps(self, n: int, named: Named) -> dict[str, np.ndarray]:
        """The buffers of the metrics measured every n steps."""
        if n not in self._recorded:
            steps = int(self._eval_steps[-1])
            self._recorded[n] = {
                name: np.full((*self.shape, steps, *a.shape[3:]), np.nan, a.dtype)
                for name, a in named.items()
            }
        _expect_names("training metrics", self._recorded[n], named, "the same measures")
        return self._recorded[n]

    def _metrics(self, valid: Named) -> dict[str, np.ndarray]:
        """The buffers of the validation metrics."""
        if not self._valid:
            shape = (*self.shape, len(self._eval_steps))
            self._valid = {name: np.full(shape, np.nan, v.dtype) for name, v in valid.items()}
        _expect_names("metrics", self._valid, valid, "the same")
        return self._valid

    def _write(self, buffers: dict[int, PyTree], members: Members, values: PyTree) -> None:
        if members.group not in buffers:
            shape = self.shape[1:]
            buffers[members.group] = jax.tree.map(
                lambda v: np.zeros((*shape, *v.shape[2:]), v.dtype), values
            )
        if jax.tree.leaves(values):  # after the last rung there are no states
            for buffer, value in zip(
                jax.tree.leaves(buffers[members.group]), jax.tree.leaves(values), strict=True
            ):
                buffer[members.cells] = value

    def states(self, members: Members) -> PyTree:
        """The states of the members, with the leading axes (keys, settings) of a program."""
        pick = lambda buffer: np.swapaxes(buffer[members.cells], 0, 1)  # noqa: E731
        return jax.tree.map(pick, self._states[members.group])

    def latest(self, group: int, settings: Rows, span: Span) -> list[dict[str, float]]:
        """The metrics of each setting at the end of `span`, averaged over its keys."""
        at = np.searchsorted(self._eval_steps, span.last)
        columns = {n: v[group, settings, :, at].mean(axis=-1) for n, v in self._valid.items()}
        return [
            {name: float(column[i]) for name, column in columns.items()}
            for i in range(len(settings))
        ]

    def lowest_loss(self, members: Members, span: Span) -> dict[str, float]:
        """The metrics of the member with the lowest validation loss; {} if all diverged."""
        at = np.searchsorted(self._eval_steps, span.last)
        found = {n: v[members.group][(*members.cells, at)] for n, v in self._valid.items()}
        if np.isnan(found["loss"]).all():
            return {}
        best = np.nanargmin(found["loss"])
        return {name: float(values.ravel()[best]) for name, values in found.items()}

    def result(
        self, settings: dict[str, list[Any]], *, interrupted: bool, signal: int
    ) -> SweepResult:
        """The result, with the groups concatenated."""

        def flat(a: np.ndarray) -> np.ndarray:
            return a.reshape(-1, *a.shape[2:])

        made = flat(self._made)
        eval_steps = np.broadcast_to(self._eval_steps, (*made.shape, len(self._eval_steps)))
        recorded = jax.tree.map(lambda a: np.moveaxis(flat(a), 2, 0), self._recorded)
        train, train_steps = measured(recorded, 0, int(self._eval_steps[-1]))
        history = History(
            train={name: jnp.asarray(np.moveaxis(v, 0, 2)) for name, v in train.items()},
            train_steps={
                name: jnp.broadcast_to(jnp.asarray(steps), (*made.shape, len(steps)))
                for name, steps in train_steps.items()
            },
            eval_steps=jnp.asarray(eval_steps),
            valid={name: jnp.asarray(flat(v)) for name, v in self._valid.items()},
        )
        return SweepResult(
            settings=settings,
            history=history,
            made=made,
            reached=flat(self._reached),
            kept=[self._kept[g] if g in self._kept else () for g in range(self.shape[0])],
            interrupted=interrupted,
            signal=signal,
        )


def _unpadded(a: Any, members: Members) -> np.ndarray:
    return np.swapaxes(np.asarray(a)[: len(members.keys), : len(members.settings)], 0, 1)


def _expect_names(words: str, buffers: Named, named: Named, hint: str) -> None:
    if buffers.keys() != named.keys():
        raise ValueError(
            f"sweep: expected the {words} {sorted(buffers)} in every group, got {sorted(named)}; "
            f"give all recipes {hint}"
        )
