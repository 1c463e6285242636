"""Whole runs over every setting and key, side by side in one compiled program."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key

from fnn import tree
from fnn.advice import refuse
from fnn.expect import spec
from fnn.recipe import RecipeFunction
from fnn.train import progress as shown
from fnn.train._given import expect_known
from fnn.train.check import check
from fnn.train.interrupt import interrupts
from fnn.train.state import Start, expect_start
from fnn.train.sweeps._board import Board, Place, Rows
from fnn.train.sweeps._chunk import Layout, Span, Words, fitting_layout
from fnn.train.sweeps._member import Plan
from fnn.train.sweeps.halving import Halving, rung_ends, survivors
from fnn.train.sweeps.result import SweepResult
from fnn.train.sweeps.search import Group, Settings
from fnn.types import Data, TrainState


def whole_state(state: TrainState) -> TrainState:
    """Keep all of a member's last state.

    >>> state = TrainState(step=jnp.int32(3), params={}, model_state=(), opt_state=())
    >>> whole_state(state) is state
    True
    """
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
    """Train every setting with every key: many runs, one program.

    A member (setting i, key k) is `run(keys[k], hyper_i, data)` of `make_run`, to rounding: the
    products of many members side by side are summed in another order, a few units in the last
    place of float32, which training then carries on (over 22 steps of a small model, 1e-4 of the
    loss). All settings see the same batches, first weights and noise under the same key, so what
    differs between them is the settings' doing.

    A member whose loss or parameters are no longer finite is frozen at its last finite state and
    counted in the table as dead; the others do not notice.

    Members run in chunks of one size, whose program is compiled once; the last chunk is filled up
    with copies. Ctrl-C ends the sweep after the chunk at hand and keeps what is done.

    Args:
      recipe: one, or several groups that differ in what cannot be traced, made by
        `search.shapes(make_recipe, width=[64, 128])`; each group is compiled on its own, and all
        settings run in each.
      data: as for `run`.
      hypers: hyperparameters with an axis of settings in front of each leaf: `search.grid`,
        `search.random`, `search.listed`, or arrays of your own.
      keys: typed keys (n,), one for each repetition: `jax.random.split(jax.random.key(0), n)`.
      steps, batch_size, eval_every, eval_batch_size: as for `make_run`.
      init: weights that all members start from, as of `fit`; None initializes each by its key.
      halving: to train the promising settings only, `halving(eta=4, rungs=3)`; settings of all
        groups compete. None trains all to the end.
      keep: what to keep of each member's last state, computed in the program; `lambda state: ()`
        for nothing.
      memory_bytes: on each device, for the members that run together, without the data; one at a
        time if not even one fits. None: half of an accelerator, 64 MiB of a processor's memory.
      devices: to share the members; None for all of `jax.devices()`. On a processor with several
        cores, `jax.config.update('jax_num_cpu_devices', cores)` before the first use of JAX makes
        each of them a device, and a sweep of small models that much faster.
      progress: what to show, in steps of all members together, with the least loss so far.

    Returns: a `SweepResult`: `result.best()`, `result.table()`, `result.member(setting, key)`.
    Raises: ValueError for what `check` finds, for keys or hypers that are not stacked, for a
      hyperparameter named as a column of the table, and for groups with different metrics.

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
    >>> [(row['n'], row['died'], row['loss mean'] < 1e-6) for row in result.table().rows]
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
    for plan in plans:
        first = jax.tree.map(lambda leaf: leaf[0], hypers)
        check(plan.recipe, data, key=plan.key(words[0]), hyper=first, batch_size=batch_size)
    spans = _spans(halving, steps, eval_every)
    eval_steps = [*range(eval_every, steps, eval_every), steps]
    work = _Work(
        plans,
        jax.tree.map(jnp.asarray, data),
        jax.tree.map(jnp.asarray, init),
        hypers,
        words,
        memory_bytes,
        list(jax.devices() if devices is None else devices),
        Board(len(groups), n, len(words), eval_steps),
    )
    total = _steps_in_all(halving, spans, work)
    with interrupts() as interrupted, progress(total) as show:
        finished = _climb(work, spans, halving, interrupted, _Meter(work, show, total))
    return work.board.result(columns, interrupted=not finished, signal=interrupted())


def _groups(recipe: Any) -> list[Group]:
    if callable(recipe):
        return [Group({}, recipe)]
    if not isinstance(recipe, (list, tuple)) or not all(isinstance(g, Group) for g in recipe):
        refuse(
            "sweep",
            "a recipe function, or groups from search.shapes",
            recipe,
            "pass the function recipe(hyper) itself, without calling it",
        )
    return list(recipe)


class _Work(NamedTuple):
    """What all chunks of a sweep need."""

    plans: list[Plan]  # of each group
    data: Data
    start: Start
    hypers: Settings
    keys: Words
    memory_bytes: int | None
    devices: list[jax.Device]
    board: Board


