"""A fit of examples that stay on the host is the fit of the same examples on the device."""

import threading

import numpy as np
import pytest

from fnn.checkpoint import RunDir
from fnn.data import Streamed
from fnn.keys import run_keys
from fnn.train import Callback, NonFiniteError, Stop, fit, silent
from fnn.train._source import first_batch
from fnn.types import Data
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("fnn.data.stream")]


def fit_tiny(data, **changes):
    arguments = dict(
        key=KEY, hyper=HYPER, steps=STEPS, batch_size=BATCH, eval_every=EVERY, progress=silent
    )
    return fit(recipe, data, **(arguments | changes))


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, part in DATA.train._asdict().items():
        np.save(folder / f"{name}.npy", part)
    mapped = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "y"))
    return Data(train=Streamed(*mapped), valid=DATA.valid)


@pytest.fixture(scope="module")
def in_memory():
    return fit_tiny(DATA)


@pytest.mark.slow
def test_it_gives_the_bits_of_the_arrays_on_the_device(on_disk, in_memory):
    result = fit_tiny(on_disk)
    assert_same_bits(result.state, in_memory.state)
    assert_same_bits(result.history, in_memory.history)
    assert result.stop is Stop.DONE and result.best_step == in_memory.best_step


@pytest.mark.sampled(4)
@pytest.mark.parametrize("at", [1, EVERY + 1, 2 * EVERY])
def test_it_resumes_bit_for_bit_also_on_the_device(tmp_path, on_disk, in_memory, at):
    stop = Callback(lambda fold, event: fold._replace(stop=event.step >= at))
    store = RunDir(tmp_path)
    fit_tiny(on_disk, callbacks={"stop": stop}, store=store)
    resumed = fit_tiny(on_disk if at > 1 else DATA, store=store, resume=True)
    assert_same_bits(resumed.state, in_memory.state)
    assert_same_bits(resumed.history, in_memory.history)


def test_examples_are_read_batch_by_batch(in_memory):
    most = []

    class Watched:
        """An array that notes how many rows are asked for at once."""

        def __init__(self, array):
            self.array, self.shape, self.dtype = array, array.shape, array.dtype
            self.ndim = array.ndim

        def __getitem__(self, rows):
            most.append(len(self.array[rows]))
            return self.array[rows]

    train = Streamed(*(Watched(part) for part in DATA.train))
    result = fit_tiny(Data(train=train, valid=DATA.valid))
    assert_same_bits(result.state, in_memory.state)
    assert max(most) <= BATCH


def test_an_error_of_a_step_ends_the_thread_and_names_the_examples():
    x = np.array(DATA.train.x)
    x[30:] = np.inf  # not in the first batch, which is looked at beforehand
    with pytest.raises(NonFiniteError) as caught:
        fit_tiny(Data(train=Streamed(x, DATA.train.y), valid=DATA.valid))
    assert max(caught.value.indices) >= 30


def test_what_can_be_known_of_the_first_batch_is_checked_before_training():
    bad = Streamed(DATA.train.x, DATA.train.y[:-1])
    with pytest.raises(ValueError, match="same number of examples, got .49, 50."):
        fit_tiny(Data(train=bad, valid=DATA.valid))
    nan = Streamed(np.full_like(DATA.train.x, np.nan), DATA.train.y)
    with pytest.raises(ValueError, match="data.train.x: expected finite numbers"):
        fit_tiny(Data(train=nan, valid=DATA.valid))
    few = Streamed(DATA.train.x[:9], DATA.train.y[:9])
    with pytest.raises(ValueError, match="batch_size: expected at most the 9 examples"):
        fit_tiny(Data(train=few, valid=DATA.valid))


def test_the_first_batch_of_a_source_is_that_of_the_arrays(on_disk):
    order = run_keys(KEY).order
    assert_same_bits(
        first_batch(on_disk.train, order, BATCH), first_batch(DATA.train, order, BATCH)
    )
