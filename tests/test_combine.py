"""Losses of several terms: each a mean over its own weights, however the batch is cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, metrics, nn, optim, schedules
from fnn.diagnose import lr_find, overfit_one_batch
from fnn.losses import combine
from fnn.nn import parallel
from fnn.recipe import Recipe
from fnn.testing import (
    accumulation_equals_whole_batch,
    evaluation_does_not_depend_on_the_batch_size,
    padding_changes_nothing,
)
from fnn.train import (
    fit,
    make_evaluate,
    make_init,
    make_step,
    microbatches,
    private_gradient,
    silent,
)
from fnn.types import Data, Terms, Weighted
from tests.registry.rows import integers, normal
from tests.tiny import KEY

N = 8
X = normal(N, 3)
HAS_BOX = np.array([True, True, True, False, False, True, False, False])  # unequal halves
COUNTED = np.array([False, True, True, True, True, True, True, False])
Y = {
    "class": np.where(COUNTED, integers(N, below=4, seed=1), -100).astype(np.int32),
    "box": {"at": normal(N, 2, seed=2), "where": np.repeat(HAS_BOX[:, None], 2, axis=1)},
    "age": normal(N, seed=3),
}
BATCH = jax.tree.map(jnp.asarray, (X, Y))
HYPER = {"lr": 0.1, "box_weight": 0.3, "age_weight": 2.0}
class_loss = functools.partial(losses.cross_entropy, ignore_index=-100)


def box_loss(z, y):
    return losses.huber(z, y["at"], where=y["where"])


def age_loss(z, y):
    return losses.mean_squared_error(z[:, 0], y)


def recipe_with(**changes):
    def recipe(hyper):
        plain = Recipe(
            model=parallel(**{"class": nn.linear(4), "box": nn.linear(2), "age": nn.linear(1)}),
            loss=combine(
                {
                    "class": (class_loss, 1.0),
                    "box": (box_loss, hyper["box_weight"]),
                    "age": (age_loss, hyper["age_weight"]),
                }
            ),
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
            metrics={
                "accuracy": metrics.mean(
                    lambda z, y: metrics.hits(z["class"], y["class"], ignore_index=-100)
                )
            },
        )
        return plain._replace(**changes)

    return recipe


def by_hand(params, x=X, y=Y, hyper=HYPER):
    """The terms and their sum, from the definition, in NumPy's order of operations."""
    z = {name: x @ own["kernel"] + own["bias"][None] for name, own in params.items()}
    counted = np.flatnonzero(y["class"] != -100)
    rows = jax.nn.log_softmax(z["class"])[counted, y["class"][counted]]
    error = (z["box"] - y["box"]["at"])[y["box"]["where"]]
    size = jnp.abs(error)
    huber = jnp.where(size <= 1, 0.5 * error**2, size - 0.5)
    terms = {
        "class": -rows.mean(),
        "box": huber.mean(),
        "age": jnp.square(z["age"][:, 0] - y["age"]).mean(),
    }
    c = {"class": 1.0, "box": hyper["box_weight"], "age": hyper["age_weight"]}
    return sum(c[name] * terms[name] for name in terms), terms


