"""Whole runs over every setting and key in one compiled program."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key

from fnn import tree
from fnn._messages import refuse
from fnn.expect import spec
from fnn.recipe import RecipeFunction
from fnn.train import progress as shown
from fnn.train._inputs import expect_known
from fnn.train.check import check
from fnn.train.process import interrupts
from fnn.train.state import Start, expect_start
from fnn.train.sweeps._chunk import Layout, Span, Words, fitting_layout
from fnn.train.sweeps._log import Members, Rows, SweepLog
from fnn.train.sweeps._member import Plan
from fnn.train.sweeps.halving import Halving, rung_ends, survivors
from fnn.train.sweeps.result import SweepResult
from fnn.train.sweeps.search import Group, Settings
from fnn.types import Data, TrainState


def whole_state(state: TrainState) -> TrainState:
    """The default of `sweep`'s `keep`: a member's last state."""
    return state


def sweep(
    recipe: RecipeFunction | Sequence[Group],
    data: Data,
    hypers: Settings,
    keys: Key[jax.Array, " keys"],
    *,
    steps: int,
    batch_size: int,
    eval_every: int | None = None,
    eval_batch_size: int = 1024,
    init: Start = None,
    halving: Halving | None = None,
    keep: Callable[[TrainState], Any] = whole_state,
    memory_bytes: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: shown.Progress = shown.auto,
) -> SweepResult:
    """Trains every setting with every key: many runs in one program.

    A member (setting i, key k) is `run(keys[k], hyper_i, data)` of `make_run`, up to rounding:
    batched products sum in another order. All settings have the same batches, first weights and
    noise under the same key, so differences between them are due to the settings alone.

    A member whose loss or parameters are no longer finite is frozen at its last finite state and
    counted in the table as diverged; the others are unaffected.

    Members run in chunks of one size, whose program is compiled once; the last chunk is padded
    with copies. Ctrl-C ends the sweep after the current chunk; its result has what is completed.

    Args:
      recipe: a recipe, or groups that differ in static values, made by
        `search.shapes(make_recipe, width=[64, 128])`; each group is compiled separately, and all
        settings run in each.
      data: as for `run`.
      hypers: hyperparameters with a leading axis of settings at each leaf: from `search.grid`,
        `search.random`, `search.listed`, or your own arrays.
      keys: typed keys (n,), one for each repetition: `jax.random.split(jax.random.key(0), n)`.
      steps, batch_size, eval_every, eval_batch_size: as for `make_run`.
      init: weights that all members start from, as for `fit`; None initializes each by its key.
      halving: trains only promising settings to the end, `halving(eta=4, rungs=3)`; settings of all
        groups compete. None trains all to the end.
      keep: the part of each member's last state to return, computed in the program;
        `lambda state: ()` for nothing.
      memory_bytes: on each device, for the members that run together, without the data; at least
        one runs at a time. None: half of an accelerator's memory, 64 MiB on a CPU.
      devices: to divide the members among; None for all of `jax.devices()`. On a CPU,
        `jax.config.update('jax_num_cpu_devices', cores)` before the first use of JAX makes each
        core a device, which speeds up sweeps of small models.
      progress: how to show progress, in steps of all members, with the lowest loss so far.

    Returns: a `SweepResult`: `result.best()`, `result.table()`, `result.member(setting, key)`.
    Raises: ValueError for what `check` finds, for keys or hypers that are not stacked, for a
      hyperparameter with the name of a column of the table, and for groups with different metrics.

    >>> from fnn import Batch, Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import search
    >>> def recipe(hyper):
    ...     return Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                   schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))
    >>> result = sweep(recipe, data, search.grid(lr=[0.01, 0.3, 1e20]),
    ...                jax.random.split(jax.random.key(0), 2), steps=100, batch_size=4,
    ...                progress=shown.silent)
    >>> [(row['n'], row['diverged'], row['loss mean'] < 1e-6) for row in result.table().rows]
    [(2, 0, False), (2, 0, True), (0, 2, False)]
    >>> result.best().index, round(result.best().setting['lr'], 3)
    (1, 0.3)
    """
    eval_every = min(steps, steps if eval_every is None else eval_every)
    expect_start("sweep", init)
    expect_known("sweep", hypers, keys)
    groups = _groups(recipe)
    hypers, n = _stacked(hypers)
    columns = _columns(groups, hypers)
    words, impl = _words(keys)
    plans = [
        Plan(
            recipe=group.recipe,
            batch_size=batch_size,
            eval_every=eval_every,
            eval_batch_size=eval_batch_size,
            keep=keep,
            key_impl=impl,
        )
        for group in groups
    ]
    first = jax.tree.map(lambda leaf: leaf[0], hypers)
    for plan in plans:
        check(plan.recipe, data, key=plan.key(words[0]), hyper=first, batch_size=batch_size)
    spans = _spans(halving, steps, eval_every)
    eval_steps = [*range(eval_every, steps, eval_every), steps]
    job = _SweepJob(
        plans,
        jax.tree.map(jnp.asarray, data),
        jax.tree.map(jnp.asarray, init),
        hypers,
        words,
        memory_bytes,
        list(jax.devices() if devices is None else devices),
        SweepLog(len(groups), n, len(words), eval_steps),
    )
    total = _total_steps(halving, spans, job)
    with interrupts() as interrupted, progress(total) as show:
        meter = _Meter(job.log, show, total)
        completed = _run_rungs(job, spans, halving, interrupted, meter)
    return job.log.result(columns, interrupted=not completed, signal=interrupted())


def _groups(recipe: Any) -> list[Group]:
    if callable(recipe):
        return [Group({}, recipe)]
    if not isinstance(recipe, (list, tuple)) or not all(isinstance(g, Group) for g in recipe):
        words = "a recipe function, or groups from search.shapes"
        hint = "pass the function recipe(hyper) itself, without calling it"
        refuse("sweep", words, recipe, hint)
    return list(recipe)


class _SweepJob(NamedTuple):
    """What all chunks of a sweep share."""

    plans: list[Plan]  # of each group
    data: Data
    start: Start
    hypers: Settings
    keys: Words
    memory_bytes: int | None
    devices: list[jax.Device]
    log: SweepLog


def _stacked(hypers: Settings) -> tuple[Settings, int]:
    """The settings as arrays, and their number."""
    lengths = {
        path: np.shape(leaf)[:1]
        for path, leaf in zip(tree.paths(hypers), jax.tree.leaves(hypers), strict=True)
    }
    if len(set(lengths.values())) != 1 or () in lengths.values() or (0,) in lengths.values():
        raise ValueError(
            "sweep: expected hypers with one axis of settings in front of each leaf, got the "
            f"lengths {lengths}; make them with search.grid, search.random or search.listed"
        )
    n = next(iter(lengths.values()))[0]
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), hypers), n


def _words(keys: Any) -> tuple[Words, Any]:
    """The keys as integers, which can be indexed without consuming them, and their kind."""
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or not len(keys):
        got = spec(keys) if isinstance(keys, (jax.Array, np.ndarray)) else type(keys).__name__
        raise ValueError(
            f"sweep: expected typed keys of shape (n,), got {got}; "
            "make them with jax.random.split(jax.random.key(0), n)"
        )
    return np.asarray(jax.random.key_data(keys)), jax.random.key_impl(keys)


def _spans(halving: Halving | None, steps: int, eval_every: int) -> list[Span]:
    ends = [steps] if halving is None else rung_ends(halving, steps=steps, eval_every=eval_every)
    return [
        Span(first, last, continues=last < steps)
        for first, last in zip([0, *ends[:-1]], ends, strict=True)
    ]


def _run_rungs(
    job: _SweepJob,
    spans: list[Span],
    halving: Halving | None,
    interrupted: Callable[[], int],
    meter: "_Meter",
) -> bool:
    """Trains rung by rung; returns whether it was completed."""
    groups, n, _ = job.log.shape
    alive = [np.arange(n) for _ in range(groups)]
    for rung, span in enumerate(spans):
        for group, rows in enumerate(alive):
            if len(rows) and not _train(job, group, rows, span, interrupted, meter):
                return False
        if halving is not None and span.continues:
            alive = _survivors(job.log, halving, alive, span, rung)
    return True


def _train(
    job: _SweepJob,
    group: int,
    rows: Rows,
    span: Span,
    interrupted: Callable[[], int],
    meter: "_Meter",
) -> bool:
    """One rung of one group, chunk by chunk; returns False if it was interrupted."""
    layout, compiled = fitting_layout(
        job.plans[group],
        span,
        job.keys,
        _take(job.hypers, rows),
        job.data,
        job.start,
        job.memory_bytes,
        job.devices,
    )
    for members in _chunks(group, rows, len(job.keys), layout):
        if interrupted():
            return False
        # The last chunk has the size of the others, padded with copies of its last member.
        padded = Members(
            group, _padded(members.settings, layout.settings), _padded(members.keys, layout.keys)
        )
        states = job.log.states(padded) if span.first else ()
        hypers = _take(job.hypers, padded.settings)
        chunk = compiled(states, job.keys[padded.keys], hypers, job.data, job.start)
        job.log.add(members, span, chunk)
        meter.add(members, span)
    return True


def _chunks(group: int, rows: Rows, n_keys: int, layout: Layout) -> Iterator[Members]:
    for i in range(0, len(rows), layout.settings):
        for k in range(0, n_keys, layout.keys):
            keys = np.arange(k, min(k + layout.keys, n_keys))
            yield Members(group, rows[i : i + layout.settings], keys)


def _padded(rows: Rows, size: int) -> Rows:
    return np.pad(rows, (0, size - len(rows)), mode="edge")


def _take(hypers: Settings, rows: Rows) -> Settings:
    return jax.tree.map(lambda leaf: leaf[rows], hypers)


def _survivors(
    log: SweepLog, halving: Halving, alive: list[Rows], span: Span, rung: int
) -> list[Rows]:
    """The surviving settings of each group; all groups are ranked together."""
    groups, n, _ = log.shape
    valid = [row for g, rows in enumerate(alive) for row in log.latest(g, rows, span)]
    kept = survivors(halving, valid, groups * n, rung)
    starts = np.cumsum([0, *map(len, alive)])
    return [
        rows[kept[(kept >= start) & (kept < start + len(rows))] - start]
        for rows, start in zip(alive, starts[:-1], strict=True)
    ]


def _total_steps(halving: Halving | None, spans: list[Span], job: _SweepJob) -> int:
    groups, n, n_keys = job.log.shape
    eta = 1 if halving is None else halving.eta
    settings = [-(-groups * n // eta**rung) for rung in range(len(spans))]
    return n_keys * sum(
        s * (span.last - span.first) for s, span in zip(settings, spans, strict=True)
    )


class _Meter:
    """Reports the progress after each chunk."""

    def __init__(self, log: SweepLog, show: Callable[[shown.Report], None], total: int) -> None:
        self._log, self._show, self._total = log, show, total
        self._made, self._begun = 0, time.monotonic()
        self._best: dict[str, float] = {}

    def add(self, members: Members, span: Span) -> None:
        """Adds a chunk, and reports."""
        self._made += len(members.settings) * len(members.keys) * (span.last - span.first)
        rate = self._made / max(time.monotonic() - self._begun, 1e-9)
        lowest = self._log.lowest_loss(members, span)
        if lowest and (not self._best or lowest["loss"] < self._best["loss"]):
            self._best = lowest
        loss = self._best["loss"] if self._best else float("nan")
        self._show(shown.Report(self._made, self._total, rate, loss, self._best))


def _columns(groups: list[Group], hypers: Settings) -> dict[str, list[Any]]:
    """The hyperparameters and shapes of all settings by name, over all groups."""
    leaves = dict(zip(tree.paths(hypers), jax.tree.leaves(hypers), strict=True))
    scalars = {name: np.asarray(leaf).tolist() for name, leaf in leaves.items() if leaf.ndim == 1}
    n = len(jax.tree.leaves(hypers)[0])
    shapes = {
        name: [value for group in groups for value in [group.shape[name]] * n]
        for name in groups[0].shape
    }
    columns = shapes | {name: values * len(groups) for name, values in scalars.items()}
    if taken := sorted(columns.keys() & {"setting", "steps", "n", "diverged"}):
        raise ValueError(
            f"sweep: expected hyperparameters with other names than {taken}, which are columns of "
            "the table; rename them"
        )
    return columns
