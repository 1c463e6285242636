"""Training with a loop on the host, around compiled chunks of the step that `run` repeats."""

import enum
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn import show
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import progress as shown
from fnn.train._chunks import Pace, chunks, most_steps
from fnn.train._inputs import expect_known, expect_score, expect_store, is_deleted
from fnn.train._job import Job, make_job
from fnn.train._log import Record, Store, fingerprint
from fnn.train._scan import block_indices
from fnn.train._source import Loader, is_iterable, open_loader, position
from fnn.train.callbacks import (
    NO_CALLBACKS,
    Callbacks,
    Carries,
    EarlyStopping,
    expect_callbacks,
    run_callbacks,
)
from fnn.train.devices import everywhere
from fnn.train.process import interrupts
from fnn.train.state import Start, copied
from fnn.types import Data, History, Hyper, PRNGKey, TrainState

# The progress line and an interrupt wait for the end of a chunk; on a CPU each chunk allocates its
# temporary arrays anew, so much shorter ones cost time.
_CHUNK_SECONDS = 1.0


class Stop(enum.Enum):
    """Why a fit ended."""

    DONE = "all steps made"
    PATIENCE = "no improvement"
    CALLBACK = "ended by a callback"
    INTERRUPTED = "interrupted"


class FitResult(NamedTuple):
    """The result of `fit`."""

    state: TrainState  # the best one if there was patience, else the last
    history: History
    best_step: int  # updates made at the best evaluation
    stop: Stop
    carries: dict[str, Any]  # the last one of each callback
    signal: int = 0  # received during training, such as signal.SIGINT; 0 for none

    def __repr__(self) -> str:
        head = f"FitResult: {self.stop.value}; best evaluation after {self.best_step:,} steps"
        return "\n".join([head, *show.history_lines(self.history), f"  state  {self.state}"])


