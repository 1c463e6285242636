"""What holds of `devices=` where there are two; `test_devices.py` runs it."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules
from fnn.data import Streamed
from fnn.nn import sequential
from fnn.recipe import Recipe, whole_batch
from fnn.testing import devices_equal_whole_batch
from fnn.train import (
    fit,
    make_evaluate,
    make_init,
    make_run,
    make_step,
    microbatches,
    silent,
)
from fnn.train._chunks import _indexed, chunks
from fnn.train.devices import everywhere, shared_gradient
from fnn.types import Batch, Data, LossSums
from tests import test_combine, test_weighted, tiny
from tests.test_gradient import SAME_IN_PARTS, expect_close, recipe_with, stepped
from tests.test_weighted import LOSSES
from tests.tiny import DATA, HYPER, KEY, assert_same_bits

BOTH = tuple(jax.devices())
BATCH = tiny.BATCH
RUN = dict(steps=tiny.STEPS, batch_size=BATCH, eval_every=tiny.EVERY)


@functools.cache
def in_halves(recipe):
    return lambda hyper: recipe(hyper)._replace(gradient=microbatches(2))


def without_statistics(hyper) -> Recipe:
    """Dropout, whose noise differs from part to part, and nothing that looks across the batch."""
    return tiny.recipe(hyper)._replace(model=sequential(nn.dropout(0.5), nn.linear(2)))


def test_there_are_two():
    assert len(BOTH) == 2


@pytest.mark.parametrize("name", SAME_IN_PARTS)
def test_a_step_by_two_devices_is_the_step_on_the_whole_batch(name):
    changes, (x, y) = SAME_IN_PARTS[name], DATA.train
    x, y = x[:24], y[:24]
    batch = ({"a": x, "b": 2 * x}, y) if "dict" in name else (x, y)
    whole = stepped(recipe_with(**changes), batch, hyper={"lr": 0.1})
    shared = stepped(recipe_with(**changes), batch, hyper={"lr": 0.1}, devices=BOTH)
    # Sums of 24 numbers in another order: a few roundings of 6e-8.
    expect_close(shared, whole, 1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_devices_with_unequal_counts_are_the_whole_batch(name):
    recipe = test_weighted.recipe_with(LOSSES[name])
    batch = test_weighted.X, test_weighted.LABELS
    devices_equal_whole_batch(recipe, batch, key=KEY, hyper={"lr": 0.1}, devices=BOTH)


@pytest.mark.parametrize("parts", [1, 2])
def test_devices_with_unequal_counts_of_terms_are_the_whole_batch(parts):
    recipe = test_combine.recipe_with(gradient=microbatches(parts))
    batch = test_combine.X, test_combine.Y
    devices_equal_whole_batch(recipe, batch, key=KEY, hyper=test_combine.HYPER, devices=BOTH)


def test_each_device_has_the_noise_of_a_part():
    shared = jax.jit(make_run(without_statistics, devices=BOTH, **RUN))(KEY, HYPER, DATA)
    parts = jax.jit(make_run(in_halves(without_statistics), **RUN))(KEY, HYPER, DATA)
    expect_close(shared, parts, 1e-5)


def test_a_device_may_see_its_part_in_parts():
    def quarters(hyper):
        return without_statistics(hyper)._replace(model=nn.linear(2), gradient=microbatches(2))

    def whole(hyper):
        return quarters(hyper)._replace(gradient=whole_batch)

    batch = DATA.train.x[:16], DATA.train.y[:16]
    quartered = stepped(quarters, batch, steps=3, hyper=HYPER, devices=BOTH)
    expect_close(quartered, stepped(whole, batch, steps=3, hyper=HYPER), 1e-5)


def gradient_of(loss, model_state, batch):
    gradient, params = shared_gradient(BOTH), {"w": jnp.ones((), jnp.bfloat16)}
    return jax.jit(lambda p, s, b: gradient(loss, p, s, b, KEY))(params, model_state, batch)


def test_the_model_state_is_the_mean_of_the_devices_or_the_first_ones():
    def loss(params, model_state, batch, key):
        new = {"mean": batch[0].mean(), "seen": model_state["seen"] + 1, "flag": batch[0][0] > 3}
        value = (params["w"] * batch[0].astype(jnp.bfloat16)).sum().astype(jnp.float32)
        return value, LossSums(value, jnp.zeros(()), jnp.float32(len(batch[0])), {}, new)

    start = {"mean": jnp.float32(0), "seen": jnp.int32(5), "flag": jnp.array(True)}
    sums, grads = gradient_of(loss, start, (jnp.arange(8.0), None))
    assert sums.loss == grads["w"] == 28 and sums.weight == 8
    assert grads["w"].dtype == jnp.float32
    assert sums.model_state == {"mean": 3.5, "seen": 6, "flag": False}


def test_running_statistics_are_the_mean_of_those_of_the_parts():
    def normed(hyper):
        layers = sequential(nn.batch_norm(decay=0.5), nn.linear(2))
        return recipe_with(model=layers)(hyper)

    x, y = DATA.train.x[:24], DATA.train.y[:24]
    state, _ = stepped(normed, (x, y), hyper={"lr": 0.1}, devices=BOTH)
    (var,) = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(state.model_state)
        if "var" in jax.tree_util.keystr(path)
    ]
    expected = 0.5 + 0.5 * (x[:12].var(0) + x[12:].var(0)) / 2
    np.testing.assert_allclose(var, expected, rtol=1e-5)


def test_fit_is_the_run_lies_everywhere_and_compiles_its_chunks_once(monkeypatch):
    recipe, taken = tiny.recipe, []

    def watched(job, step):
        taken.extend(jax.tree.leaves(job.data.train))
        return chunks(job, step)

    monkeypatch.setattr(sys.modules["fnn.train.fit"], "chunks", watched)
    state, history = jax.jit(make_run(recipe, devices=BOTH, **RUN))(KEY, HYPER, DATA)
    before = _indexed._cache_size()
    arguments = dict(key=KEY, hyper=HYPER, progress=silent, devices=BOTH)
    result = fit(recipe, DATA, **arguments, **RUN)
    assert _indexed._cache_size() == before + 1
    expect_close(result.state, state, 1e-5)
    expect_close(result.history, history, 1e-5)
    for leaf in jax.tree.leaves((result.state, taken)):
        assert leaf.sharding.device_set == set(BOTH) and leaf.is_fully_replicated
    for leaf in jax.tree.leaves(result.state):
        assert (np.asarray(leaf.addressable_data(0)) == np.asarray(leaf.addressable_data(1))).all()


class Memory(dict):
    """A store that keeps all in this process."""

    rows_ = ()

    def save(self, name, state, meta):
        self[name] = jax.tree.map(np.asarray, state), meta

    def load(self, name, like):
        state, meta = self[name]
        return jax.tree.map(jnp.asarray, state), meta

    def has(self, name):
        return name in self

    def log(self, rows):
        self.rows_ = (*self.rows_, *rows)

    def rows(self, up_to_step):
        return [row for row in self.rows_ if row["step"] <= up_to_step]


def test_a_resume_is_exact_and_compiles_nothing():
    recipe = tiny.recipe
    arguments = dict(
        key=KEY, hyper=HYPER, batch_size=BATCH, eval_every=5, progress=silent, devices=BOTH
    )
    whole = fit(recipe, DATA, steps=20, **arguments)
    store, before = Memory(), _indexed._cache_size()
    fit(recipe, DATA, steps=10, store=store, **arguments)
    resumed = fit(recipe, DATA, steps=20, store=store, resume=True, **arguments)
    assert _indexed._cache_size() == before
    assert_same_bits(resumed.state, whole.state)


@pytest.mark.slow
def test_steps_compile_once_and_streams_are_shared_too():
    recipe = without_statistics
    x, y = DATA.train
    state = everywhere(BOTH, jax.jit(make_init(recipe))(KEY, HYPER, x[:BATCH]))
    step = jax.jit(make_step(recipe, devices=BOTH), donate_argnums=0)
    for _ in range(3):
        state, _ = step(state, (x[:BATCH], y[:BATCH]), KEY, HYPER)
    assert step._cache_size() == 1
    arguments = dict(key=KEY, hyper=HYPER, progress=silent, devices=BOTH)
    lying = fit(recipe, DATA, **arguments, **RUN)
    streams = Data(train=Streamed(x, y), valid=DATA.valid)
    streamed = fit(recipe, streams, **arguments, **RUN)
    expect_close(streamed.state, lying.state, 1e-5)


@pytest.mark.parametrize("batch_size", [1024, 10, 7])
def test_an_evaluation_counts_each_example_once(batch_size):
    """21 examples in one odd batch; in two even ones and a rest of 1; in three odd ones."""
    state = jax.jit(make_init(tiny.recipe))(KEY, HYPER, DATA.valid.x)
    alone = jax.jit(make_evaluate(tiny.recipe, batch_size=batch_size))(state, DATA.valid, HYPER)
    shared = jax.jit(make_evaluate(tiny.recipe, batch_size=batch_size, devices=BOTH))
    found = shared(state, DATA.valid, HYPER)
    assert sorted(found) == ["accuracy", "loss"]
    expect_close(found, alone, 1e-6)


def embedded(hyper) -> Recipe:
    config = models.rnn_lm.RNNLMConfig(vocab_size=5, features=3, widths=(4,))
    return tiny.recipe(hyper)._replace(model=models.rnn_lm.rnn_lm(config))


def test_rows_are_looked_up_on_both():
    """Indexing asks where the indexed array lies, so it must be an argument of what is shared."""
    tokens = np.random.default_rng(0).integers(5, size=(24, 6)).astype(np.int32)
    texts = Batch(tokens, np.roll(tokens, -1, 1))
    arguments = dict(steps=2, batch_size=12, eval_batch_size=12, progress=silent)
    shared, alone = (
        fit(recipe, Data(train=texts, valid=texts), key=KEY, hyper=HYPER, **arguments, **more)
        for recipe, more in ((embedded, {"devices": BOTH}), (in_halves(embedded), {}))
    )
    expect_close(shared.history, alone.history, 1e-5)


def test_a_batch_that_two_do_not_divide_is_refused_before_any_training():
    match = r"devices: .* that 2 parts divide, got 15 examples; use batches of 14"
    with pytest.raises(ValueError, match=match):
        make_run(tiny.recipe, steps=1, batch_size=15, devices=BOTH)(KEY, HYPER, DATA)


def line(hyper) -> Recipe:
    return Recipe(
        nn.linear(1),
        losses.mean_squared_error,
        optim.sgd(momentum=0.9),
        schedules.constant(hyper["lr"]),
        penalty=lambda params, _: hyper["decay"] * jnp.square(params["kernel"]).sum(),
    )


X = np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
LINE = Data(train=Batch(X, 3 * X + 1), valid=Batch(X, 3 * X + 1))


def final_loss(devices):
    run = make_run(line, steps=6, batch_size=8, devices=devices)
    return lambda hyper, key: run(key, hyper, LINE)[1].valid["loss"][-1]


@pytest.mark.slow
def test_hyperparameters_are_learned_through_steps_of_two_devices():
    hyper = {"lr": 0.1, "decay": 0.01}
    shared, alone = (
        jax.jit(jax.value_and_grad(final_loss(devices)))(hyper, KEY) for devices in (BOTH, ())
    )
    assert min(abs(slope) for slope in alone[1].values()) > 1e-3
    expect_close(shared, alone, 1e-5)


@pytest.mark.slow
def test_runs_of_two_devices_may_be_mapped():
    keys, hyper = jax.random.split(KEY, 3), {"lr": 0.1, "decay": 0.01}
    shared, alone = (
        jax.jit(jax.vmap(final_loss(devices), in_axes=(None, 0)))(hyper, keys)
        for devices in (BOTH, ())
    )
    expect_close(shared, alone, 1e-5)
