"""A fit of batches from any iterable: conversions, shapes, lengths, and exact resume."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import data as fnn_data
from fnn.checkpoint import RunDir
from fnn.data import Streamed, stream
from fnn.keys import run_keys
from fnn.train import Callback, NonFiniteError, fit, silent
from fnn.types import Data
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe


def batches(steps=STEPS, start=0):
    """The batches of the run, as NumPy arrays."""
    with stream(DATA.train, run_keys(KEY).order, BATCH, start) as source:
        for _ in range(steps):
            yield tuple(np.asarray(part) for part in next(source))


def fit_tiny(train, **changes):
    arguments = dict(
        key=KEY, hyper=HYPER, steps=STEPS, batch_size=BATCH, eval_every=EVERY, progress=silent
    )
    return fit(recipe, Data(train=train, valid=DATA.valid), **(arguments | changes))


@pytest.fixture(scope="module")
def whole():
    return fit_tiny(DATA.train)


class Tensor:
    """What looks like a tensor of TensorFlow: no JAX type, but an array to NumPy."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._array, dtype)


KINDS = {
    "generator": lambda: batches(),
    "list": lambda: list(batches()),
    "lists of two": lambda: (list(batch) for batch in batches()),
    "jax": lambda: ((jnp.asarray(x), jnp.asarray(y)) for x, y in batches()),
    "plain lists": lambda: ((x.tolist(), y.tolist()) for x, y in batches()),
    "tensors": lambda: ((Tensor(x), Tensor(y)) for x, y in batches()),
    "longer": lambda: batches(STEPS + 3),
}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_batches_give_the_same_bits(kind, whole):
    result = fit_tiny(KINDS[kind]())
    assert_same_bits(result.state, whole.state)
    assert_same_bits(result.history, whole.history)


def test_one_batch_is_read_for_each_step():
    source = batches(STEPS + 3)
    fit_tiny(source)
    assert len(list(source)) == 3


def test_epochs_by_repeat(whole):
    first = list(batches(3))
    result = fit_tiny(fnn_data.repeat(first), steps=7)
    expected = fit_tiny([first[i % 3] for i in range(7)], steps=7)
    assert_same_bits(result.state, expected.state)
    with pytest.raises(
        ValueError, match="data.repeat: expected batches in epoch 1, got none from g"
    ):
        fit_tiny(fnn_data.repeat(batches(3)), steps=7)


@pytest.mark.parametrize("n", [0, 1, 6])
@pytest.mark.parametrize("make", [list, iter])
def test_too_few_batches(n, make):
    with pytest.raises(ValueError, match=f"data.train: expected a batch for each of 7 steps, got {n} batches from .*repeat"):  # noqa: E501  # fmt: skip
        fit_tiny(make(list(batches(n))), steps=7)


def test_a_length_that_is_known_is_checked_before_training():
    read = []

    class Short:
        def __len__(self):
            return 6

        def __iter__(self):
            read.append(1)
            return batches(6)

    with pytest.raises(ValueError, match="each of 7 steps, got 6 batches from Short"):
        fit_tiny(Short(), steps=7)
    assert not read


def replaced(at, change):
    return (change(*b) if i == at else b for i, b in enumerate(batches()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:10], y[:10]), r"x: expected float32\[16,2\], got float32\[10,2\]"),
        (lambda x, y: (x, y.astype(np.float32)), r"y: expected int32\[16\], got float32\[16\]"),
        (lambda x, y: ({"a": x}, y), r"x/a: expected no such leaf"),
    ],
)
def test_a_batch_of_another_shape_is_named_with_its_step(change, message):
    with pytest.raises(ValueError, match=rf"(?s)the batch of step 5 and the first one .*{message}"):
        fit_tiny(replaced(5, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: x, r"expected a pair \(x, y\), got ndarray"),
        (lambda x, y: (x, y, y), r"expected a pair \(x, y\), got tuple"),
        (lambda x, y: {"x": x, "y": y}, r"expected a pair \(x, y\), got dict with \['x', 'y'\]"),
        (lambda x, y: (["a"] * 16, y), "expected arrays, tensors or lists of numbers, got list"),
        (lambda x, y: ([[1.0, 2.0], [1.0]], y), "expected arrays.*pad rows to one length"),
    ],
)
@pytest.mark.parametrize("at", [0, 5])
def test_what_is_no_batch_is_named_with_its_step(change, message, at):
    with pytest.raises(ValueError, match=f"data.train: the batch of step {at}: {message}"):
        fit_tiny(replaced(at, change))