class NonFiniteError(ArithmeticError):
    """A loss or penalty was NaN or infinite.

    step: of that loss, counted from 0.
    indices: of its batch in `data.train`, int32 (batch_size,); None where `data.train` is an
      iterable of batches.
    state: at the last evaluation before it, whose loss was finite; else the first state.
    history: up to and including that step.
    """

    def __init__(
        self, step: int, indices: np.ndarray | None, state: TrainState, history: History
    ) -> None:
        self.step, self.indices, self.state, self.history = step, indices, state, history
        loss = float(history.train["loss"][-1])
        batch = "its batch" if indices is None else f"the examples {indices.tolist()}"
        super().__init__(
            f"fit: expected a finite loss, got {loss} at step {step} on "
            f"{batch} of data.train; the state of step {int(state.step)} is kept in "
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
    callbacks: Callbacks = NO_CALLBACKS,
    init: Start = None,
    store: Store | None = None,
    resume: bool = False,
    progress: shown.Progress = shown.auto,
    devices: Sequence[jax.Device] = (),
) -> FitResult:
    """Trains with live progress, early stopping, checkpoints and a clean end on Ctrl-C.

    On one device the parameters are bitwise identical to those of `run` with the same arguments,
    also after an interrupt and a resume, and with examples from the host, unless a callback changes
    them.

    Args:
      recipe, data, key, hyper, steps, batch_size, eval_every, eval_batch_size: as for `make_run`
        and `run`. Further calls with the same `recipe` function compile nothing. `data.train` may
        be a `fnn.data.Streamed`, whose examples stay on the host, or any iterable of at least
        `steps` batches (x, y) of `batch_size` examples, in its own order: a generator, a PyTorch
        DataLoader, a dataset of grain or TensorFlow. Tensors are converted. For several epochs pass
        `fnn.data.repeat(loader)`.
      eval_every: steps between evaluations, each of which saves a checkpoint. None evaluates and
        saves after the last step only (and at an interrupt, or a callback's stop): a process that
        is killed before then loses all.
      patience: evaluations without improvement after which to stop, which needs `eval_every`; None
        trains to the end. With patience the result has the best state, without it the last.
      min_delta: minimal decrease of the score that counts as an improvement.
      score: a pure function of the validation metrics, lower is better, such as
        `lambda valid: -valid['accuracy']`. It is called once before training, to check it.
      callbacks: folds over the events of the fit, by name, called after each chunk and evaluation;
        they may end the fit or change its state, and their carries are in the result.
      init: weights to start from (fine-tuning): parameters, a pair (params, model_state), or a
        TrainState, of which only these two are used. The optimizer's state is new and steps count
        from 0: to continue a run, `resume` it. None initializes all.
      store: keeps the log and the checkpoints: 'last' at each evaluation and at an early end,
        'best' at an evaluation with the best score; e.g. `RunDir('runs/a')`. None keeps nothing.
      resume: continue from the store's 'last', if it has one, with the same arguments; `steps` may
        be larger. An iterable must then have get_state and set_state, or state_dict and
        load_state_dict, and is trusted to continue exactly.
      progress: how to show progress; `silent` for nothing.
      devices: for data parallelism: each computes the gradient of an equal part of every batch,
        with the same parameters, and all make the same update. Computations across a batch, such
        as batch norm, see one part; each part has its own noise. On a CPU,
        `jax.config.update('jax_num_cpu_devices', cores)` before the first use of JAX makes each
        core a device. () for none.

    Raises: ValueError for what `check` finds, for weights in `init` that are not the model's, for a
      resume whose arguments differ from the stored ones, and for an iterable with too few batches
      or with a batch unlike the first; NonFiniteError for a loss or penalty that is NaN or
      infinite.

    >>> from fnn import Batch, Recipe, losses, models, nn, optim, schedules
    >>> def recipe(hyper):
    ...     return Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                   schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))
    >>> result = fit(recipe, data, key=jax.random.key(0), hyper={'lr': 0.3}, steps=50, batch_size=4,
    ...              progress=shown.silent)
    >>> result.stop.name, result.state.params['kernel'].round(2).tolist()
    ('DONE', [[3.0]])
    """
    if patience is not None and eval_every is None:
        raise ValueError(
            f"fit: expected eval_every beside patience={patience}, got None, which evaluates only "
            "after the last step; pass eval_every="
        )
    every = eval_every or steps
    expect_callbacks(callbacks)
    expect_known("fit", key, hyper)
    expect_store(store)
    if is_iterable(getattr(data, "train", None)):
        data = Data(train=open_loader(data.train, batch_size, steps), valid=data.valid)
    job = make_job(
        recipe, data, key=key, hyper=hyper, batch_size=batch_size, devices=devices, start=init
    )
    expect_score(score, job.metric_names(eval_batch_size))
    record = Record(store, fingerprint(job, eval_every=every), job.recorded_shapes())
    pace = Pace(_CHUNK_SECONDS, most_steps(job))

    def save(name: str, state: TrainState) -> None:
        record.save(name, state, at.stopping, at.carries, position(job.data.train))

    with interrupts() as interrupted, progress(steps) as show_report, ExitStack() as stack:
        at = _start(job, callbacks, record, resume)
        step = saved = int(at.state.step)
        if step > steps:
            raise ValueError(
                f"fit: expected steps of at least the {step} that the store holds, got {steps}; "
                "pass more, or start a new run in another store"
            )
        advance = stack.enter_context(chunks(job, step))
        while step < steps and at.should_continue(patience) and not interrupted():
            most = min(every - step % every, steps - step)
            try:
                state, recorded = pace.run(advance, at.state, most)
            except Exception:  # of a source: keep the steps trained before it
                if saved != step and not any(map(is_deleted, jax.tree.leaves(at.state))):
                    save("last", at.state)
                raise
            at, recorded = at._replace(state=state), _up_to_first_non_finite(recorded)
            event = record.steps(step, recorded)
            step += len(recorded[1]["loss"])
            if not _finite(recorded)[-1]:
                raise NonFiniteError(step - 1, _indices(job, step - 1), at.good, record.history())
            valid: dict[str, float] = {}
            if step % every == 0 or step == steps:
                valid = job.evaluate(state, eval_batch_size)
                record.evaluation(step, valid)
                at = _after_evaluation(at, step, score(valid), min_delta)
            if callbacks:
                event = event._replace(steps=steps, valid=dict(valid))
                state, carries, stopped = run_callbacks(callbacks, at.carries, at.state, event)
                at = at._replace(state=state, carries=carries, stopped=stopped)
            if valid:
                if at.stopping.best_step == step:
                    save("best", at.best)
                save("last", at.state)
                saved = step
            loss = float(recorded[1]["loss"][-1])
            show_report(shown.Report(step, steps, pace.rate, loss, record.latest_valid))
        if saved != step:  # ended between two evaluations
            save("last", at.state)

    restored = at.best if patience is not None and at.stopping.best_step else at.state
    stop = _reason(at, patience, step >= steps)
    return FitResult(
        restored, record.history(), at.stopping.best_step, stop, at.carries, interrupted()
    )