def _stacked(hypers: Settings) -> tuple[Settings, int]:
    """The settings as arrays, and how many there are."""
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
    """The keys as numbers, and their kind: so that to pick some of them consumes none."""
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
        Span(first, last, goes_on=last < steps)
        for first, last in zip([0, *ends[:-1]], ends, strict=True)
    ]


def _climb(
    work: _Work,
    spans: list[Span],
    halving: Halving | None,
    interrupted: Callable[[], int],
    meter: "_Meter",
) -> bool:
    """Train rung by rung; returns whether that came to its end."""
    groups, n, _ = work.board.shape
    going = [np.arange(n) for _ in range(groups)]
    for rung, span in enumerate(spans):
        for group, rows in enumerate(going):
            if len(rows) and not _train(work, group, rows, span, interrupted, meter):
                return False
        if halving is not None and span.goes_on:
            going = _survivors(work.board, halving, going, span, rung)
    return True


def _train(
    work: _Work,
    group: int,
    rows: Rows,
    span: Span,
    interrupted: Callable[[], int],
    meter: "_Meter",
) -> bool:
    """One rung of one group, chunk by chunk; returns False where it was interrupted."""
    settings = _take(work.hypers, rows)
    layout, compiled = fitting_layout(
        work.plans[group],
        span,
        work.keys,
        settings,
        work.data,
        work.start,
        work.memory_bytes,
        work.devices,
    )
    for place in _places(group, rows, len(work.keys), layout):
        if interrupted():
            return False
        # The last chunk has the size of the others: its last member is there several times.
        filled = Place(
            group, _filled(place.settings, layout.settings), _filled(place.keys, layout.keys)
        )
        states = work.board.states(filled) if span.first else ()
        chunk = compiled(
            states,
            work.keys[filled.keys],
            _take(work.hypers, filled.settings),
            work.data,
            work.start,
        )
        work.board.put(place, span, chunk)
        meter.add(place, span)
    return True


def _places(group: int, rows: Rows, n_keys: int, layout: Layout) -> Iterator[Place]:
    for i in range(0, len(rows), layout.settings):
        for k in range(0, n_keys, layout.keys):
            keys = np.arange(k, min(k + layout.keys, n_keys))
            yield Place(group, rows[i : i + layout.settings], keys)


def _filled(rows: Rows, size: int) -> Rows:
    return np.pad(rows, (0, size - len(rows)), mode="edge")


def _take(hypers: Settings, rows: Rows) -> Settings:
    return jax.tree.map(lambda leaf: leaf[rows], hypers)


def _survivors(
    board: Board, halving: Halving, going: list[Rows], span: Span, rung: int
) -> list[Rows]:
    """Those who go on, of each group; all groups are ranked together."""
    groups, n, _ = board.shape
    valid = [row for g, rows in enumerate(going) for row in board.latest(g, rows, span)]
    kept = survivors(halving, valid, groups * n, rung)
    starts = np.cumsum([0, *map(len, going)])
    return [
        rows[kept[(kept >= start) & (kept < start + len(rows))] - start]
        for rows, start in zip(going, starts[:-1], strict=True)
    ]


def _steps_in_all(halving: Halving | None, spans: list[Span], work: _Work) -> int:
    groups, n, n_keys = work.board.shape
    eta = 1 if halving is None else halving.eta
    settings = [-(-groups * n // eta**rung) for rung in range(len(spans))]
    return n_keys * sum(
        s * (span.last - span.first) for s, span in zip(settings, spans, strict=True)
    )


class _Meter:
    """Tells the progress what each chunk added."""

    def __init__(self, work: _Work, show: Callable[[shown.Report], None], total: int):
        self._board, self._show, self._total = work.board, show, total
        self._made, self._begun = 0, time.monotonic()
        self._best: dict[str, float] = {}

    def add(self, place: Place, span: Span) -> None:
        """Show how far the sweep is after one more chunk."""
        self._made += len(place.settings) * len(place.keys) * (span.last - span.first)
        rate = self._made / max(time.monotonic() - self._begun, 1e-9)
        found = self._board.least_loss(place, span)
        if found and (not self._best or found["loss"] < self._best["loss"]):
            self._best = found
        loss = self._best["loss"] if self._best else float("nan")
        self._show(shown.Report(self._made, self._total, rate, loss, self._best))


def _columns(groups: list[Group], hypers: Settings) -> dict[str, list[Any]]:
    """The names and values that tell one setting from another, over all groups."""
    leaves = dict(zip(tree.paths(hypers), jax.tree.leaves(hypers), strict=True))
    scalars = {name: np.asarray(leaf).tolist() for name, leaf in leaves.items() if leaf.ndim == 1}
    n = len(jax.tree.leaves(hypers)[0])
    shapes = {
        name: [value for group in groups for value in [group.shape[name]] * n]
        for name in groups[0].shape
    }
    columns = shapes | {name: values * len(groups) for name, values in scalars.items()}
    if taken := sorted(columns.keys() & {"setting", "steps", "n", "died"}):
        raise ValueError(
            f"sweep: expected hyperparameters with other names than {taken}, which are columns of "
            "the table; rename them"
        )
    return columns
