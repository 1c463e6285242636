"""The host's loop around compiled chunks of the same step that `run` repeats."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import jax
import numpy as np

from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import progress as shown
from fnn.train._blocks import block_indices
from fnn.train._chunks import Pace, chunks, most_steps
from fnn.train._given import expect_known, expect_score, expect_store
from fnn.train._job import Job, make_job
from fnn.train._log import Record, Store, fingerprint
from fnn.train.callbacks import (
    NO_CALLBACKS,
    Callbacks,
    Carries,
    EarlyStopping,
    Event,
    expect_callbacks,
    see,
)
from fnn.train.devices import everywhere
from fnn.train.interrupt import interrupts
from fnn.train.loader import Loader, is_iterable, open_loader, position
from fnn.train.result import FitResult, NonFiniteError, Stop
from fnn.train.state import Start, copied
from fnn.types import Data, Hyper, PRNGKey, TrainState

# The progress line and an interrupt wait for the end of a chunk. On a CPU the temporary arrays of
# each are mapped anew: with chunks of a fifth of a second that took a tenth of a ResNet's time.
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
    init: Start = None,
    store: Store | None = None,
    resume: bool = False,
    progress: shown.Progress = shown.auto,
    devices: Sequence[jax.Device] = (),
) -> FitResult:
    """Train, with live progress, early stopping, checkpoints and a clean end on Ctrl-C.

    On one device the parameters are bitwise identical to those of `run` with the same arguments,
    also if the fit was interrupted and resumed in between, or its examples came from the host;
    unless a callback changes them.

    Args:
      recipe, data, key, hyper, steps, batch_size, eval_every, eval_batch_size: as for `make_run`
        and `run`. Calling `fit` again with the same `recipe` function compiles nothing anew.
        `data.train` may be a `fnn.data.Streamed`, whose examples stay on the host, or any iterable
        of at least `steps` batches (x, y) of `batch_size` examples in its own order: a generator, a
        DataLoader of PyTorch, a dataset of grain or TensorFlow. Tensors become arrays. For several
        epochs pass `fnn.data.repeat(loader)`.
      eval_every: steps between evaluations. With None there is one, after the last step, and
        nothing is saved before it, unless an interrupt or a callback ends the fit earlier: what is
        killed without a signal is lost.
      patience: evaluations without improvement after which to stop, which needs `eval_every`; None
        trains to the end. With patience the result holds the best state, without it the last.
      min_delta: how much lower a score must be to count as better.
      score: a pure function of the validation metrics, lower is better, such as
        `lambda valid: -valid['accuracy']`. It is called once before training, to check it.
      callbacks: folds over what the fit sees, by name, after each chunk and evaluation; they may
        end the fit or change its state, and what they carry is in the result.
      init: weights to start from, for fine-tuning: parameters, a pair (params, model_state), or a
        TrainState, of which only these two are taken. The optimizer's state is new and the steps
        count from 0 in each case; to go on with a run, `resume` it. None initializes all.
      store: where rows go, and checkpoints: 'last' at each evaluation and at an early end, 'best'
        at an evaluation with the best score; e.g. `RunDir('runs/a')`. None keeps nothing.
      resume: go on from the store's 'last', if it has one, with the same arguments; `steps` may be
        more. An iterable must then say its position by get_state and set_state, or state_dict and
        load_state_dict, and is trusted to go on from there exactly.
      progress: what to show; `silent` for nothing.
      devices: that share each batch and each evaluation (data parallelism): each computes the
        gradient of an equal part, with the same parameters, and all make the same update. What
        looks across a batch, such as batch norm, sees one part; each part has noise of its own.
        On a processor, `jax.config.update('jax_num_cpu_devices', cores)` before the first use of
        JAX makes each core a device. () for none.

    Raises: ValueError for what `check` finds, for weights in `init` that are not the model's, for a
      resume whose arguments differ from the stored ones, and for an iterable with too few batches
      or with a batch unlike the first; NonFiniteError for a loss or penalty that turns NaN or
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
    eval_every = steps if eval_every is None else eval_every
    expect_callbacks(callbacks)
    expect_known("fit", key, hyper)
    expect_store(store)
    if is_iterable(getattr(data, "train", None)):
        data = Data(train=open_loader(data.train, batch_size, steps), valid=data.valid)
    job = make_job(
        recipe,
        data,
        key=key,
        hyper=hyper,
        batch_size=batch_size,
        devices=devices,
        start=init,
    )
    expect_score(score, job.metric_names(eval_batch_size))
    record = Record(store, fingerprint(job, eval_every=eval_every), job.recorded_shapes())
    pace = Pace(_CHUNK_SECONDS, most_steps(job))

    with interrupts() as interrupted, progress(steps) as show, ExitStack() as stack:
        at = _start(job, callbacks, record, resume, steps)
        step = saved = int(at.state.step)
        if step > steps:
            raise ValueError(
                f"fit: expected steps of at least the {step} that the store holds, got {steps}; "
                "pass more, or start a new run in another store"
            )
        advance = stack.enter_context(chunks(job, step))
        while step < steps and at.should_continue(patience) and not interrupted():
            most = min(eval_every - step % eval_every, steps - step)
            try:
                state, recorded = pace.time(advance, at.state, most)
            except Exception:  # of a source: nothing that was trained before it is lost
                if saved != step and not any(a.is_deleted() for a in jax.tree.leaves(at.state)):
                    record.save("last", at.state, at.stopping, at.carries, position(job.data.train))
                raise
            at, recorded = at._replace(state=state), _up_to_first_non_finite(recorded)
            event = record.steps(step, recorded)
            step += len(recorded[1]["loss"])
            if not _finite(recorded)[-1]:
                raise NonFiniteError(step - 1, _indices(job, step - 1), at.good, record.history())
            valid: dict[str, float] = {}
            if step % eval_every == 0 or step == steps:
                valid = job.evaluate(state, eval_batch_size)
                record.evaluation(step, valid)
                at = _after_evaluation(at, step, score(valid), min_delta)
            at = _run_callbacks(at, callbacks, event._replace(steps=steps, valid=dict(valid)))
            if valid:
                if at.stopping.best_step == step:
                    record.save("best", at.best, at.stopping, at.carries, position(job.data.train))
                record.save("last", at.state, at.stopping, at.carries, position(job.data.train))
                saved = step
            loss = float(recorded[1]["loss"][-1])
            show(shown.Report(step, steps, pace.rate, loss, record.latest_valid))
        if saved != step:  # ended between two evaluations
            record.save("last", at.state, at.stopping, at.carries, position(job.data.train))

    restored = at.best if patience is not None and at.stopping.best_step else at.state
    stop = _reason(at, patience, step >= steps)
    return FitResult(
        restored, record.history(), at.stopping.best_step, stop, at.carries, interrupted()
    )


