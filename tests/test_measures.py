"""What a step records: measures, with memory or at some steps only, and training metrics."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, measures, metrics, nn, optim, schedules, tree
from fnn.checkpoint import RunDir
from fnn.measures import every, grad_norms_by_layer, layer_names, norms, update_ratios_by_layer
from fnn.recipe import Recipe
from fnn.train import (
    Callback,
    fit,
    make_init,
    make_run,
    make_step,
    microbatches,
    search,
    silent,
    sweep,
)
from fnn.types import StatefulMeasure
from tests import tiny
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits

SEVENTH = list(range(0, STEPS, 7))


def smoothed_loss():
    """A running mean of the loss."""

    def update(mean, view):
        mean = 0.5 * mean + 0.5 * view.loss
        return {"smoothed": mean}, mean

    return StatefulMeasure(lambda params: jnp.zeros(()), update)


def curvature(view):
    """v H v for the gradient v: a Hessian-vector product through the objective."""
    _, along = jax.jvp(lambda p: view.objective.at(p)[1], (view.params,), (view.grads,))
    parts = jax.tree.map(jnp.vdot, view.grads, along)
    return {"curvature": sum(jax.tree.leaves(parts))}


def with_measures(*chosen, train_metrics=None):
    def recipe(hyper):
        plain = tiny.recipe(hyper)
        return plain._replace(measures=chosen, train_metrics=train_metrics or plain.metrics)

    return recipe


ALL = with_measures(norms, every(7, grad_norms_by_layer), smoothed_loss(), update_ratios_by_layer)
RUN = dict(steps=STEPS, batch_size=BATCH, eval_every=EVERY)


@pytest.fixture(scope="module")
def result():
    return jax.jit(make_run(ALL, **RUN))(KEY, HYPER, DATA)


@pytest.mark.slow
def test_a_history_is_indexed_by_name_and_knows_its_steps(result):
    state, history = result
    layers = len(layer_names(state.params))
    shapes = {name: values.shape for name, values in history.train.items()}
    assert shapes == {
        **dict.fromkeys(("loss", "lr", "accuracy", "smoothed"), (STEPS,)),
        **dict.fromkeys(("grad_norm", "update_norm", "param_norm"), (STEPS,)),
        "grad_norms_by_layer": (len(SEVENTH), layers),
        "update_ratios_by_layer": (STEPS, layers),
    }
    assert history.steps("grad_norms_by_layer").tolist() == SEVENTH
    assert history.steps("loss").tolist() == list(range(STEPS))
    squares = np.square(history.train["grad_norms_by_layer"]).sum(axis=1)
    np.testing.assert_allclose(
        np.sqrt(squares), history.train["grad_norm"][np.array(SEVENTH)], rtol=1e-6
    )


@pytest.mark.slow
def test_a_measure_with_memory_keeps_it_in_the_state(result):
    state, history = result
    mean = 0.0
    for loss, found in zip(history.train["loss"], history.train["smoothed"], strict=True):
        mean = 0.5 * mean + 0.5 * float(loss)
        np.testing.assert_allclose(found, mean, rtol=1e-5)
    assert jax.tree.leaves(state.measure_state) == [history.train["smoothed"][-1]]


def test_without_measures_there_is_no_state_for_them():
    state = jax.jit(make_init(with_measures(norms)))(KEY, HYPER, DATA.train.x[:4])
    assert state.measure_state == ()


@pytest.mark.slow
def test_fit_has_the_bits_of_run_and_so_has_a_resume(result, tmp_path):
    seen = []

    def look(fold, event):
        steps = event.train_steps["grad_norms_by_layer"].tolist()
        seen.extend(zip(steps, event.train["grad_norms_by_layer"].tolist(), strict=True))
        return fold

    arguments = dict(key=KEY, hyper=HYPER, progress=silent, **RUN)
    whole = fit(ALL, DATA, callbacks={"look": Callback(look)}, **arguments)
    assert_same_bits(whole.state, result[0])
    assert_same_bits(whole.history, result[1])
    assert [step for step, _ in seen] == SEVENTH
    np.testing.assert_array_equal(
        np.float32([row for _, row in seen]), whole.history.train["grad_norms_by_layer"]
    )
    store = RunDir(tmp_path)
    fit(ALL, DATA, store=store, **(arguments | {"steps": 10}))
    resumed = fit(ALL, DATA, store=store, resume=True, **arguments)
    assert_same_bits(resumed.state, result[0])
    assert_same_bits(resumed.history, result[1])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    having = [row["step"] for row in rows if "grad_norms_by_layer" in row]
    assert having == SEVENTH
    assert all(isinstance(row["loss"], float) for row in rows if "valid" not in row)


@pytest.mark.slow
def test_a_step_that_is_not_measured_has_nan():
    step = jax.jit(make_step(ALL))
    state = jax.jit(make_init(ALL))(KEY, HYPER, DATA.train.x[:BATCH])
    batch = (DATA.train.x[:BATCH], DATA.train.y[:BATCH])
    _, first = step(state, batch, KEY, HYPER)
    _, second = step(replace(state, step=jnp.int32(1)), batch, KEY, HYPER)
    assert np.isfinite(first["grad_norms_by_layer"]).all()
    assert np.isnan(second["grad_norms_by_layer"]).all() and np.isfinite(second["grad_norm"])


def conditionals(jaxpr):
    """The conditionals of a program, with whether each is over one predicate."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield equation.invars[0].aval.shape == ()
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from conditionals(inner)


