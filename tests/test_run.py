import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, nn, optim, order, schedules, tree
from fnn.keys import run_keys
from fnn.nn import sequential
from fnn.recipe import Recipe
from fnn.train import make_evaluate, make_init, make_run, make_step
from fnn.types import Data
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe

run = make_run(recipe, steps=STEPS, batch_size=BATCH, eval_every=EVERY, eval_batch_size=8)
jitted = jax.jit(run)
slope_of_final_loss = jax.jit(jax.grad(lambda hyper: run(KEY, hyper, DATA)[1].valid["loss"][-1]))


@pytest.fixture(scope="module")
def result():
    return jitted(KEY, HYPER, DATA)


@pytest.mark.slow
def test_a_run_is_bit_equal_to_its_steps_made_by_hand(result):
    keys, step = run_keys(KEY), jax.jit(make_step(recipe), donate_argnums=0)
    state = jax.jit(make_init(recipe))(keys.init, HYPER, DATA.train.x[:BATCH])
    rows = []
    for i in range(STEPS):
        indices = np.asarray(order.order(keys.order, i, len(DATA.train.x), BATCH))
        batch = (DATA.train.x[indices], DATA.train.y[indices])
        state, metrics = step(state, batch, keys.noise, HYPER)
        rows.append(metrics)
    assert_same_bits(state, result[0])
    assert_same_bits(tree.stack(rows), result[1].train)


@pytest.mark.slow
def test_the_history_holds_every_step_and_every_evaluation(result):
    state, history = result
    assert state.step == STEPS
    assert {name: values.shape for name, values in history.train.items()} == dict.fromkeys(
        ("loss", "lr", "grad_norm", "update_norm", "param_norm"), (STEPS,)
    )
    assert history.eval_steps.tolist() == [5, 10, 15, 20, 22]
    assert set(history.valid) == {"loss", "accuracy"}
    assert history.valid["loss"].shape == (5,)
    last = jax.jit(make_evaluate(recipe))(state, DATA.valid, HYPER)  # in one batch, not in three
    np.testing.assert_allclose(last["loss"], history.valid["loss"][-1], rtol=1e-6)


def test_lr_in_the_history_is_the_schedule(result):
    schedule = recipe(HYPER).schedule
    # Compiled on its own, the cosine may differ in the last bit.
    np.testing.assert_allclose(
        result[1].train["lr"], jax.vmap(schedule)(jnp.arange(STEPS)), rtol=1e-6, atol=1e-9
    )


def test_a_vmap_over_keys_trains_one_model_per_key(result):
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    states, history = jax.jit(jax.vmap(run, in_axes=(0, None, None)))(keys, HYPER, DATA)
    assert history.valid["loss"].shape == (3, 5)
    # A batched product sums in another order than a single one: not bit-equal, but close.
    np.testing.assert_allclose(
        history.train["loss"][0], result[1].train["loss"], rtol=1e-4, atol=1e-5
    )
    assert len({float(loss) for loss in history.valid["loss"][:, -1]}) == 3


