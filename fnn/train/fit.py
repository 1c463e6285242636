"""The host's loop around compiled chunks of the same step that `run` repeats."""

import enum
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fnn.keys import RunKeys, run_keys
from fnn.train import progress as shown
from fnn.train.check import check, expect_positive
from fnn.train.early_stopping import EarlyStopping
from fnn.train.evaluate import pure_evaluate
from fnn.train.interrupt import interrupts
from fnn.train.recipe import RecipeFunction
from fnn.train.record import COLUMNS, Record, fingerprint
from fnn.train.run import block_indices, block_length, make_advance
from fnn.train.state import init_state
from fnn.train.store import Store
from fnn.types import Data, History, Hyper, Pair, PRNGKey, TrainState

_MOST_STEPS = 4096  # of one compiled chunk; also the rows of its metrics
_CHUNK_SECONDS = 0.2  # the progress line and an interrupt wait for the end of a chunk


class Stop(enum.Enum):
    """Why a fit ended."""

    DONE = "all steps made"
    PATIENCE = "no improvement"
    INTERRUPTED = "interrupted"


class FitResult(NamedTuple):
    """What `fit` returns."""

    state: TrainState  # the best one if there was patience, else the last
    history: History
    best_step: int  # updates made at the best evaluation
    stop: Stop


