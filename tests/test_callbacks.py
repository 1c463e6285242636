"""Callbacks are folds: what they return is all that they do."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.checkpoint import RunDir
from fnn.diagnose import profile
from fnn.train import Callback, Event, Fold, Stop, fit, silent
from fnn.train._chunks import Pace
from fnn.train._log import Record
from fnn.train.callbacks import EarlyStopping, expect_callbacks, run_callbacks
from fnn.types import TrainState
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe

NO_STATE = TrainState(step=jnp.int32(0), params={}, model_state=(), opt_state={})


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


def gather(fold, event):
    """All losses that the events showed, and the steps of the evaluations."""
    losses = fold.carry["losses"] + event.train["loss"].tolist()
    evals = fold.carry["evals"] + [event.step] * bool(event.valid)
    return fold._replace(carry={"losses": losses, "evals": evals})


GATHER = Callback(gather, init={"losses": [], "evals": []})


@pytest.mark.slow
def test_a_callback_that_changes_nothing_leaves_the_bits_and_sees_every_step_once(whole):
    result = fit_tiny(callbacks={"gather": GATHER})
    assert_same_bits(result.state, whole.state)
    carry = result.carries["gather"]
    np.testing.assert_array_equal(np.float32(carry["losses"]), whole.history.train["loss"])
    assert carry["evals"] == whole.history.eval_steps.tolist()
    assert GATHER.init == {"losses": [], "evals": []} and whole.carries == {}


@pytest.mark.slow
def test_an_event_holds_the_evaluation_the_history_and_the_state():
    seen = []

    def look(fold, event):
        seen.append((event, int(fold.state.step), event.history))
        return fold

    fit_tiny(callbacks={"look": Callback(look)})
    for event, step, history in seen:
        assert event.step == step == len(history.train["loss"]) and event.steps == STEPS
        np.testing.assert_array_equal(
            history.train["loss"][-len(event.train["loss"]) :], event.train["loss"]
        )
        assert (step in (5, 10, 15, 20, 22)) == bool(event.valid)
        if event.valid:
            assert list(event.valid) == ["loss", "accuracy"]
            assert np.float32(event.valid["loss"]) == history.valid["loss"][-1]


def stop_at(step):
    return Callback(
        lambda fold, event: fold._replace(stop=event.step >= step and bool(event.valid))
    )


def test_a_callback_ends_the_fit_by_what_it_returns(tmp_path, whole):
    store = RunDir(tmp_path)
    result = fit_tiny(callbacks={"a": stop_at(2 * EVERY), "b": GATHER}, store=store)
    assert result.stop is Stop.CALLBACK and result.state.step == 2 * EVERY
    assert len(result.carries["b"]["losses"]) == 2 * EVERY  # the later ones have seen it too
    resumed = fit_tiny(callbacks={"b": GATHER}, store=store, resume=True)
    assert_same_bits(resumed.state, whole.state)
    np.testing.assert_array_equal(
        np.float32(resumed.carries["b"]["losses"]), whole.history.train["loss"]
    )


def test_a_callback_may_end_the_fit_between_two_evaluations(tmp_path):
    end = Callback(lambda fold, event: fold._replace(stop=True))
    store = RunDir(tmp_path)
    result = fit_tiny(callbacks={"end": end}, store=store)
    assert result.stop is Stop.CALLBACK and result.state.step == 1
    assert store.load("last", result.state)[1]["step"] == 1


def test_with_patience_the_best_state_is_returned_when_a_callback_ends_the_fit(whole):
    scores = iter([0.0, 1.0, 2.0])  # the first call checks it
    result = fit_tiny(
        callbacks={"a": stop_at(2 * EVERY)}, patience=5, score=lambda valid: next(scores)
    )
    assert result.stop is Stop.CALLBACK and result.state.step == result.best_step == EVERY


def clip(fold, event):
    """Weights that have grown too large are cut, at the evaluations."""
    if not event.valid:
        return fold
    cut = jax.tree.map(lambda p: jnp.clip(p, -0.125, 0.125), fold.state.params)
    return fold._replace(state=_with(fold.state, params=cut))


def _with(state, **changes):
    return type(state)(**({k: getattr(state, k) for k in state.__dataclass_fields__} | changes))


def test_a_callback_changes_the_state_that_the_fit_goes_on_with(tmp_path, whole):
    store = RunDir(tmp_path)
    result = fit_tiny(callbacks={"clip": Callback(clip)}, store=store)
    assert max(float(jnp.abs(p).max()) for p in jax.tree.leaves(result.state.params)) <= 0.125
    first, other = whole.history.train["loss"], result.history.train["loss"]
    np.testing.assert_array_equal(first[:EVERY], other[:EVERY])
    assert (first[EVERY:] != other[EVERY:]).all()
    assert_same_bits(store.load("last", result.state)[0], result.state)  # as it was left, not found


def test_a_fit_with_a_changing_callback_resumes_bit_for_bit(tmp_path):
    callbacks = {"clip": Callback(clip), "gather": GATHER}
    uninterrupted = fit_tiny(callbacks=callbacks)

    def kill(fold, event):
        if event.step >= EVERY + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return fold

    store = RunDir(tmp_path)
    assert fit_tiny(callbacks=callbacks | {"kill": Callback(kill)}, store=store).stop in Stop
    resumed = fit_tiny(callbacks=callbacks, store=store, resume=True)
    assert_same_bits(resumed.state, uninterrupted.state)
    assert_same_bits(resumed.history, uninterrupted.history)
    assert resumed.carries == uninterrupted.carries


def test_later_callbacks_see_what_earlier_ones_returned():
    event = Event(step=1, steps=2, train={}, train_steps={}, valid={}, read_history=dict)
    state = fit_tiny(steps=1).state
    order = []
    double = Callback(
        lambda f, e: f._replace(
            state=_with(f.state, params=jax.tree.map(lambda p: 2 * p, f.state.params)),
            carry=f.carry + 1,
        ),
        init=0,
    )
    watch = Callback(lambda f, e: order.append(f.state) or f)
    after, carries, stop = run_callbacks(
        {"d": double, "w": watch}, {"d": 3, "w": None}, state, event
    )
    assert carries == {"d": 4, "w": None} and not stop
    assert_same_bits(after, order[0])
    assert_same_bits(after.params, jax.tree.map(lambda p: 2 * p, state.params))
    assert jnp.abs(state.params["head"]["kernel"]).max() > 0


def test_leaves_that_share_a_buffer_survive_the_donation():
    def share(fold, event):
        zeros = {}  # one array for all leaves of a shape
        params = jax.tree.map(lambda p: zeros.setdefault(p.shape, 0 * p), fold.state.params)
        return fold._replace(state=_with(fold.state, params=params))

    assert fit_tiny(steps=3, callbacks={"share": Callback(share)}).state.step == 3


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda f, e: None, "expected a Fold .* got NoneType; return fold._replace"),
        (
            lambda f, e: f._replace(state=_with(f.state, step=f.state.step + 1)),
            "the step to stay 1",
        ),
        (lambda f, e: f._replace(state=_with(f.state, params={})), "head/bias: expected .*no such"),
    ],
)
def test_a_state_that_the_fit_cannot_go_on_with_is_refused(update, message):
    with pytest.raises(ValueError, match=rf"(?s)callbacks\['bad'\]: .*{message}"):
        fit_tiny(callbacks={"bad": Callback(update)})


def test_a_bare_function_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match="wrap its function in Callback"):
        expect_callbacks({"bare": gather})


def test_a_carry_that_is_no_json_needs_a_fit_without_a_store(tmp_path):
    keeps = Callback(lambda f, e: f._replace(carry=np.float32(1)), init=None)
    assert fit_tiny(steps=1, callbacks={"k": keeps}).carries["k"] == 1
    with pytest.raises(ValueError, match=r"callbacks\['k'\]: expected a carry of JSON.*float32"):
        fit_tiny(callbacks={"k": keeps}, store=RunDir(tmp_path))


def test_rows_of_a_run_that_was_killed_before_its_first_checkpoint_are_dropped(tmp_path, whole):
    store = RunDir(tmp_path)
    store.log([{"step": i, "loss": 9.0} for i in range(3)])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')  # torn by the kill
    fit_tiny(store=store)
    rows = [row for row in store.rows(up_to_step=STEPS) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(STEPS))
    np.testing.assert_array_equal(
        np.float32([row["loss"] for row in rows]), whole.history.train["loss"]
    )


def test_what_is_not_finite_survives_a_resume_as_nan(tmp_path):
    shapes = {1: {name: jax.ShapeDtypeStruct((), jnp.float32) for name in ("loss", "grad_norm")}}
    record = Record(RunDir(tmp_path), {}, shapes)
    record.begin({})
    record.steps(0, {1: {"loss": np.float32([1.0]), "grad_norm": np.float32([np.inf])}})
    record.evaluation(1, {"loss": 1.0, "f1": float("nan")})
    record.save("last", _with(NO_STATE, step=jnp.int32(1)), EarlyStopping(), {})
    again = Record(RunDir(tmp_path), {}, shapes)
    again.resume(NO_STATE)
    assert again.history().valid["loss"].tolist() == [1.0]
    assert np.isnan(again.history().valid["f1"]).tolist() == [True]
    assert np.isnan(again.history().train["grad_norm"]).tolist() == [True]


def test_a_profile_of_a_few_chunks_leaves_a_trace_and_the_bits(tmp_path, whole):
    with profile(tmp_path / "trace", skip=1, chunks=1) as recording:
        result = fit_tiny(callbacks={"profile": recording})
    assert_same_bits(result.state, whole.state)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_a_profile_ends_with_its_context_when_the_fit_is_short(tmp_path):
    with profile(tmp_path, skip=1, chunks=1000) as recording:
        fit_tiny(steps=2, callbacks={"profile": recording})
    assert list(tmp_path.rglob("*.xplane.pb"))
    jax.profiler.start_trace(str(tmp_path / "again"))  # raises where another one is under way
    jax.profiler.stop_trace()


class Clock:
    """A machine whose steps take so long."""

    def __init__(self, step_seconds, first_seconds=5.0):
        self.now, self.lengths = 0.0, []
        self.step_seconds, self.first_seconds = step_seconds, first_seconds

    def advance(self, state, steps):
        self.lengths.append(steps)
        self.now += steps * self.step_seconds + (self.first_seconds if not self.lengths[1:] else 0)
        return state, {1: {"loss": np.zeros(steps, np.float32)}}

    def run(self, chunks, most=10**9, longest=4096):
        pace = Pace(0.2, longest, clock=lambda: self.now)
        for _ in range(chunks):
            pace.run(self.advance, NO_STATE, most)
        return pace


@pytest.mark.parametrize("step_seconds", [2**-10, 2**-7, 2**-4])  # exact, as the sums are then
def test_chunks_come_to_a_fifth_of_a_second(step_seconds):
    clock = Clock(step_seconds)
    pace = clock.run(8)
    assert pace.rate == 1 / step_seconds
    assert clock.lengths[-1] == int(0.2 / step_seconds)


def test_the_compilers_time_is_not_taken_for_the_steps():
    clock = Clock(2**-10, first_seconds=100.0)
    clock.run(4)
    assert clock.lengths == [1, 1, 16, 204]
    assert Clock(2**-10).run(1).rate == 0


@pytest.mark.parametrize("step_seconds", [0.21, 3.0])
def test_steps_slower_than_a_chunk_go_one_by_one(step_seconds):
    clock = Clock(step_seconds)
    assert clock.run(5).rate > 0
    assert clock.lengths == [1] * 5


def test_no_chunk_is_longer_than_asked_nor_than_the_longest():
    clock = Clock(1e-7)
    clock.run(6, most=50)
    assert max(clock.lengths) == 50
    clock = Clock(1e-7)
    clock.run(8, longest=300)
    assert max(clock.lengths) == 300


def test_a_machine_that_slows_down_gets_shorter_chunks():
    clock = Clock(2**-10)
    pace = clock.run(5)
    clock.step_seconds = 2**-4
    for _ in range(2):
        pace.run(clock.advance, NO_STATE, 10**9)
    assert clock.lengths[-2:] == [204, 3]


def test_a_fold_stops_by_the_word_of_any_callback():
    event = Event(step=1, steps=2, train={}, train_steps={}, valid={}, read_history=dict)
    stop, go = Callback(lambda f, e: f._replace(stop=True)), Callback(lambda f, e: f)
    assert run_callbacks({"a": stop, "b": go}, {"a": None, "b": None}, NO_STATE, event)[2]
    assert Fold(NO_STATE, None).stop is False