@pytest.mark.slow
def test_a_vmap_over_every_hyperparameter_is_a_sweep(result):
    hypers = {name: jnp.array([value, value * 0.5]) for name, value in HYPER.items()}
    states, history = jax.jit(jax.vmap(run, in_axes=(None, 0, None)))(KEY, hypers, DATA)
    np.testing.assert_allclose(
        history.train["loss"][0], result[1].train["loss"], rtol=1e-4, atol=1e-5
    )
    halved = {name: value * 0.5 for name, value in HYPER.items()}
    alone = jitted(KEY, halved, DATA)[1]
    np.testing.assert_allclose(history.train["loss"][1], alone.train["loss"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [pytest.param(0.1, marks=pytest.mark.slow), 0.9])
def test_a_validation_loss_has_a_finite_gradient_for_every_hyperparameter(rate):
    # At rate 0.9 whole units are dropped in every example: their gradients are 0, and so is Adam's
    # v, where the derivative of the square root is infinite. Infinity times 0 would be NaN.
    slopes = slope_of_final_loss(HYPER | {"rate": rate})
    assert set(slopes) == set(HYPER)
    for name, slope in slopes.items():
        assert jnp.isfinite(slope) and slope != 0, name


@pytest.mark.slow
def test_hypergradients_agree_with_finite_differences_in_float64():
    with jax.enable_x64(True):
        data = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, DATA)

        def wide(hyper):
            model = sequential(nn.linear(4), jnp.tanh, nn.linear(2))

            def init(key, x):
                params, state = model.init(key, jax.ShapeDtypeStruct(x.shape, jnp.float32))
                return jax.tree.map(lambda p: p.astype(jnp.float64), params), state

            return Recipe(
                model=model._replace(init=init),
                loss=losses.cross_entropy,
                optimizer=optim.adamw(weight_decay=hyper["weight_decay"], b1=hyper["b1"]),
                schedule=schedules.warmup_cosine(
                    hyper["lr"], warmup_steps=hyper["warmup_steps"], total_steps=12
                ),
            )

        short = make_run(wide, steps=8, batch_size=16)
        final = jax.jit(lambda hyper: short(KEY, hyper, data)[1].valid["loss"][-1])
        hyper = {"lr": 0.02, "weight_decay": 0.1, "b1": 0.8, "warmup_steps": 3.3}
        hyper = {k: jnp.float64(v) for k, v in hyper.items()}
        slopes = jax.jit(jax.grad(lambda h: final(h)))(hyper)
        for name in hyper:
            h = 1e-5
            up, down = (final(hyper | {name: hyper[name] + s * h}) for s in (1, -1))
            # Central differences err by h^2 times a third derivative, about 1e-6 here.
            np.testing.assert_allclose(slopes[name], (up - down) / (2 * h), rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_a_run_is_traced_once_for_every_hyper_and_key():
    traces = []

    def counting(hyper):
        traces.append(1)
        return recipe(hyper)

    counted = jax.jit(make_run(counting, steps=4, batch_size=8, eval_every=2))
    counted(KEY, HYPER, DATA)
    once = len(traces)
    counted(jax.random.key(1), {k: v * 2 for k, v in HYPER.items()}, DATA)
    assert len(traces) == once


def test_a_step_is_traced_once_for_any_steps_and_hyper():
    traces = []

    def counting(hyper):
        traces.append(1)
        return recipe(hyper)

    init, step = jax.jit(make_init(recipe)), jax.jit(make_step(counting), donate_argnums=0)
    state = init(KEY, HYPER, DATA.train.x[:BATCH])
    batch = (DATA.train.x[:BATCH], DATA.train.y[:BATCH])
    for factor in (1.0, 0.5, 2.0, 0.0):
        state, metrics = step(state, batch, KEY, {k: v * factor for k, v in HYPER.items()})
    assert len(traces) == 1
    assert state.step == 4


def test_a_step_donates_its_state_and_reuses_its_memory():
    init, step = jax.jit(make_init(recipe)), jax.jit(make_step(recipe), donate_argnums=0)
    state = init(KEY, HYPER, DATA.train.x[:BATCH])
    batch = (DATA.train.x[:BATCH], DATA.train.y[:BATCH])
    after, _ = step(state, batch, KEY, HYPER)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_metrics_are_what_their_names_say():
    def plain(hyper):
        return Recipe(
            model=nn.linear(1, bias=False, kernel_init=lambda k, s: jnp.full(s, 2.0)),
            loss=losses.mean_squared_error,
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
        )

    x, y = jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]])
    state = jax.jit(make_init(plain))(KEY, {"lr": 0.1}, x)
    _, metrics = jax.jit(make_step(plain), donate_argnums=0)(state, (x, y), KEY, {"lr": 0.1})
    # loss = mean (2 x)^2 = 20; its gradient = mean 2 (2 x) x = 20; update = -0.1 * 20
    np.testing.assert_allclose(
        [metrics[name] for name in ("loss", "lr", "grad_norm", "update_norm", "param_norm")],
        [20, 0.1, 20, 2, 0],
        rtol=1e-6,
    )


@pytest.mark.slow
def test_a_penalty_is_an_entry_of_its_own_and_no_part_of_the_loss():
    def penalized(hyper):
        return recipe(hyper)._replace(
            schedule=schedules.constant(0.0), penalty=lambda params, state: hyper["penalty"]
        )

    state = jax.jit(make_init(recipe))(KEY, HYPER, DATA.train.x[:BATCH])
    batch = (DATA.train.x[:BATCH], DATA.train.y[:BATCH])
    more = HYPER | {"penalty": 2.0}
    step = jax.jit(make_step(penalized))
    found = [step(state, batch, KEY, h)[1] for h in (more, more | {"penalty": 0.0})]
    assert [metrics["penalty"] for metrics in found] == [2, 0]
    assert found[0]["loss"] == found[1]["loss"]
    evaluate = jax.jit(make_evaluate(penalized))
    without = evaluate(state, DATA.valid, more | {"penalty": 0.0})["loss"]
    assert evaluate(state, DATA.valid, more)["loss"] == without


@pytest.mark.slow
def test_evaluation_weighs_every_example_the_same_whatever_the_batches():
    state = jax.jit(make_init(recipe))(KEY, HYPER, DATA.train.x[:BATCH])
    whole = jax.jit(make_evaluate(recipe, batch_size=21))(state, DATA.valid, HYPER)
    for batch_size in (1, 4, 7, 20, 100):
        parts = jax.jit(make_evaluate(recipe, batch_size=batch_size))(state, DATA.valid, HYPER)
        for name, value in whole.items():
            # Sums of 21 numbers in another order: a few units in the last place of float32.
            np.testing.assert_allclose(parts[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_training_learns():
    def steady(hyper):
        return recipe(hyper)._replace(schedule=schedules.constant(hyper["lr"]))

    data = Data(train=DATA.train, valid=DATA.train)
    long = make_run(steady, steps=300, batch_size=25)
    _, history = jax.jit(long)(KEY, HYPER | {"lr": 0.05, "rate": 0.0}, data)
    assert history.valid["accuracy"][-1] > 0.95  # a constant guess has about 0.5