class _Position(NamedTuple):
    """The loop's own state."""

    state: TrainState
    good: TrainState  # at the last evaluation; the first state before it
    best: TrainState  # at the best evaluation; the first state before it
    stopping: EarlyStopping
    carries: Carries  # of the callbacks
    stopped: bool = False  # by a callback

    def should_continue(self, patience: int | None) -> bool:
        return not (self.stopped or self.stopping.exhausted(patience))


def _start(job: Job, callbacks: Callbacks, record: Record, resume: bool) -> _Position:
    """The first position, or the one in the store."""
    carries = {name: callback.init for name, callback in callbacks.items()}
    state, train = job.init(), job.data.train
    if not record.holds_a_run():
        record.begin(carries)
        if record.stores and isinstance(train, Loader):
            train.expect_position()
        first = copied(state)
        return _Position(state, first, first, EarlyStopping(), carries)
    if not resume:
        raise ValueError(
            "fit: expected an empty store, got one that holds a run; "
            "pass resume=True to go on with it, or give another store"
        )
    stored = record.resume(state)
    if isinstance(train, Loader):
        train.feed.seek(stored.position, int(stored.last.step))
    state, best = everywhere(job.devices, (stored.last, stored.best))
    carries |= {name: stored.carries[name] for name in carries.keys() & stored.carries.keys()}
    return _Position(state, copied(state), best, stored.stopping, carries)


def _after_evaluation(at: _Position, step: int, score: float, min_delta: float) -> _Position:
    """The position after an evaluation; its state is copied, since the next step overwrites it."""
    stopping, good = at.stopping.update(step, score, min_delta=min_delta), copied(at.state)
    best = good if stopping.best_step == step else at.best
    return at._replace(good=good, best=best, stopping=stopping)


def _reason(at: _Position, patience: int | None, done: bool) -> Stop:
    if at.stopping.exhausted(patience):
        return Stop.PATIENCE
    if at.stopped:
        return Stop.CALLBACK
    return Stop.DONE if done else Stop.INTERRUPTED


def _indices(job: Job, step: int) -> np.ndarray | None:
    """Indices of the examples of a step; None for an iterable."""
    if isinstance(job.data.train, Loader):
        return None
    return np.asarray(block_indices(job.keys, step, job.data.train, job.batch_size, 1))[0]


def _finite(recorded: Recorded) -> np.ndarray:
    """Which steps had a finite loss and penalty."""
    values = [v for name, v in recorded[1].items() if name in ("loss", "penalty")]
    return np.isfinite(np.stack(values)).all(axis=0)


def _up_to_first_non_finite(recorded: Recorded) -> Recorded:
    bad = np.flatnonzero(~_finite(recorded))
    return jax.tree.map(lambda a: a[: bad[0] + 1], recorded) if len(bad) else recorded
