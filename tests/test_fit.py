import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, nn, optim, schedules
from fnn.checkpoint import RunDir
from fnn.keys import run_keys
from fnn.order import order
from fnn.recipe import Recipe
from fnn.train import NonFiniteError, Stop, fit, make_run, silent
from fnn.train.callbacks import EarlyStopping
from fnn.train.progress import lines
from fnn.types import Batch, Data
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe


def fit_tiny(**changes):
    arguments = dict(
        key=KEY,
        hyper=HYPER,
        steps=STEPS,
        batch_size=BATCH,
        eval_every=EVERY,
        eval_batch_size=8,
        progress=silent,
    )
    return fit(recipe, DATA, **(arguments | changes))


@pytest.fixture(scope="module")
def whole():
    return fit_tiny()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("eval_every", [1, EVERY, STEPS])
def test_fit_and_run_give_the_same_bits(eval_every):
    run = make_run(recipe, steps=STEPS, batch_size=BATCH, eval_every=eval_every, eval_batch_size=8)
    state, history = jax.jit(run)(KEY, HYPER, DATA)
    result = fit_tiny(eval_every=eval_every)
    assert_same_bits(state, result.state)
    assert_same_bits(history.train, result.history.train)
    np.testing.assert_array_equal(history.eval_steps, result.history.eval_steps)
    for name in history.valid:
        np.testing.assert_allclose(history.valid[name], result.history.valid[name], rtol=1e-6)
    assert result.stop is Stop.DONE


@pytest.mark.slow
def test_a_second_fit_of_the_same_recipe_compiles_nothing():
    traces = []

    def counting(hyper):
        traces.append(1)
        return recipe(hyper)

    arguments = dict(key=KEY, hyper=HYPER, batch_size=BATCH, progress=silent)
    fit(counting, DATA, steps=7, eval_every=3, **arguments)
    first = len(traces)
    fit(counting, DATA, steps=9, eval_every=4, **arguments)
    checks = 6  # `check` builds the recipe again: for init, step, and both sets twice
    assert len(traces) - first <= checks


def test_patience_stops_and_restores_the_best_weights():
    scores = iter([0.0, 3.0, 1.0, 2.0, 1.5, 0.0])  # the first call checks it
    result = fit_tiny(patience=2, score=lambda valid: next(scores))
    assert result.stop is Stop.PATIENCE
    assert result.best_step == 2 * EVERY and result.state.step == 2 * EVERY
    assert result.history.train["loss"].shape == (4 * EVERY,)
    assert_same_bits(result.state, fit_tiny(steps=2 * EVERY).state)


def test_min_delta_is_how_much_better_counts():
    state = EarlyStopping()
    for step, score in enumerate([1.0, 0.95, 0.93], start=1):
        state = state.update(step, score, min_delta=0.1)
    assert (state.best_step, state.since_best) == (1, 2)
    assert state.exhausted(2) and not state.exhausted(3) and not state.exhausted(None)


def test_early_stopping_never_takes_nan_for_the_best():
    state = EarlyStopping().update(1, float("nan"))
    assert (state.best_step, state.since_best) == (0, 1)
    assert state.update(2, 5.0).best_step == 2


def test_a_run_directory_holds_log_and_checkpoints(tmp_path, whole):
    store = RunDir(tmp_path / "a" / "b")
    result = fit_tiny(store=store)
    last, meta = store.load("last", result.state)
    assert_same_bits(last, whole.state)
    assert meta["step"] == STEPS
    best, meta = store.load("best", result.state)
    assert meta["step"] == int(best.step) == result.best_step
    rows = store.rows(up_to_step=STEPS)
    losses = [row["loss"] for row in rows if "loss" in row]
    np.testing.assert_array_equal(np.float32(losses), whole.history.train["loss"])
    assert [row["step"] for row in rows if "valid" in row] == [4, 9, 14, 19, 21]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("stopped_at", [1, EVERY, EVERY + 2, 2 * EVERY, STEPS - 1])
def test_resumed_is_bit_equal_to_uninterrupted(tmp_path, whole, stopped_at):
    store = RunDir(tmp_path)
    stop_at_step(stopped_at, store)
    resumed = fit_tiny(store=store, resume=True)
    assert resumed.stop is Stop.DONE
    assert_same_bits(resumed.state, whole.state)
    assert_same_bits(resumed.history, whole.history)
    assert resumed.best_step == whole.best_step


def stop_at_step(step: int, store: RunDir) -> None:
    """A fit that gets a SIGTERM as soon as it has reported `step` or more updates."""

    @contextmanager
    def terminate(steps):
        def show(report):
            if report.step >= step:
                os.kill(os.getpid(), signal.SIGTERM)

        yield show

    result = fit_tiny(store=store, progress=terminate)
    assert result.stop is (Stop.INTERRUPTED if result.state.step < STEPS else Stop.DONE)


