"""Where the chunks of a sweep are put together, on the host."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from fnn.measures import Named, Recorded, measured
from fnn.train.sweeps._chunk import Chunk, Span
from fnn.train.sweeps.result import SweepResult
from fnn.types import History

Rows = Int[np.ndarray, "_"]  # numbers of settings or of keys


class Place(NamedTuple):
    """Which members of a group a chunk holds, before it is filled up to its size."""

    group: int
    settings: Rows
    keys: Rows

    @property
    def cells(self) -> tuple[Any, ...]:
        return np.ix_(self.settings, self.keys)


class Board:
    """The record of all members, filled in chunk by chunk; axes (group, setting, key) in front."""

    def __init__(self, groups: int, n_settings: int, n_keys: int, eval_steps: list[int]):
        self.shape = (groups, n_settings, n_keys)
        self._eval_steps = np.array(eval_steps, np.int32)
        self._recorded: Recorded = {}
        self._valid: dict[str, np.ndarray] = {}
        self._kept: dict[int, PyTree] = {}
        self._states: dict[int, PyTree] = {}
        self._made = np.zeros(self.shape, np.int32)
        self._reached = np.zeros(self.shape, np.int32)

    def put(self, place: Place, span: Span, chunk: Chunk) -> None:
        """Write what a program returned to where it belongs.

        Raises: ValueError if the metrics of a group have other names than those before.
        """
        chunk = jax.tree.map(lambda a: _without_filling(a, place), chunk)
        rows, keys = place.cells
        for n, named in chunk.recorded.items():
            for name, buffer in self._metrics_of_steps(n, named).items():
                buffer[place.group][rows, keys, span.first : span.last] = named[name]
        evals = slice(*np.searchsorted(self._eval_steps, [span.first, span.last], side="right"))
        for name, buffer in self._metrics(chunk.valid).items():
            buffer[place.group][rows, keys, evals] = chunk.valid[name]
        self._made[place.group][rows, keys] = chunk.made
        self._reached[place.group][rows, keys] = span.last
        self._write(self._kept, place, chunk.kept)
        self._write(self._states, place, chunk.state)

    def _metrics_of_steps(self, n: int, named: Named) -> dict[str, np.ndarray]:
        """The buffers of what is measured every n steps."""
        if n not in self._recorded:
            steps = int(self._eval_steps[-1])
            self._recorded[n] = {
                name: np.full((*self.shape, steps, *a.shape[3:]), np.nan, a.dtype)
                for name, a in named.items()
            }
        buffers = self._recorded[n]
        if buffers.keys() != named.keys():
            raise ValueError(
                f"sweep: expected the training metrics {sorted(buffers)} in every group, got "
                f"{sorted(named)}; give all recipes the same measures"
            )
        return buffers

    def _metrics(self, valid: dict[str, Any]) -> dict[str, np.ndarray]:
        if not self._valid:
            shape = (*self.shape, len(self._eval_steps))
            self._valid = {name: np.full(shape, np.nan, v.dtype) for name, v in valid.items()}
        if self._valid.keys() != valid.keys():
            raise ValueError(
                f"sweep: expected the metrics {sorted(self._valid)} in every group, got "
                f"{sorted(valid)}; give all recipes the same"
            )
        return self._valid

    def _write(self, buffers: dict[int, PyTree], place: Place, values: PyTree) -> None:
        if place.group not in buffers:
            members = self.shape[1:]
            buffers[place.group] = jax.tree.map(
                lambda v: np.zeros((*members, *v.shape[2:]), v.dtype), values
            )
        if jax.tree.leaves(values):  # after the last rung there are no states
            for buffer, value in zip(
                jax.tree.leaves(buffers[place.group]), jax.tree.leaves(values), strict=True
            ):
                buffer[place.cells] = value

    def states(self, place: Place) -> PyTree:
        """The states of the members, with the axes (keys, settings) of a program in front."""
        pick = lambda buffer: np.swapaxes(buffer[place.cells], 0, 1)  # noqa: E731
        return jax.tree.map(pick, self._states[place.group])

    def latest(self, group: int, settings: Rows, span: Span) -> list[dict[str, float]]:
        """The metrics of each setting at the end of `span`, in the mean over its keys."""
        at = np.searchsorted(self._eval_steps, span.last)
        columns = {n: v[group, settings, :, at].mean(axis=-1) for n, v in self._valid.items()}
        return [
            {name: float(column[i]) for name, column in columns.items()}
            for i in range(len(settings))
        ]

    def least_loss(self, place: Place, span: Span) -> dict[str, float]:
        """The metrics of the member of a chunk with the least validation loss; {} if all died."""
        at = np.searchsorted(self._eval_steps, span.last)
        found = {n: v[place.group][(*place.cells, at)] for n, v in self._valid.items()}
        if np.isnan(found["loss"]).all():
            return {}
        best = np.nanargmin(found["loss"])
        return {name: float(values.ravel()[best]) for name, values in found.items()}

    def result(
        self, settings: dict[str, list[Any]], *, interrupted: bool, signal: int
    ) -> SweepResult:
        """All of it, with the groups one after another."""

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


def _without_filling(a: Any, place: Place) -> np.ndarray:
    return np.swapaxes(np.asarray(a)[: len(place.keys), : len(place.settings)], 0, 1)