class NonFiniteError(ArithmeticError):
    """A loss that turned NaN or infinite. Carries what is known and what is kept.

    step: the step whose loss it was, counted from 0.
    indices: the examples of `data.train` in its batch, int32 (batch_size,).
    state: the state at the last evaluation before it, whose loss was finite; the first state if
      there was none.
    history: up to and with that step.
    """

    def __init__(self, step: int, indices: np.ndarray, state: TrainState, history: History):
        self.step, self.indices, self.state, self.history = step, indices, state, history
        loss = float(history.train.loss[-1])
        super().__init__(
            f"fit: expected a finite loss, got {loss} at step {step} on the examples "
            f"{indices.tolist()} of data.train; the state of step {int(state.step)} is kept in "
            "this error's .state (and in the store, if there is one): "
            "lower the lr, clip the gradients, or look at these examples"
        )


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
    store: Store | None = None,
    resume: bool = False,
    progress: shown.Progress = shown.auto,
) -> FitResult:
    """Train, with live progress, early stopping, checkpoints and a clean end on Ctrl-C.

    On one device the parameters are bit-equal to those of `run` with the same arguments, also when
    the fit was interrupted and resumed in between.

    Args:
      recipe, data, key, hyper, steps, batch_size, eval_every, eval_batch_size: as for `make_run`
        and `run`. Calling `fit` again with the same `recipe` function compiles nothing anew.
      patience: evaluations without improvement after which to stop; None trains to the end. With
        patience the result holds the best state, without it the last.
      min_delta: how much lower a score must be to count as better.
      score: of the validation metrics; lower is better, e.g. `lambda valid: -valid['accuracy']`.
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
    check(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
    keys, data = run_keys(key), jax.tree.map(jnp.asarray, data)
    made_by = fingerprint(key, hyper, data, batch_size=batch_size, eval_every=eval_every)
    record, pace = Record(store, made_by), _Pace()

    with interrupts() as interrupted, progress(steps) as show:
        at = _start(recipe, keys, hyper, data, batch_size, record, resume)
        step = saved = int(at.state.step)
        while step < steps and not at.stopping.exhausted(patience) and not interrupted():
            most = min(eval_every - step % eval_every, steps - step)
            chunk = partial(_chunk, recipe, batch_size, at.state, keys, hyper, data.train)
            state, values = pace.time(chunk, most)
            at = at._replace(state=state)
            record.steps(step, values)
            step += len(values)
            if not np.isfinite(values[-1, 0]):
                indices = np.asarray(block_indices(keys, step - 1, data.train, batch_size, 1))[0]
                raise NonFiniteError(step - 1, indices, at.good, record.history())
            if step % eval_every == 0 or step == steps:
                valid = _evaluate(recipe, eval_batch_size, state, data.valid, hyper)
                record.evaluation(step, valid)
                at = _evaluated(at, step, score(valid), min_delta)
                if at.stopping.best_step == step:
                    record.save("best", at.best, at.stopping)
                record.save("last", state, at.stopping)
                saved = step
            show(shown.Report(step, steps, pace.rate, float(values[-1, 0]), record.latest_valid))
        if saved != step:  # interrupted between two evaluations
            record.save("last", at.state, at.stopping)

    if at.stopping.exhausted(patience):
        stop = Stop.PATIENCE
    else:
        stop = Stop.DONE if step >= steps else Stop.INTERRUPTED
    restored = at.best if patience is not None and at.stopping.best_step else at.state
    return FitResult(restored, record.history(), at.stopping.best_step, stop)


class _Position(NamedTuple):
    """Where a fit is."""

    state: TrainState
    good: TrainState  # at the last evaluation; the first state before it
    best: TrainState  # at the best evaluation; the first state before it
    stopping: EarlyStopping


def _start(
    recipe: RecipeFunction,
    keys: RunKeys,
    hyper: Hyper,
    data: Data,
    batch_size: int,
    record: Record,
    resume: bool,
) -> _Position:
    """The first position, or the one that the store holds."""
    state = _init(recipe, keys.init, hyper, jax.tree.map(lambda a: a[:batch_size], data.train[0]))
    if not record.holds_a_run():
        first = _copy(state)
        return _Position(state, first, first, EarlyStopping())
    if not resume:
        raise ValueError(
            "fit: expected an empty store, got one that holds a run; "
            "pass resume=True to go on with it, or give another store"
        )
    state, best, stopping = record.resume(state)
    return _Position(state, _copy(state), best, stopping)


def _evaluated(at: _Position, step: int, score: float, min_delta: float) -> _Position:
    """The position after an evaluation; its state is kept, since the next step overwrites it."""
    stopping, good = at.stopping.see(step, score, min_delta=min_delta), _copy(at.state)
    best = good if stopping.best_step == step else at.best
    return at._replace(good=good, best=best, stopping=stopping)


class _Pace:
    """Chooses the length of the chunks by how long the ones before took."""

    def __init__(self) -> None:
        self._length, self._compiled = 1, False
        self.rate = 0.0  # steps per second

    def time(
        self, chunk: Callable[[int], tuple[TrainState, Array]], most: int
    ) -> tuple[TrainState, np.ndarray]:
        """The state after one chunk of at most `most` steps, and the metrics of its steps."""
        length = min(self._length, most)
        start = time.monotonic()
        state, rows = chunk(length)
        values = np.array(np.asarray(rows)[:length])
        seconds = max(time.monotonic() - start, 1e-9)
        if self._compiled:  # the first chunk's time is the compiler's
            self.rate = length / seconds
            wanted = int(self.rate * _CHUNK_SECONDS)
            self._length = max(1, min(wanted, 16 * length, _MOST_STEPS))
        self._compiled = True
        return state, _up_to_first_non_finite(values)


def _up_to_first_non_finite(values: np.ndarray) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(values[:, 0]))
    return values[: bad[0] + 1] if len(bad) else values


@partial(jax.jit, static_argnums=0)
def _init(recipe: RecipeFunction, key: PRNGKey, hyper: Hyper, x: Any) -> TrainState:
    return init_state(recipe, key, hyper, x)


# The number of steps is an argument: one program serves chunks of every length.
@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _chunk(
    recipe: RecipeFunction,
    batch_size: int,
    state: TrainState,
    keys: RunKeys,
    hyper: Hyper,
    train: Pair,
    steps: Array,
) -> tuple[TrainState, Array]:
    advance, in_block = make_advance(recipe), block_length(train, batch_size)

    def block(b, carry):
        upcoming = block_indices(keys, carry[0].step, train, batch_size, in_block)

        def one(i, carry):
            state, rows = carry
            indices = jax.lax.dynamic_index_in_dim(upcoming, i, keepdims=False)
            state, metrics = advance(state, indices, keys, hyper, train)
            # Not rows.at[...].set, which is a scatter: on a CPU that is a loop of its own.
            place = b * in_block + i
            return state, jax.lax.dynamic_update_index_in_dim(rows, metrics.values, place, 0)

        return jax.lax.fori_loop(0, jnp.minimum(in_block, steps - b * in_block), one, carry)

    rows = jnp.zeros((_MOST_STEPS, len(COLUMNS)))
    blocks = (steps + in_block - 1) // in_block
    return jax.lax.fori_loop(0, blocks, block, (state, rows))


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


@jax.jit
def _copy(state: TrainState) -> TrainState:
    """Buffers of its own, which a donation of `state` leaves alone."""
    return jax.tree.map(jnp.copy, state)
