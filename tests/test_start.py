"""Starting from weights: fine-tuning in fit, run and sweep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, nn, optim, schedules
from fnn.checkpoint import RunDir
from fnn.diagnose import lr_find
from fnn.recipe import Recipe
from fnn.train import Callback, fit, make_init, make_run, search, silent, sweep
from fnn.types import Batch, Data
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe


def fit_tiny(**changes):
    arguments = dict(
        key=KEY, hyper=HYPER, steps=STEPS, batch_size=BATCH, eval_every=EVERY, progress=silent
    )
    return fit(recipe, DATA, **(arguments | changes))


@pytest.fixture(scope="module")
def pretrained():
    return fit_tiny(key=jax.random.key(7), steps=6).state


@pytest.fixture(scope="module")
def tuned(pretrained):
    return fit_tiny(init=pretrained)


def as_numpy(values):
    return jax.tree.map(np.asarray, values)


def test_the_first_state_has_the_given_weights_and_a_new_optimizer_state(pretrained):
    state = make_init(recipe)(KEY, HYPER, DATA.train.x, pretrained)
    assert_same_bits(state.params, pretrained.params)
    assert_same_bits(state.model_state, pretrained.model_state)
    fresh = make_init(recipe)(KEY, HYPER, DATA.train.x)
    assert_same_bits(state.opt_state, fresh.opt_state)
    assert state.step == 0
    only = make_init(recipe)(KEY, HYPER, DATA.train.x, as_numpy(pretrained.params))
    assert_same_bits(only.params, pretrained.params)
    assert_same_bits(only.model_state, fresh.model_state)


def test_the_optimizer_state_is_made_for_these_weights():
    def from_start(hyper):  # the state holds a copy of the first parameters
        r = recipe(hyper)
        return r._replace(optimizer=optim.ema(r.optimizer, decay=0.9))

    params = make_init(recipe)(jax.random.key(5), HYPER, DATA.train.x).params
    state = make_init(from_start)(KEY, HYPER, DATA.train.x, params)
    expected = from_start(HYPER).optimizer.init(params)
    assert_same_bits(state.opt_state, expected)


@pytest.mark.slow
def test_fit_run_and_a_model_with_these_first_weights_are_the_same(pretrained, tuned):
    weights = (pretrained.params, pretrained.model_state)

    def constant(hyper):
        r = recipe(hyper)
        return r._replace(model=r.model._replace(init=lambda key, x: weights))

    expected = fit(constant, DATA, key=KEY, hyper=HYPER, steps=STEPS, batch_size=BATCH,
                   eval_every=EVERY, progress=silent)  # fmt: skip
    assert_same_bits(tuned.state, expected.state)
    assert_same_bits(fit_tiny(init=as_numpy(weights)).state, expected.state)
    run = make_run(recipe, steps=STEPS, batch_size=BATCH, eval_every=EVERY)
    state, history = jax.jit(run)(KEY, HYPER, DATA, pretrained)
    assert_same_bits(state, expected.state)
    assert_same_bits(history.train, expected.history.train)


def test_the_given_weights_stay_usable(pretrained, tuned):
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(pretrained))
    params = jax.tree.map(jnp.copy, pretrained.params)
    before = as_numpy(params)
    fit_tiny(init=params, steps=2)
    assert_same_bits(params, before)


def test_every_leaf_that_does_not_fit_is_named(pretrained):
    broken = as_numpy(pretrained.params)
    name, layer = next((n, v) for n, v in broken.items() if "kernel" in v)
    broken[name] = {"kernel": layer["kernel"][:, :1], "extra": np.ones(3, np.float32)}
    with pytest.raises(ValueError) as caught:
        fit_tiny(init=broken)
    text = str(caught.value)
    assert "init: params of the recipe's model and those to start from differ" in text
    assert f"{name}/kernel: expected float32" in text
    assert f"{name}/extra: expected no such leaf, got float32[3]" in text
    assert f"{name}/bias" in text
    half = jax.tree.map(lambda a: a.astype(np.float16), as_numpy(pretrained.params))
    for where in (fit_tiny, lambda init: make_run(recipe, steps=1, batch_size=BATCH)(
        KEY, HYPER, DATA, init
    )):  # fmt: skip
        with pytest.raises(ValueError, match="expected float32.* got float16"):
            where(init=half)
    with pytest.raises(ValueError, match="init: model_state of the recipe's model"):
        fit_tiny(init=(pretrained.params, {}))


@pytest.mark.parametrize(
    "make", [lambda state: "last.safetensors", lambda state: fit_tiny(steps=1)]
)
def test_what_is_no_weights(pretrained, make):
    with pytest.raises(
        ValueError, match="expected init to be parameters, .* got .*pass its .state"
    ):
        fit_tiny(init=make(pretrained))


def test_a_resume_goes_on_and_does_not_start_again(tmp_path, pretrained, tuned):
    store = RunDir(tmp_path)
    stop = Callback(lambda fold, event: fold._replace(stop=event.step >= EVERY))
    fit_tiny(init=pretrained, store=store, callbacks={"stop": stop})
    with pytest.raises(ValueError, match="init: expected weights with checksum .*, got None"):
        fit_tiny(store=store, resume=True)
    other = jax.tree.map(lambda a: a + 1, pretrained.params)
    with pytest.raises(ValueError, match="init: expected weights with checksum .*, got weights"):
        fit_tiny(init=other, store=store, resume=True)
    resumed = fit_tiny(init=pretrained, store=store, resume=True)
    assert_same_bits(resumed.state, tuned.state)
    assert_same_bits(resumed.history, tuned.history)


def test_a_run_without_weights_does_not_resume_with_some(tmp_path, pretrained):
    store = RunDir(tmp_path)
    fit_tiny(steps=EVERY, store=store)
    with pytest.raises(ValueError, match="init: expected None, got weights with checksum"):
        fit_tiny(init=pretrained, store=store, resume=True)


def linear(hyper):
    return Recipe(
        nn.linear(1), losses.mean_squared_error, optim.sgd(), schedules.constant(hyper["lr"])
    )


LINE = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
SMALL = Data(train=Batch(LINE, 3 * LINE), valid=Batch(LINE, 3 * LINE))
SOLVED = {"kernel": np.full((1, 1), 3, np.float32), "bias": np.zeros(1, np.float32)}


@pytest.mark.slow
def test_all_members_of_a_sweep_start_from_the_same_weights():
    arguments = dict(steps=4, batch_size=4, progress=silent)
    keys = jax.random.split(jax.random.key(3), 2)
    result = sweep(linear, SMALL, search.grid(lr=[0.0, 0.1]), keys, init=SOLVED, **arguments)
    assert all(row["loss mean"] == 0 for row in result.table().rows)
    with pytest.raises(ValueError, match="init: params .* differ"):
        sweep(linear, SMALL, search.grid(lr=[0.1]), keys, init={"kernel": LINE}, **arguments)


def test_the_rate_finder_starts_from_weights_by_make_init():
    hyper = {"lr": 0.1}
    state = make_init(linear)(KEY, hyper, LINE, SOLVED)
    curve = lr_find(linear, SMALL, key=KEY, hyper=hyper, batch_size=4, steps=5, state=state,
                    seeds=1, lr_max=1e-3)  # fmt: skip
    np.testing.assert_array_equal(curve.losses, 0)


@pytest.mark.slow
def test_a_gradient_to_the_first_weights_is_that_of_all_steps():
    run = make_run(linear, steps=3, batch_size=8)
    w, h = jnp.float32(1.0), 0.125  # the loss is a square: differences are exact but for rounding

    def loss(w):
        params = {"kernel": jnp.full((1, 1), w), "bias": jnp.zeros(1)}
        return run(KEY, {"lr": 0.1}, SMALL, params)[1].valid["loss"][-1]

    slope = (loss(w + h) - loss(w - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(w), slope, rtol=1e-4)
