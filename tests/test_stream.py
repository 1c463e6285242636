"""Batches from the host: those of a run, for any hosts, from any step, and no thread left."""

import gc
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.data import stream
from fnn.expect import spec
from fnn.keys import run_keys
from fnn.order import order
from fnn.train import make_init, make_run, make_step
from fnn.train._source import upcoming
from fnn.tree import stack
from fnn.types import Batch
from tests.tiny import BATCH, DATA, HYPER, KEY, STEPS, assert_same_bits, recipe

N = 23
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
DATASET = Batch(X, {"label": np.arange(N), "name": (np.arange(N) * 7).astype(np.uint8)})
of_step = jax.jit(lambda step: order(KEY, step, N, 6))


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not threads()


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("fnn.data.stream")]


def first(count, *args, **kwargs):
    with stream(*args, **kwargs) as batches:
        return list(itertools.islice(batches, count))


def memory_mapped(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


class RisingOnly:
    """Indexed as h5py's datasets are: by rows that rise, each once."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, rows):
        assert (np.diff(rows) > 0).all()
        return self.array[rows]


@pytest.mark.slow
def test_a_loop_of_steps_over_a_stream_repeats_a_run_bit_for_bit():
    result = jax.jit(make_run(recipe, steps=STEPS, batch_size=BATCH))(KEY, HYPER, DATA)
    keys, step = run_keys(KEY), jax.jit(make_step(recipe), donate_argnums=0)
    state = jax.jit(make_init(recipe))(keys.init, HYPER, DATA.train.x[:BATCH])
    rows = []
    with stream(DATA.train, keys.order, BATCH) as batches:
        for batch in itertools.islice(batches, STEPS):
            state, metrics = step(state, batch, keys.noise, HYPER)
            rows.append(metrics)
    assert_same_bits(state, result[0])
    assert_same_bits(stack(rows), result[1].train)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["memory", "memory-mapped", "rising rows", "device"])
def test_batches_are_those_of_indexing_in_a_compiled_step(tmp_path, kind):
    source = {
        "memory": lambda: X,
        "memory-mapped": lambda: memory_mapped(tmp_path, X),
        "rising rows": lambda: RisingOnly(X),
        "device": lambda: jnp.asarray(X),
    }[kind]()
    held = jax.tree.map(jnp.asarray, DATASET)
    indexed = jax.jit(lambda step: jax.tree.map(lambda a: a[order(KEY, step, N, 6)], held))
    for step, batch in enumerate(first(9, DATASET._replace(x=source), KEY, 6)):
        assert type(batch) is Batch
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch))
        expected = indexed(jnp.int32(step))
        assert_same_bits(batch, expected)
        assert jax.tree.map(spec, batch) == jax.tree.map(spec, expected)


@pytest.mark.parametrize("hosts", [1, 2, 3, 6])
def test_the_hosts_together_have_the_batch(hosts):
    whole = first(5, X, KEY, 6)
    parts = [first(5, X, KEY, 6, hosts=hosts, host=host) for host in range(hosts)]
    for step in range(5):
        rows = [part[step] for part in parts]
        assert {len(r) for r in rows} == {6 // hosts}
        np.testing.assert_array_equal(np.concatenate(rows), whole[step])


@pytest.mark.parametrize("start_step", [1, 4, 1_000_003])
def test_a_stream_may_start_at_any_step(start_step):
    for i, batch in enumerate(first(3, np.arange(N), KEY, 6, start_step=start_step)):
        np.testing.assert_array_equal(batch, of_step(jnp.int32(start_step + i)))


@pytest.mark.parametrize(("ahead", "at_once"), [(1, 1), (2, 1), (6, 3)])
def test_so_many_batches_are_fetched_ahead_and_no_more(ahead, at_once):
    fetched, done = [], threading.Semaphore(0)

    class Watched(RisingOnly):
        def __getitem__(self, rows):
            fetched.append(len(rows))
            done.release()
            return self.array[rows]

    with stream(Watched(X), KEY, 6, ahead=ahead) as batches:
        for asked in range(5):
            expected = ahead + at_once * -(-asked // at_once)
            while len(fetched) < expected:
                assert done.acquire(timeout=10)
            while done.acquire(timeout=0.02):
                pass
            assert len(fetched) == expected
            next(batches)


class Broken(RisingOnly):
    def __getitem__(self, rows):
        if 11 in rows:
            raise OSError("disk on fire")
        return self.array[rows]


def test_an_error_of_the_thread_is_raised_where_its_batch_would_have_been():
    at = [11 in np.asarray(of_step(jnp.int32(step))) for step in range(4)].index(True)
    batches = stream(Broken(X), KEY, 6, ahead=4)
    for _ in range(at):
        next(batches)
    with pytest.raises(OSError, match="disk on fire"):
        next(batches)
    assert not threads()
    assert list(batches) == []


def test_no_batch_comes_after_the_end():
    batches = stream(X, KEY, 6)
    next(batches)
    batches.close()
    batches.close()
    assert not threads() and list(batches) == []


def test_an_error_of_the_consumer_ends_the_thread():
    with pytest.raises(KeyError):
        with stream(X, KEY, 6) as batches:
            next(batches)
            raise KeyError
    assert not threads()


@pytest.mark.slow
def test_a_forgotten_stream_ends_its_thread():
    batches = stream(X, KEY, 6)
    next(batches)
    (thread,) = threads()
    del batches
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_the_thread_has_the_settings_of_its_maker():
    indices = of_step(jnp.int32(0))
    with jax.enable_x64(True):
        (wide,) = first(1, np.arange(N) / 7, KEY, 6)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, np.asarray(indices) / 7)
    assert first(1, np.arange(N) / 7, KEY, 6)[0].dtype == np.float32


def test_the_order_on_the_host_is_compiled_once():
    before = upcoming(KEY, 0, N, 6, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fnn.train._source.order_block", None)  # a second trace would call it
        again = upcoming(jax.random.key(1), 3, N, 6, 3)
    assert before.shape == again.shape == (3, 6) and (before != again).any()


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        ((), {}, "expected arrays with the same number of examples, got .."),
        (np.zeros((0, 2)), {}, "expected arrays with the same number of examples, got .0."),
        (np.float32(1), {}, "expected arrays with the same number of examples, got .0."),
        (Batch(X, X[1:]), {}, "expected arrays with the same number of examples, got .22, 23."),
        (X, {"batch_size": 24}, "expected batch_size from 1 to the 23 examples, got 24"),
        (X, {"batch_size": 0}, "expected batch_size from 1 to the 23 examples, got 0"),
        (X, {"hosts": 4}, "got host 0 of 4 and batch_size 6"),
        (X, {"hosts": 2, "host": 2}, "got host 2 of 2 and batch_size 6"),
        (X, {"host": -1}, "got host -1 of 1 and batch_size 6"),
        (X, {"ahead": 0}, "start_step of at least 0 and ahead of at least 1, got 0 and 0"),
        (X, {"start_step": -1}, "start_step of at least 0 and ahead of at least 1, got -1 and 8"),
    ],
)
def test_impossible_streams_are_refused_before_a_thread_starts(data, arguments, message):
    with pytest.raises(ValueError, match=f"stream: .*{message}"):
        stream(data, KEY, **{"batch_size": 6} | arguments)
    assert not threads()
