"""What a sweep returns: the record of every member, and the table that it comes to."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PyTree

from fnn import show, text
from fnn.types import History

Row = dict[str, Any]


class SweepTable(NamedTuple):
    """Rows of named values, one for each setting.

    >>> table = SweepTable([{'lr': 0.1, 'loss mean': 0.5}, {'lr': 0.2, 'loss mean': 0.25}])
    >>> print(table.sorted('loss mean'))
     lr  loss mean
    0.2       0.25
    0.1        0.5
    """

    rows: list[Row]

    @property
    def columns(self) -> list[str]:
        """The names, in order: the index of the setting and its values, n, died, then mean and std
        of each metric."""
        return list(self.rows[0]) if self.rows else []

    def sorted(self, column: str, *, descending: bool = False) -> "SweepTable":
        """The rows by the values of a column, with what is NaN at the end.

        Raises: ValueError for a column that is not there.
        """
        if column not in self.columns:
            raise ValueError(f"SweepTable: expected one of {self.columns}, got {column!r}")
        sign = -1 if descending else 1
        return SweepTable(sorted(self.rows, key=lambda row: _nan_last(sign * row[column])))

    def head(self, n: int) -> "SweepTable":
        """The first n rows."""
        return SweepTable(self.rows[:n])

    def __str__(self) -> str:
        cells = [self.columns] + [[as_text(row[c]) for c in self.columns] for row in self.rows]
        return text.table(cells, left=0)


@dataclass(frozen=True)
class SweepBest:
    """What `SweepResult.best` returns."""

    setting: Row  # the values of its hyperparameters, by name
    index: int  # of the setting: `result.member(index)` is what was kept of it
    value: float  # of the metric, in the mean over the keys
    __repr__ = show.fields


def _nan_last(value: float) -> tuple[bool, float]:
    return (value != value, value)


def as_text(value: Any) -> str:
    """A cell: four digits of a number, '-' for NaN, the name of a function.

    >>> as_text(0.0123456), as_text(float('nan')), as_text(100_000), as_text(as_text)
    ('0.01235', '-', '100000', 'as_text')
    """
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return value.__name__ if callable(value) and hasattr(value, "__name__") else str(value)


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """All that a sweep found, with the axes (settings, keys) in front of every array.

    history: of every member; NaN where it was not trained (dropped, interrupted) or had died.
      `jax.tree.map(lambda a: a[i, k], result.history)` is the history of one, as `run` returns it.
    """

    settings: dict[str, list[Any]]  # column -> the value of each setting, by index
    history: History
    made: Int[np.ndarray, "settings keys"]  # updates made; for one that died, the step of its death
    reached: Int[
        np.ndarray, "settings keys"
    ]  # the same had it not died; 0 for one that was not run
    kept: list[PyTree]  # of each group: `keep(state)` of its members, as NumPy arrays
    interrupted: bool
    signal: int = 0  # that arrived while it trained, such as signal.SIGINT; 0 for none

    @property
    def died(self) -> Bool[np.ndarray, "settings keys"]:
        """Which members came to a loss or to parameters that were not finite."""
        return self.made < self.reached

    def member(self, setting: int | np.integer, key: int | np.integer = 0) -> PyTree:
        """What was kept of one member: its last state, which for one that died is finite.

        Args:
          setting: its index, as in the column 'setting' of `table()`.
        """
        if self.reached[setting, key] == 0:
            raise ValueError(
                f"SweepResult: expected a member that was run, got setting {setting} with key "
                f"{key}, before which the sweep was interrupted; run the sweep again"
            )
        group, row = divmod(setting, len(self.made) // len(self.kept))
        return jax.tree.map(lambda a: jnp.asarray(a[row, key]), self.kept[group])

    def final(self) -> dict[str, np.ndarray]:
        """Each validation metric at the last evaluation of each member, (settings, keys)."""
        steps = np.asarray(self.history.eval_steps)[0, 0]
        last = np.searchsorted(steps, self.reached)[..., None]
        return {
            name: np.take_along_axis(np.asarray(values), last, axis=2)[..., 0]
            for name, values in self.history.valid.items()
        }

    def best(self, metric: str = "loss", *, highest: bool | None = None) -> SweepBest:
        """The setting with the best mean over its keys of a metric at the last evaluation.

        Only settings that were trained furthest compete, so none that `halving` dropped. Members
        that died, or whose metric is NaN, have no value: a setting without such members is better
        than any with one, and so on by their number. Of equal settings the first is the best.

        Args:
          metric: 'loss', or one of the recipe's metrics.
          highest: whether more is better. The lowest loss is the best; other metrics have to say.

        Raises: ValueError for another metric, and if no member has a value.
        """
        final = self.final()
        if metric not in final:
            raise ValueError(f"SweepResult.best: expected one of {sorted(final)}, got {metric!r}")
        if highest is None and metric != "loss":
            raise ValueError(
                f"SweepResult.best: expected highest=True or highest=False for {metric!r}, got "
                "None; say whether more of it is better"
            )
        values = np.where(self._done(), final[metric].astype(np.float64), np.nan)
        values[self.reached < self.reached.max()] = np.nan
        known = np.isfinite(values)
        if not known.any():
            raise ValueError(
                f"SweepResult.best: expected a member with a finite {metric!r}, got none of "
                f"{values.size}; lower the learning rates, or train longer"
            )
        sign = -1 if highest else 1
        means = np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        order = sorted(range(len(means)), key=lambda i: (-known[i].sum(), sign * means[i]))
        return SweepBest(self._setting(order[0]), order[0], float(means[order[0]]))

    def _done(self) -> Bool[np.ndarray, "settings keys"]:
        """Which members came to the end of their steps."""
        return ~self.died & (self.reached > 0)

    def _setting(self, index: int) -> Row:
        return {name: values[index] for name, values in self.settings.items()}

    def table(self) -> SweepTable:
        """Mean and standard deviation over the keys of each setting's last evaluation.

        The column 'setting' has the index of each row's setting, also after `sorted` and `head`.
        n counts the members that came to their end; those that died are left out of mean and std,
        and counted in their own column. Std has n - 1 below; it is NaN for n = 1. A column 'steps'
        tells how far a setting was trained, where that differs.
        """
        final = self.final()
        names = sorted(final, key=lambda name: (name != "loss", name))
        done = self._done()
        steps = self.reached.max(axis=1).tolist()
        rows = []
        for i in range(len(steps)):
            row = {"setting": i, **self._setting(i)}
            if len(set(steps)) > 1:
                row["steps"] = steps[i]
            row |= {"n": int(done[i].sum()), "died": int(self.died[i].sum())}
            for name in names:
                row |= _mean_and_std(name, final[name][i][done[i]])
            rows.append(row)
        return SweepTable(rows)

    def __repr__(self) -> str:
        settings, keys = self.reached.shape
        head = f"SweepResult: {settings} settings x {keys} keys, {self.reached.max()} steps"
        head += f", {self.died.sum()} died" if self.died.any() else ""
        head += ", interrupted" if self.interrupted else ""
        try:
            best = self.best()
        except ValueError:
            return f"{head}\n  no member has a finite loss"
        setting = ", ".join(f"{name}={as_text(value)}" for name, value in best.setting.items())
        return f"{head}\n  lowest mean loss {best.value:.4g}: setting {best.index} ({setting})"


def _mean_and_std(name: str, values: np.ndarray) -> Row:
    n, wide = len(values), values.astype(np.float64)
    return {
        f"{name} mean": float(wide.mean()) if n else float("nan"),
        f"{name} std": float(wide.std(ddof=1)) if n > 1 else float("nan"),
    }