def test_resume_continues_the_patience_that_was_spent(tmp_path):
    store = RunDir(tmp_path)
    scores = iter([0.0, 1.0, 2.0, 3.0, 4.0])  # the first call checks it
    score = lambda valid: next(scores)  # noqa: E731
    fit_tiny(steps=2 * EVERY, store=store, score=score)
    result = fit_tiny(store=store, resume=True, patience=2, score=score)
    assert result.stop is Stop.PATIENCE and result.best_step == EVERY
    assert result.state.step == EVERY
    assert result.history.train["loss"].shape == (3 * EVERY,)


def test_resume_refuses_other_arguments(tmp_path):
    store = RunDir(tmp_path)
    fit_tiny(steps=EVERY, store=store)
    with pytest.raises(ValueError, match=r"hyper: expected .*0\.02.*got .*0\.5"):
        fit_tiny(store=store, resume=True, hyper=HYPER | {"lr": 0.5})
    with pytest.raises(ValueError, match="batch_size: expected 16, got 8"):
        fit_tiny(store=store, resume=True, batch_size=8)


def test_a_store_that_holds_a_run_is_not_overwritten(tmp_path):
    store = RunDir(tmp_path)
    fit_tiny(steps=EVERY, store=store)
    with pytest.raises(ValueError, match="pass resume=True"):
        fit_tiny(store=store)


@pytest.mark.slow
def test_a_signal_while_the_progress_is_shown_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["fnn.train._chunks"], "_MOST_STEPS", 1)  # so all are shown

    @contextmanager
    def interrupting(steps):
        def show(report):
            if report.step == EVERY + 2:
                signal.raise_signal(signal.SIGINT)

        yield show

    store = RunDir(tmp_path)
    result = fit_tiny(store=store, progress=interrupting)
    _, meta = store.load("last", result.state)
    assert result.stop is Stop.INTERRUPTED
    assert meta["step"] == int(result.state.step) == EVERY + 2


def test_the_loss_comes_first_in_what_is_shown(capsys):
    fit_tiny(progress=lines)
    assert "| valid loss " in capsys.readouterr().out


def test_signal_handlers_are_put_back(whole):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit_tiny(steps=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_fit_works_outside_the_main_thread(whole):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit_tiny()))
    thread.start()
    thread.join()
    assert_same_bits(results[0].state, whole.state)


ENDLESS = """
import sys
from tests.tiny import *
from fnn.checkpoint import RunDir
from fnn.train import exit_code, fit
result = fit(recipe, DATA, key=KEY, hyper=HYPER, steps=10**9, batch_size=16, eval_every=1000,
             store=RunDir(sys.argv[1]))
print("ended", result.stop.name, int(result.state.step))
sys.exit(exit_code(result))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_fit_cleanly_with_everything_saved(tmp_path, number, whole):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    name, step = output.splitlines()[-1].split()[1:]
    assert name == "INTERRUPTED"
    state, meta = RunDir(tmp_path).load("last", whole.state)
    assert meta["step"] == int(state.step) == int(step)
    rows = RunDir(tmp_path).rows(up_to_step=meta["step"])
    assert [row["step"] for row in rows if "loss" in row] == list(range(meta["step"]))


def exploding(hyper):
    """A linear model on a bad example: x is so large in one row that the loss overflows."""
    return Recipe(
        model=nn.linear(1),
        loss=losses.mean_squared_error,
        optimizer=optim.sgd(),
        schedule=schedules.constant(hyper["lr"]),
    )


def bad_data(at: int) -> Data:
    x = np.ones((40, 1), np.float32)
    x[at] = 1e30
    good = Batch(np.ones((4, 1), np.float32), np.ones((4, 1), np.float32))
    return Data(train=Batch(x, np.ones((40, 1), np.float32)), valid=good)


def test_a_non_finite_loss_stops_with_step_indices_and_the_last_good_state(tmp_path):
    indices = np.asarray(jax.vmap(lambda s: order(run_keys(KEY).order, s, 40, 4))(jnp.arange(10)))
    at = int(indices[7, 2])  # an example that the first epoch reaches in step 7
    store = RunDir(tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        fit(
            exploding,
            bad_data(at),
            key=KEY,
            hyper={"lr": 0.01},
            steps=40,
            batch_size=4,
            eval_every=3,
            store=store,
            progress=silent,
        )
    error = caught.value
    assert error.step == 7
    np.testing.assert_array_equal(error.indices, indices[7])
    assert error.state.step == 6 and np.isfinite(error.state.params["kernel"]).all()
    kept, meta = store.load("last", error.state)
    assert meta["step"] == 6
    assert_same_bits(kept, error.state)
    assert error.history.train["loss"].shape == (8,)
    rows = store.rows(up_to_step=100)
    assert rows[-1]["step"] == 7 and rows[-1]["loss"] is None
    assert str(at) in str(error) and "step 7" in str(error)


def test_an_error_in_the_first_interval_keeps_the_first_state():
    at = int(np.asarray(order(run_keys(KEY).order, 1, 40, 4))[0])
    with pytest.raises(NonFiniteError) as caught:
        fit(
            exploding,
            bad_data(at),
            key=KEY,
            hyper={"lr": 0.01},
            steps=9,
            batch_size=4,
            progress=silent,
        )
    assert caught.value.state.step == 0
    assert np.isfinite(caught.value.state.params["kernel"]).all()