@pytest.mark.slow
def test_skipped_steps_compute_nothing_also_under_a_sweep():
    """A conditional on a batched step would become a select, which computes both sides."""
    recipe = with_measures(every(7, curvature))
    run = make_run(recipe, **RUN)
    hypers, keys = jax.tree.map(lambda v: jnp.array([v, v]), HYPER), jax.random.split(KEY, 2)
    mapped = jax.make_jaxpr(jax.vmap(run, (None, 0, None)))(KEY, hypers, DATA)
    assert True in conditionals(mapped.jaxpr)
    result = sweep(
        recipe,
        DATA,
        {
            **search.grid(lr=[0.01, 0.02, np.inf]),
            **{k: np.full(3, HYPER[k]) for k in HYPER if k != "lr"},
        },
        keys,
        progress=silent,
        **RUN,
    )
    found = np.asarray(result.history.train["curvature"])
    assert found.shape == (3, 2, len(SEVENTH)) and np.isfinite(found[:2]).all()
    assert np.asarray(result.history.train_steps["curvature"])[0, 0].tolist() == SEVENTH
    one = jax.tree.map(lambda a: a[1, 1], result.history)
    assert one.steps("curvature").tolist() == SEVENTH
    alone = jax.jit(run)(jax.random.clone(keys)[1], HYPER, DATA)[1]
    # A batched product sums in another order than a single one.
    np.testing.assert_allclose(one.train["curvature"], alone.train["curvature"], rtol=1e-2)


def test_train_metrics_are_those_of_the_forward_pass_also_in_parts():
    def plain(gradient=None):
        def recipe(hyper):
            changes = {} if gradient is None else {"gradient": gradient}
            return Recipe(
                nn.linear(2),
                losses.cross_entropy,
                optim.sgd(),
                schedules.constant(hyper["lr"]),
                train_metrics={
                    "accuracy": metrics.accuracy(),
                    "perplexity": metrics.perplexity(losses.cross_entropy),
                },
            )._replace(**changes)

        return recipe

    x, y = DATA.train.x[:24], DATA.train.y[:24]
    state = jax.jit(make_init(plain()))(KEY, {"lr": 0.1}, x)
    logits, _ = nn.linear(2).apply(state.params, (), jnp.asarray(x))
    for recipe in (plain(), plain(microbatches(4))):
        _, found = jax.jit(make_step(recipe))(state, (x, y), KEY, {"lr": 0.1})
        np.testing.assert_allclose(
            found["accuracy"], (logits.argmax(axis=1) == y).mean(), rtol=1e-6
        )
        np.testing.assert_allclose(found["perplexity"], np.exp(found["loss"]), rtol=1e-6)


@pytest.mark.slow
def test_metrics_do_not_change_the_training(result):
    alone = jax.jit(make_run(with_measures(train_metrics={}), **RUN))(KEY, HYPER, DATA)
    # Other fusions round otherwise; 22 steps of Adam grow that.
    for a, b in zip(
        jax.tree.leaves(alone[0].params), jax.tree.leaves(result[0].params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def counts(view):
    return {"leaves": tree.count(view.grads), "down": view.loss < 1, "half": jnp.bfloat16(0.5)}


def test_whole_numbers_truths_and_halves_are_recorded_as_floats():
    step = jax.jit(make_step(with_measures(counts)))
    state = jax.jit(make_init(with_measures(counts)))(KEY, HYPER, DATA.train.x[:BATCH])
    _, found = step(state, (DATA.train.x[:BATCH], DATA.train.y[:BATCH]), KEY, HYPER)
    assert {found[name].dtype.name for name in ("leaves", "down", "half")} == {"float32"}
    assert found["leaves"] == tree.count(state.params) and found["half"] == 0.5


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (with_measures(norms, norms), r"expected names of their own, got \['grad_norm', 'param_"),
        (
            with_measures(lambda view: {"loss": view.lr}),
            r"names of their own, got \['loss'\] twice",
        ),
        (
            with_measures(lambda view: {"step": view.lr}),
            r"names of their own, got \['step'\] twice",
        ),
        (
            with_measures(train_metrics={"lr": metrics.accuracy()}),
            r"Recipe.train_metrics: expected other names than \[.*\], got 'lr'; rename it",
        ),
        (
            lambda hyper: tiny.recipe(hyper)._replace(metrics={"loss": metrics.accuracy()}),
            r"Recipe.metrics: expected other names than \['loss'\], got 'loss'; rename it",
        ),
    ],
)
def test_a_name_that_is_taken_is_refused_before_any_training(recipe, message):
    with pytest.raises(ValueError, match=message):
        make_run(recipe, steps=1, batch_size=4)(KEY, HYPER, DATA)


@pytest.mark.parametrize("steps", [0, -1])
def test_every_0_steps_is_refused(steps):
    with pytest.raises(ValueError, match="every: expected steps to be a positive integer, got"):
        every(steps, norms)


def test_every_step_is_the_measure_itself():
    both = [jax.jit(make_run(with_measures(m), **RUN))(KEY, HYPER, DATA)[1] for m in
            (norms, every(1, norms))]  # fmt: skip
    assert_same_bits(*both)
    assert measures.layer_names({"w": 1.0}) == [""]
