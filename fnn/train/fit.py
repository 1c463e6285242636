"""The host's loop around compiled chunks of the same step that `run` repeats."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fnn.keys import RunKeys, run_keys
from fnn.train import progress as shown
from fnn.train.callbacks import NO_CALLBACKS, Callbacks, Carries, Event, expect_callbacks, see
from fnn.train.check import expect_positive
from fnn.train.chunks import chunks
from fnn.train.devices import Devices, everywhere
from fnn.train.early_stopping import EarlyStopping
from fnn.train.evaluate import pure_evaluate
from fnn.train.interrupt import interrupts
from fnn.train.pace import Pace
from fnn.train.recipe import RecipeFunction, build
from fnn.train.record import Record, fingerprint
from fnn.train.result import FitResult, NonFiniteError, Stop
from fnn.train.run import block_indices
from fnn.train.source import checked, everywhere_but_sources
from fnn.train.state import copied, init_state
from fnn.train.store import Store
from fnn.types import Data, Hyper, Metrics, Pair, PRNGKey, TrainState

_MOST_STEPS = 4096  # of one chunk; also the rows of its metrics
# The progress line and an interrupt wait for the end of a chunk. On a CPU each has its temporary
# arrays mapped anew: in fifths of a second that took a tenth of the time of a ResNet.
_CHUNK_SECONDS = 1.0


def fit(
    recipe: RecipeFunction,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    steps: int,
    batch_size: int,
    eval_every: int | None = None,
    eval_batch_size: int = 1024,
    patience: int | None = None,
    min_delta: float = 0.0,
    score: Callable[[dict[str, float]], float] = lambda valid: valid["loss"],
    callbacks: Callbacks = NO_CALLBACKS,
    store: Store | None = None,
    resume: bool = False,
    progress: shown.Progress = shown.auto,
) -> FitResult:
    """Train, with live progress, early stopping, checkpoints and a clean end on Ctrl-C.

    On one device the parameters are bit-equal to those of `run` with the same arguments, also when
    the fit was interrupted and resumed in between, or its examples came from the host; unless a
    callback changes them.

    Args:
      recipe, data, key, hyper, steps, batch_size, eval_every, eval_batch_size: as for `make_run`
        and `run`. Calling `fit` again with the same `recipe` function compiles nothing anew.
        `data.train` may be a `fnn.data.Streamed`, whose examples stay on the host.
      patience: evaluations without improvement after which to stop; None trains to the end. With
        patience the result holds the best state, without it the last.
      min_delta: how much lower a score must be to count as better.
      score: of the validation metrics; lower is better, e.g. `lambda valid: -valid['accuracy']`.
      callbacks: folds over what the fit sees, by name, after each chunk and evaluation; they may
        end the fit or change its state, and what they carry is in the result.
      store: where checkpoints ('best' and 'last', at each evaluation) and rows go, e.g.
        `RunDir('runs/a')`; None keeps nothing.
      resume: go on from the store's 'last', if it has one.
      progress: what to show; `silent` for nothing.

    Raises: ValueError for what `check` finds, and for a resume whose arguments differ from the
      stored ones; NonFiniteError for a loss that turns NaN or infinite.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Batch, Recipe
    >>> def recipe(hyper):
    ...     return Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                   schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))
    >>> result = fit(recipe, data, key=jax.random.key(0), hyper={'lr': 0.3}, steps=50, batch_size=4,
    ...              progress=shown.silent)
    >>> result.stop.name, result.state.params['kernel'].round(2).tolist()
    ('DONE', [[3.0]])
    """
    eval_every = steps if eval_every is None else eval_every
    expect_positive("fit", steps=steps, eval_every=eval_every, eval_batch_size=eval_batch_size)
    if patience is not None:
        expect_positive("fit", patience=patience)
    expect_callbacks(callbacks)
    data = checked(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
    devices = build(recipe, hyper).devices
    data, keys = everywhere_but_sources(devices, data), run_keys(key)
    made_by = fingerprint(key, hyper, data, batch_size=batch_size, eval_every=eval_every)
    record, pace = Record(store, made_by), Pace(_CHUNK_SECONDS, _MOST_STEPS)

    with interrupts() as interrupted, progress(steps) as show, ExitStack() as stack:
        at = _start(recipe, keys, hyper, data, batch_size, callbacks, record, resume, devices)
        step = saved = int(at.state.step)
        source = chunks(recipe, batch_size, keys, hyper, data.train, step, _MOST_STEPS)
        advance = stack.enter_context(source)
        while step < steps and at.goes_on(patience) and not interrupted():
            most = min(eval_every - step % eval_every, steps - step)
            state, values = pace.time(advance, at.state, most)
            at, values = at._replace(state=state), _up_to_first_non_finite(values)
            record.steps(step, values)
            step += len(values)
            if not np.isfinite(values[-1, 0]):
                indices = np.asarray(block_indices(keys, step - 1, data.train, batch_size, 1))[0]
                raise NonFiniteError(step - 1, indices, at.good, record.history())
            valid: dict[str, float] = {}
            if step % eval_every == 0 or step == steps:
                valid = _evaluate(recipe, eval_batch_size, state, data.valid, hyper)
                record.evaluation(step, valid)
                at = _evaluated(at, step, score(valid), min_delta)
            at = _called(at, callbacks, step, steps, values, valid, record)
            if valid:
                if at.stopping.best_step == step:
                    record.save("best", at.best, at.stopping, at.carries)
                record.save("last", at.state, at.stopping, at.carries)
                saved = step
            show(shown.Report(step, steps, pace.rate, float(values[-1, 0]), record.latest_valid))
        if saved != step:  # ended between two evaluations
            record.save("last", at.state, at.stopping, at.carries)

    restored = at.best if patience is not None and at.stopping.best_step else at.state
    stop = _reason(at, patience, step >= steps)
    return FitResult(restored, record.history(), at.stopping.best_step, stop, at.carries)


class _Position(NamedTuple):
    """Where a fit is."""

    state: TrainState
    good: TrainState  # at the last evaluation; the first state before it
    best: TrainState  # at the best evaluation; the first state before it
    stopping: EarlyStopping
    carries: Carries  # of the callbacks
    stopped: bool = False  # by a callback

    def goes_on(self, patience: int | None) -> bool:
        return not (self.stopped or self.stopping.exhausted(patience))


def _start(
    recipe: RecipeFunction,
    keys: RunKeys,
    hyper: Hyper,
    data: Data,
    batch_size: int,
    callbacks: Callbacks,
    record: Record,
    resume: bool,
    devices: Devices,
) -> _Position:
    """The first position, or the one that the store holds."""
    carries = {name: callback.init for name, callback in callbacks.items()}
    state = _init(recipe, keys.init, hyper, jax.tree.map(lambda a: a[:batch_size], data.train[0]))
    if not record.holds_a_run():
        record.begin(carries)
        first = copied(state)
        return _Position(state, first, first, EarlyStopping(), carries)
    if not resume:
        raise ValueError(
            "fit: expected an empty store, got one that holds a run; "
            "pass resume=True to go on with it, or give another store"
        )
    state, best, stopping, kept = record.resume(state)
    state, best = everywhere(devices, (state, best))
    carries |= {name: kept[name] for name in carries.keys() & kept.keys()}
    return _Position(state, copied(state), best, stopping, carries)


def _evaluated(at: _Position, step: int, score: float, min_delta: float) -> _Position:
    """The position after an evaluation; its state is kept, since the next step overwrites it."""
    stopping, good = at.stopping.see(step, score, min_delta=min_delta), copied(at.state)
    best = good if stopping.best_step == step else at.best
    return at._replace(good=good, best=best, stopping=stopping)


def _called(
    at: _Position,
    callbacks: Callbacks,
    step: int,
    steps: int,
    values: np.ndarray,
    valid: dict[str, float],
    record: Record,
) -> _Position:
    """The position after the callbacks have seen a chunk, and the evaluation that ended it."""
    if not callbacks:
        return at
    train = Metrics(values=jnp.asarray(values))
    event = Event(
        step=step, steps=steps, train=train, valid=dict(valid), read_history=record.history
    )
    state, carries, stopped = see(callbacks, at.carries, at.state, event)
    return at._replace(state=state, carries=carries, stopped=stopped)


def _reason(at: _Position, patience: int | None, done: bool) -> Stop:
    if at.stopping.exhausted(patience):
        return Stop.PATIENCE
    if at.stopped:
        return Stop.CALLBACK
    return Stop.DONE if done else Stop.INTERRUPTED


def _up_to_first_non_finite(values: np.ndarray) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(values[:, 0]))
    return values[: bad[0] + 1] if len(bad) else values


@partial(jax.jit, static_argnums=0)
def _init(recipe: RecipeFunction, key: PRNGKey, hyper: Hyper, x: Any) -> TrainState:
    return init_state(recipe, key, hyper, x)


def _evaluate(
    recipe: RecipeFunction, batch_size: int, state: TrainState, valid: Pair, hyper: Hyper
) -> dict[str, float]:
    """The validation metrics as numbers, the loss first."""
    values = _evaluate_compiled(recipe, batch_size, state, valid, hyper)
    return {name: values[name].item() for name in sorted(values, key=lambda n: (n != "loss", n))}


@partial(jax.jit, static_argnums=(0, 1))
def _evaluate_compiled(
    recipe: RecipeFunction, batch_size: int, state: TrainState, valid: Pair, hyper: Hyper
) -> dict[str, Array]:
    return pure_evaluate(recipe, batch_size)(state, valid, hyper)