class _Position(NamedTuple):
    """Where a fit is."""

    state: TrainState
    good: TrainState  # at the last evaluation; the first state before it
    best: TrainState  # at the best evaluation; the first state before it
    stopping: EarlyStopping
    carries: Carries  # of the callbacks
    stopped: bool = False  # by a callback

    def should_continue(self, patience: int | None) -> bool:
        return not (self.stopped or self.stopping.exhausted(patience))


def _start(job: Job, callbacks: Callbacks, record: Record, resume: bool, steps: int) -> _Position:
    """The first position, or the one that the store holds."""
    carries = {name: callback.init for name, callback in callbacks.items()}
    state = job.init()
    if not record.holds_a_run():
        record.begin(carries)
        if record.stores and isinstance(job.data.train, Loader):
            job.data.train.expect_position()
        first = copied(state)
        return _Position(state, first, first, EarlyStopping(), carries)
    if not resume:
        raise ValueError(
            "fit: expected an empty store, got one that holds a run; "
            "pass resume=True to go on with it, or give another store"
        )
    state, best, stopping, kept, position = record.resume(state)
    if isinstance(job.data.train, Loader):
        job.data.train.seek(position, int(state.step))
    state, best = everywhere(job.devices, (state, best))
    carries |= {name: kept[name] for name in carries.keys() & kept.keys()}
    return _Position(state, copied(state), best, stopping, carries)


def _after_evaluation(at: _Position, step: int, score: float, min_delta: float) -> _Position:
    """The position after an evaluation; its state is copied, since the next step overwrites it."""
    stopping, good = at.stopping.see(step, score, min_delta=min_delta), copied(at.state)
    best = good if stopping.best_step == step else at.best
    return at._replace(good=good, best=best, stopping=stopping)


def _run_callbacks(at: _Position, callbacks: Callbacks, event: Event) -> _Position:
    """The position after the callbacks have seen a chunk, and the evaluation that ended it."""
    if not callbacks:
        return at
    state, carries, stopped = see(callbacks, at.carries, at.state, event)
    return at._replace(state=state, carries=carries, stopped=stopped)


def _reason(at: _Position, patience: int | None, done: bool) -> Stop:
    if at.stopping.exhausted(patience):
        return Stop.PATIENCE
    if at.stopped:
        return Stop.CALLBACK
    return Stop.DONE if done else Stop.INTERRUPTED


def _indices(job: Job, step: int) -> np.ndarray | None:
    """Of the examples that a step saw; None where only the iterable knows."""
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
