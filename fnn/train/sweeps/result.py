"""The result of a sweep: the history of every member, and a table of the settings."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PyTree

from fnn import show
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
        """'setting', its hyperparameters, 'n', 'diverged', mean and std of each metric."""
        return list(self.rows[0]) if self.rows else []

    def sorted(self, column: str, *, descending: bool = False) -> "SweepTable":
        """The rows in the order of a column, NaN last."""
        if column not in self.columns:
            raise ValueError(f"SweepTable: expected one of {self.columns}, got {column!r}")
        sign = -1 if descending else 1
        return SweepTable(sorted(self.rows, key=lambda row: _nan_last(sign * row[column])))

    def head(self, n: int) -> "SweepTable":
        """The first n rows."""
        return SweepTable(self.rows[:n])

    def __str__(self) -> str:
        cells = [self.columns] + [[as_text(row[c]) for c in self.columns] for row in self.rows]
        return show.table(cells, left=0)


@dataclass(frozen=True)
class SweepBest:
    """The best setting of a sweep."""

    setting: Row  # its hyperparameters, by name
    index: int  # of the setting, for `result.member(index)`
    value: float  # of the metric, mean over the keys
    __repr__ = show.fields


def _nan_last(value: float) -> tuple[bool, float]:
    return (value != value, value)


def as_text(value: Any) -> str:
    """A cell of a table: four digits of a number, '-' for NaN, the name of a function.

    >>> as_text(0.0123456), as_text(float('nan')), as_text(100_000), as_text(as_text)
    ('0.01235', '-', '100000', 'as_text')
    """
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return value.__name__ if callable(value) and hasattr(value, "__name__") else str(value)


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep; all arrays have leading axes (settings, keys).

    history: of every member; NaN where it was not trained (dropped, interrupted) or had diverged.
      `jax.tree.map(lambda a: a[i, k], result.history)` is the history of one, as `run` returns it.
    """

    settings: dict[str, list[Any]]  # column -> the value of each setting, by index
    history: History
    made: Int[np.ndarray, "settings keys"]  # updates, until the member diverged
    reached: Int[np.ndarray, "settings keys"]  # step up to which it was run; 0 if it was not
    kept: list[PyTree]  # of each group: `keep(state)` of its members, as NumPy arrays
    interrupted: bool
    signal: int = 0  # received during training, such as signal.SIGINT; 0 for none

    @property
    def diverged(self) -> Bool[np.ndarray, "settings keys"]:
        """Which members had a loss or parameters that were not finite."""
        return self.made < self.reached

    def member(self, setting: int | np.integer, key: int | np.integer = 0) -> PyTree:
        """`keep(state)` of one member, by default its last state (the last finite one).

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
        """The setting with the best metric at the last evaluation, averaged over its keys.

        Only settings with the most steps compete, so none that `halving` dropped. Settings are
        ranked first by the number of members that diverged or whose metric is NaN; of equal
        settings the first is the best.

        Args:
          metric: 'loss', or one of the recipe's metrics.
          highest: whether higher is better; required for metrics other than 'loss'.

        Raises: ValueError for another metric, and if no member has a finite one.
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
        """Which members completed their steps."""
        return ~self.diverged & (self.reached > 0)

    def _setting(self, index: int) -> Row:
        return {name: values[index] for name, values in self.settings.items()}

    def table(self) -> SweepTable:
        """Mean and standard deviation over the keys of each setting's last evaluation.

        The column 'setting' has the index of each row's setting, also after `sorted` and `head`;
        'n' counts completed members, to which mean and std (with n - 1; NaN for n = 1) belong, and
        'diverged' the others. Where settings differ in the number of steps, there is a column
        'steps'.
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
            row |= {"n": int(done[i].sum()), "diverged": int(self.diverged[i].sum())}
            for name in names:
                mean, std = mean_and_std(final[name][i][done[i]])
                row |= {f"{name} mean": mean, f"{name} std": std}
            rows.append(row)
        return SweepTable(rows)

    def __repr__(self) -> str:
        settings, keys = self.reached.shape
        head = f"SweepResult: {settings} settings x {keys} keys, {self.reached.max()} steps"
        head += f", {self.diverged.sum()} diverged" if self.diverged.any() else ""
        head += ", interrupted" if self.interrupted else ""
        try:
            best = self.best()
        except ValueError:
            return f"{head}\n  no member has a finite loss"
        setting = ", ".join(f"{name}={as_text(value)}" for name, value in best.setting.items())
        return f"{head}\n  lowest mean loss {best.value:.4g}: setting {best.index} ({setting})"


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean over runs (n,) and standard deviation with n - 1; NaN where there are too few."""
    n, wide = len(values), values.astype(np.float64)
    std = float(wide.std(ddof=1)) if n > 1 else float("nan")
    return (float(wide.mean()) if n else float("nan")), std