@functools.cache
def started():
    return jax.jit(make_init(recipe_with()))(KEY, HYPER, X)


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("gradient", [None, microbatches(2), microbatches(8)])
def test_loss_gradient_and_metrics_are_those_of_the_definition(gradient):
    recipe = recipe_with() if gradient is None else recipe_with(gradient=gradient)
    start = started()
    after, found = jax.jit(make_step(recipe))(start, (X, Y), KEY, HYPER)
    (total, terms), grads = jax.value_and_grad(by_hand, has_aux=True)(start.params)
    np.testing.assert_allclose(found["loss"], total, rtol=1e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    change = jax.tree.map(lambda a, b: (a - b) / -HYPER["lr"], after.params, start.params)
    for got, expected in zip(jax.tree.leaves(change), jax.tree.leaves(grads), strict=True):
        # A change of parameters of about 1, divided by the lr: some roundings of 1e-7 times ten.
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_cut_changes_neither_loss_nor_penalty():
    penalty = lambda params, model_state: losses.l2_penalty(params)  # noqa: E731
    accumulation_equals_whole_batch(
        recipe_with(penalty=penalty), (X, Y), key=KEY, hyper=HYPER, parts=4
    )


def padded(n):
    """More examples, in which nothing counts."""
    return (
        np.pad(X, ((0, n), (0, 0)), constant_values=7.0),
        {
            "class": np.pad(Y["class"], (0, n), constant_values=-100),
            "box": {
                "at": np.pad(Y["box"]["at"], ((0, n), (0, 0)), constant_values=np.nan),
                "where": np.pad(Y["box"]["where"], ((0, n), (0, 0))),
            },
        },
    )


def two_terms(hyper):
    terms = {"class": (class_loss, 1.0), "box": (box_loss, hyper["box_weight"])}
    return recipe_with(
        model=parallel(**{"class": nn.linear(4), "box": nn.linear(2)}),
        loss=combine(terms),
        penalty=lambda params, model_state: losses.l2_penalty(params),
    )(hyper)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("parts", [1, 4])
def test_padding_changes_nothing(parts):
    recipe = lambda hyper: two_terms(hyper)._replace(gradient=microbatches(parts))  # noqa: E731
    padding_changes_nothing(recipe, padded(0), padded(16), key=KEY, hyper=HYPER)


@pytest.mark.slow
def test_an_evaluation_does_not_depend_on_the_batch_size():
    evaluation_does_not_depend_on_the_batch_size(
        recipe_with(), (X, Y), key=KEY, hyper=HYPER, batch_sizes=(1, 3)
    )
    found = jax.jit(make_evaluate(recipe_with(), batch_size=3))(started(), (X, Y), HYPER)
    total, terms = by_hand(started().params)
    assert sorted(found) == ["accuracy", "age", "box", "class", "loss"]
    np.testing.assert_allclose(found["loss"], total, rtol=1e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("gradient", [None, microbatches(4)])
def test_a_batch_without_weight_changes_nothing(gradient):
    changes = {} if gradient is None else {"gradient": gradient}
    recipe = lambda hyper: two_terms(hyper)._replace(**changes)  # noqa: E731
    x, y = jax.tree.map(lambda leaf: leaf[8:], padded(8))
    start = jax.jit(make_init(recipe))(KEY, HYPER, x)
    after, found = jax.jit(make_step(recipe))(start, (x, y), KEY, HYPER)
    assert found["loss"] == found["class"] == found["box"] == found["penalty"] == 0
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(start.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_term_without_weight_is_0_and_leaves_the_others_alone():
    y = {**Y, "box": {**Y["box"], "where": np.zeros((N, 2), bool)}}
    _, found = jax.jit(make_step(recipe_with()))(started(), (X, y), KEY, HYPER)
    _, terms = by_hand(started().params)
    np.testing.assert_allclose(found["loss"], terms["class"] + 2.0 * terms["age"], rtol=1e-5)
    assert found["box"] == 0


@pytest.mark.slow
def test_a_wrapped_combination_is_one_still():
    wrapped = lambda hyper: recipe_with()(hyper)._replace(  # noqa: E731
        loss=lambda z, y: recipe_with()(hyper).loss(z, y)
    )
    accumulation_equals_whole_batch(wrapped, (X, Y), key=KEY, hyper=HYPER, parts=4)


def test_a_step_of_one_term_is_that_of_the_loss_itself():
    labels = np.where(COUNTED, Y["class"], -100)
    one = lambda hyper: Recipe(  # noqa: E731
        nn.linear(4), class_loss, optim.sgd(), schedules.constant(hyper["lr"])
    )
    named = lambda hyper: one(hyper)._replace(  # noqa: E731
        loss=lambda z, y: combine({"class": (class_loss, 1.0)})({"class": z}, {"class": y})
    )
    start = jax.jit(make_init(one))(KEY, {"lr": 0.1}, X)
    (a, alone), (b, combined) = (
        jax.jit(make_step(r))(start, (X, labels), KEY, {"lr": 0.1}) for r in (one, named)
    )
    np.testing.assert_allclose(combined["class"], alone["loss"], rtol=1e-6)
    for p, q in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6)


def test_a_coefficient_has_a_hypergradient():
    step = make_step(recipe_with(measures=()))

    def loss(weight):
        return step(started(), BATCH, KEY, {**HYPER, "box_weight": weight})[1]["loss"]

    slope = jax.jit(jax.grad(loss))(0.3)
    np.testing.assert_allclose(slope, by_hand(started().params)[1]["box"], rtol=1e-5)


@pytest.mark.slow
def test_fit_and_its_helpers_take_several_terms():
    data = Data(train=(X, Y), valid=(X, Y))
    arguments = {"key": KEY, "hyper": HYPER, "batch_size": 4}
    result = fit(recipe_with(), data, steps=4, eval_every=2, progress=silent, **arguments)
    assert {"class", "box", "age"} <= result.history.train.keys() & result.history.valid.keys()
    assert lr_find(recipe_with(), data, steps=3, seeds=1, **arguments).losses.shape[-1] == 3


@pytest.mark.slow
def test_one_batch_of_several_terms_is_learned_by_heart():
    data = Data(train=(X, Y), valid=(X, Y))
    found = overfit_one_batch(recipe_with(), data, key=KEY, hyper=HYPER, batch_size=2)
    assert found.passed


@pytest.mark.slow
def test_private_gradients_refuse_terms():
    recipe = recipe_with(gradient=private_gradient(1.0, 0.0))
    with pytest.raises(
        ValueError, match=r"private_gradient: .* the terms \['age', 'box', 'class'\]"
    ):
        make_step(recipe)(started(), BATCH, KEY, HYPER)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least one term"),
        ({"loss": (losses.huber, 1.0)}, r"names that no metric has, got \['loss'\]"),
        ({"a": losses.huber}, r"expected 'a': \(loss, coefficient\)"),
        ({"a": (1.0, losses.huber)}, r"expected 'a': \(loss, coefficient\)"),
        ({"a": (losses.huber, jnp.ones(3))}, "with a scalar coefficient"),
    ],
)
def test_what_are_no_terms_is_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        combine(terms)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (jnp.ones(2), {"a": jnp.ones(2)}, "expected outputs in a dict with .*, got ArrayImpl"),
        ({"b": jnp.ones(2)}, {"a": jnp.ones(2)}, r"outputs for \['a'\], got none for \['a'\]"),
        ({"a": jnp.ones(2)}, {"b": jnp.ones(2)}, r"targets for \['a'\], got none for \['a'\]"),
        ({"a": jnp.ones((2, 1))}, {"a": jnp.ones(2)}, "huber: expected targets of the shape"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(outputs, targets, message):
    with pytest.raises(ValueError, match=message):
        combine({"a": (losses.huber, 1.0)})(outputs, targets)


def test_a_term_cannot_be_a_combination():
    inner = combine({"a": (losses.huber, 1.0)})
    with pytest.raises(ValueError, match="from the loss 'b', got Terms"):
        combine({"b": (inner, 1.0)})({"b": {"a": jnp.ones(2)}}, {"b": {"a": jnp.ones(2)}})


@pytest.mark.sampled(2)
@pytest.mark.parametrize("field", ["metrics", "train_metrics"])
def test_a_metric_with_the_name_of_a_term_is_refused(field):
    twice = {"class": metrics.mean(lambda z, y: z["age"][:, 0])}
    recipe = recipe_with(**{field: twice})
    with pytest.raises(ValueError, match=r"names that no metric has, got \['class'\]"):
        if field == "metrics":
            make_evaluate(recipe)(started(), BATCH, HYPER)
        else:
            make_step(recipe)(started(), BATCH, KEY, HYPER)


def test_terms_of_a_users_own_loss_are_checked():
    def own(z, y):
        return Terms({"a": Weighted(jnp.ones(3), jnp.ones(3))}, {"a": 1.0})

    with pytest.raises(ValueError, match=r"loss 'a': expected floats of shape \(8, ...\)"):
        make_step(recipe_with(loss=own))(started(), BATCH, KEY, HYPER)