@pytest.mark.parametrize("error", [OSError("the disk is gone"), None])
def test_what_was_trained_before_a_source_failed_is_in_the_store(tmp_path, error):
    def failing():
        yield from batches(EVERY + 2)
        if error is not None:
            raise error

    with pytest.warns(UserWarning, match="does not say its position"):
        with pytest.raises((OSError, ValueError), match="the disk is gone|got 7 batches"):
            fit_tiny(failing(), store=RunDir(tmp_path))
    expected = fit_tiny(batches(EVERY + 2), steps=EVERY + 2).state
    state, meta = RunDir(tmp_path).load("last", expected)
    assert meta["step"] == EVERY + 2
    assert_same_bits(state, expected)


def test_another_batch_size():
    with pytest.raises(ValueError, match="batch_size: expected that of the batches .*, 16, got 8"):
        fit_tiny(batches(), batch_size=8)


def test_the_first_batch_is_checked_before_training():
    with pytest.raises(ValueError, match="data.train.y: expected labels in"):
        fit_tiny(replaced(0, lambda x, y: (x, y + 2)))


def test_a_loss_that_is_not_finite_names_the_step():
    with pytest.raises(NonFiniteError, match="at step 6 on its batch of data.train") as caught:
        fit_tiny(replaced(6, lambda x, y: (x * np.float32(np.inf), y)))
    assert caught.value.indices is None


class Positioned:
    """Batches that say where they are, as those of grain do."""

    def __init__(self, form=lambda at: {"at": at}, back=lambda position: position["at"]):
        self._at, self._form, self._back = 0, form, back

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(batches(1, self._at))
        self._at += 1
        return batch

    def get_state(self):
        return self._form(self._at)

    def set_state(self, position):
        self._at = self._back(position)


class Stateful:
    """An iterable whose position is its own, as that of a StatefulDataLoader is."""

    def __init__(self):
        self._at = 0

    def __iter__(self):
        while True:
            self._at += 1
            yield next(batches(1, self._at - 1))

    def state_dict(self):
        return {"at": self._at}

    def load_state_dict(self, state):
        self._at = state["at"]


SOURCES = {
    "get_state": Positioned,
    "bytes": lambda: Positioned(lambda at: b"%d" % at, int),
    "state_dict": Stateful,
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("at", [1, EVERY, EVERY + 2])
def test_it_resumes_exactly_where_the_source_says_its_position(tmp_path, whole, name, at):
    stop = Callback(lambda fold, event: fold._replace(stop=event.step >= at))
    store = RunDir(tmp_path)
    ended = fit_tiny(SOURCES[name](), callbacks={"stop": stop}, store=store)
    assert ended.state.step < STEPS
    resumed = fit_tiny(SOURCES[name](), store=store, resume=True)
    assert_same_bits(resumed.state, whole.state)
    assert_same_bits(resumed.history, whole.history)


def test_a_source_without_a_position_warns_at_the_start_and_refuses_to_resume(tmp_path):
    store = RunDir(tmp_path)
    with pytest.warns(UserWarning, match="data.train .generator. does not say its position"):
        fit_tiny(batches(), steps=EVERY, store=store)
    with pytest.raises(ValueError, match=f"position, to resume at step {EVERY}, got generator"):
        fit_tiny(batches(), store=store, resume=True)


def test_a_position_that_cannot_be_kept_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="expected a position of data.train that is JSON or bytes"):
        fit_tiny(Positioned(form=lambda at: {1, 2}), store=RunDir(tmp_path))


class Column:
    """A column of Hugging Face datasets: a length and rows, no shape."""

    def __init__(self, array, at_once=True):
        self._array, self._at_once = array, at_once

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        if not self._at_once and not isinstance(rows, int):
            raise TypeError("indices must be integers")
        assert isinstance(rows, (int, list))
        return self._array[rows].tolist()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("make", [lambda a: a.tolist(), Column, lambda a: Column(a, at_once=False)])
def test_streamed_takes_lists_and_columns(whole, make):
    result = fit_tiny(Streamed(*map(make, DATA.train)))
    assert_same_bits(result.state, whole.state)
    key = run_keys(KEY).order
    with (
        stream(tuple(map(make, DATA.train)), key, BATCH) as ours,
        stream(DATA.train, key, BATCH) as expected,
    ):
        assert_same_bits(next(ours), tuple(next(expected)))


@pytest.mark.parametrize("rows", [["a", "b"], [[1], [1, 2]]])
def test_streamed_refuses_rows_that_are_no_numbers(rows):
    with pytest.raises(ValueError, match="Streamed.x: expected arrays, tensors or lists of numb"):
        Streamed(rows, [0, 1])


def test_streamed_is_still_a_pair_and_a_pytree():
    pair = Streamed(np.ones((3, 2)), [0, 1, 2])
    assert isinstance(jax.tree.map(lambda a: a[:2], pair), Streamed)
    assert pair.y.shape == pair[1].shape == (3,)


def test_no_warning_where_nothing_is_stored():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_tiny(batches(), steps=2)
