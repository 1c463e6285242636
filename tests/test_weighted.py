"""Weighted losses: one division, by all that counts, however a batch is cut or padded."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, metrics, nn, optim, schedules
from fnn.diagnose import lr_find, overfit_one_batch
from fnn.nn import sequential
from fnn.recipe import Recipe
from fnn.testing import (
    accumulation_equals_whole_batch,
    evaluation_does_not_depend_on_the_batch_size,
    padding_changes_nothing,
)
from fnn.train import fit, make_init, make_step, microbatches, silent
from fnn.types import Data, Model, Weighted
from tests.tiny import KEY

BATCH, TIME, CLASSES = 8, 6, 5
IGNORED = -100
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(BATCH, TIME, 3)).astype(np.float32)
# Unequal counts in the parts: the first half counts nearly all, the second nearly nothing.
LABELS = RANDOM.integers(CLASSES, size=(BATCH, TIME)).astype(np.int32)
COUNTED = RANDOM.uniform(size=(BATCH, TIME)) < np.linspace(1, 0.1, BATCH)[:, None]
LABELS = np.where(COUNTED, LABELS, IGNORED)
WEIGHTS = jnp.array([0.5, 1.0, 2.0, 0.1, 3.0])
HYPER = {"lr": 0.1}

token_loss = partial(losses.cross_entropy, ignore_index=IGNORED)
class_loss = partial(token_loss, class_weights=WEIGHTS, label_smoothing=0.1)
LOSSES = {"ignored labels": token_loss, "class weights and smoothing": class_loss}


def recipe_with(loss=token_loss, **changes):
    def recipe(hyper):
        plain = Recipe(
            model=sequential(nn.linear(7), jnp.tanh, nn.linear(CLASSES)),
            loss=loss,
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
            metrics={"accuracy": metrics.accuracy(ignore_index=IGNORED)},
            train_metrics={"accuracy": metrics.accuracy(ignore_index=IGNORED)},
        )
        return plain._replace(**changes)

    return recipe


@functools.cache
def compiled(recipe):
    return jax.jit(make_init(recipe)), jax.jit(make_step(recipe))


def stepped(recipe, batch=(X, LABELS)):
    """The gradient, as the change of the parameters, and the metrics of a step."""
    init, step = compiled(recipe)
    start = init(KEY, HYPER, batch[0])
    after, found = step(start, batch, KEY, HYPER)
    change = jax.tree.map(lambda a, b: (a - b) / -HYPER["lr"], after.params, start.params)
    return change, found, start


def expect_close(got, expected, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # Of a change of parameters of about 1: six roundings of them over the lr.
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 10 * float(np.abs(b).max()))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_mean_over_what_counts(name):
    change, found, start = stepped(recipe_with(LOSSES[name]))
    model = recipe_with()(HYPER).model

    def mean_over_counted(params):
        logits, _ = model.apply(params, (), jnp.asarray(X))
        rows = LOSSES[name](logits[COUNTED], jnp.asarray(LABELS[COUNTED]))
        return (rows.values * rows.weights).sum() / rows.weights.sum()

    value, grads = jax.jit(jax.value_and_grad(mean_over_counted))(start.params)
    np.testing.assert_allclose(found["loss"], value, rtol=1e-6)
    expect_close(change, grads)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("parts", [2, 8])
def test_parts_with_unequal_counts_are_the_whole_batch(name, parts):
    recipe = recipe_with(LOSSES[name])
    accumulation_equals_whole_batch(recipe, (X, LABELS), key=KEY, hyper=HYPER, parts=parts)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", LOSSES)
def test_evaluations_in_batches_of_unequal_size_and_count_are_the_whole(name):
    recipe = recipe_with(LOSSES[name])
    evaluation_does_not_depend_on_the_batch_size(recipe, (X, LABELS), key=KEY, hyper=HYPER)


def padded(n):
    x = np.pad(X, ((0, n), (0, n), (0, 0)), constant_values=7.0)
    return x, np.pad(LABELS, ((0, n), (0, n)), constant_values=IGNORED)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", LOSSES)
def test_more_padding_changes_neither_loss_nor_gradient_nor_metrics(name):
    padding_changes_nothing(recipe_with(LOSSES[name]), padded(0), padded(16), key=KEY, hyper=HYPER)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("gradient", [None, microbatches(4)])
def test_a_batch_without_anything_that_counts_has_loss_penalty_and_gradient_0(gradient):
    changes = {} if gradient is None else {"gradient": gradient}
    penalty = lambda params, _: 0.1 * sum(jnp.square(p).sum() for p in jax.tree.leaves(params))  # noqa: E731
    recipe = recipe_with(penalty=penalty, **changes)
    change, found, _ = stepped(recipe, (X, np.full_like(LABELS, IGNORED)))
    assert found["loss"] == found["penalty"] == found["grad_norm"] == found["accuracy"] == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(change))


def whose_state_is_its_batch(out_features):
    """A linear model whose state, as the load balance of experts, follows from the batch."""
    linear = nn.linear(out_features)

    def init(key, x):
        return linear.init(key, x)[0], jnp.float32(0)

    def apply(params, model_state, x, *, key=None, train=False):
        return linear.apply(params, (), x)[0], jnp.square(x @ params["kernel"]).mean()

    return Model(init, apply)


EXPERTS = sequential(nn.linear(6), nn.moe(8, num_experts=4), nn.linear(CLASSES))
PENALIZED = [
    pytest.param(whose_state_is_its_batch(CLASSES), lambda s: 0.3 * s, id="a mean"),
    pytest.param(
        EXPERTS,
        lambda s: 0.3 * (s[1]["load_balance"] + s[1]["router_z"]),
        id="experts",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("model", "of_state"), PENALIZED)
def test_a_penalty_weighs_a_part_as_its_losses_do(model, of_state):
    """A penalty on the model state, which each part of a batch leaves anew."""

    def penalty(params, model_state):
        return of_state(model_state)

    whole = stepped(recipe_with(model=model, penalty=penalty, gradient=microbatches(2)))
    alone = recipe_with(model=model, penalty=penalty)
    halves = [stepped(alone, (X[part], LABELS[part])) for part in (slice(0, 4), slice(4, 8))]
    counts = np.float32([COUNTED[:4].sum(), COUNTED[4:].sum()])
    for name in ("loss", "penalty"):
        expected = np.dot(counts, [found[name] for _, found, _ in halves]) / counts.sum()
        np.testing.assert_allclose(whole[1][name], expected, rtol=1e-5)
    mean = jax.tree.map(
        lambda a, b: (counts[0] * a + counts[1] * b) / counts.sum(), halves[0][0], halves[1][0]
    )
    expect_close(whole[0], mean, 1e-4)


def test_weights_may_be_learned_through_a_step():
    """Weights depend on a hyperparameter; so do the mean and its divisor."""

    def recipe(hyper):
        return recipe_with(
            partial(token_loss, class_weights=WEIGHTS * hyper["rare"] ** jnp.arange(5.0))
        )({"lr": hyper["lr"]})

    start = jax.jit(make_init(recipe))(KEY, HYPER | {"rare": 1.0}, X)
    step = make_step(recipe)
    batch = jnp.asarray(X), jnp.asarray(LABELS)
    loss_of = jax.jit(lambda rare: step(start, batch, KEY, HYPER | {"rare": rare})[1]["loss"])
    h = 1e-2
    slope = (loss_of(1 + h) - loss_of(1 - h)) / (2 * h)
    # Central differences in float32: 1e-7 of the loss over h.
    np.testing.assert_allclose(jax.grad(loss_of)(1.0), slope, rtol=1e-2)


ONE = np.full_like(LABELS, IGNORED)
ONE[:, 0] = LABELS[0, 0]  # one token of each example counts, the others are padding


@pytest.mark.slow
def test_fit_divides_by_what_counts():
    data = Data(train=(X, ONE), valid=(X, ONE))
    recipe = recipe_with()
    arguments = dict(key=KEY, hyper=HYPER, batch_size=BATCH)
    result = fit(recipe, data, steps=3, progress=silent, **arguments)
    alone = fit(
        recipe_with(losses.cross_entropy),
        Data(train=(X[:, :1], ONE[:, :1]), valid=(X[:, :1], ONE[:, :1])),
        steps=3,
        progress=silent,
        **arguments,
    )
    expect_close(result.history.train, alone.history.train, 1e-4)
    expect_close(result.history.valid, alone.history.valid, 1e-4)


@pytest.mark.slow
def test_lr_find_and_overfit_divide_by_what_counts():
    data = Data(train=(X, ONE), valid=(X, ONE))
    arguments = dict(key=KEY, batch_size=BATCH)
    curve = lr_find(recipe_with(), data, steps=3, seeds=1, hyper=HYPER, **arguments)
    _, found, _ = stepped(recipe_with(), (X, ONE))
    np.testing.assert_allclose(curve.losses[0, 0], found["loss"], rtol=1e-5)
    assert overfit_one_batch(recipe_with(), data, hyper={"lr": 1.0}, **arguments).passed


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda z, y: Weighted(jnp.ones((BATCH, TIME)), jnp.ones(BATCH)), "one weight per loss"),
        (lambda z, y: (jnp.ones(BATCH), jnp.ones(BATCH)), "or a Weighted, got tuple"),
        (lambda z, y: Weighted(jnp.ones(2), jnp.ones(2)), r"expected floats of shape \(8, ...\)"),
    ],
)
def test_what_is_no_loss_is_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        stepped(recipe_with(loss))


@pytest.mark.slow
def test_targets_that_are_missing_may_be_nan_where_the_loss_masks_them():
    y = np.where(COUNTED, 1.0, np.nan).astype(np.float32)[..., None]
    data = Data(train=(X, y), valid=(X, y))

    def masked(outputs, targets):
        return losses.mean_squared_error(outputs, targets, where=~jnp.isnan(targets))

    def regression(loss):
        return lambda hyper: Recipe(
            nn.linear(1), loss, optim.sgd(), schedules.constant(hyper["lr"])
        )

    arguments = dict(key=KEY, hyper=HYPER, steps=4, batch_size=4, progress=silent)
    result = fit(regression(masked), data, **arguments)
    assert np.isfinite(result.history.train["loss"]).all()
    with pytest.raises(ValueError, match=r"data.train.y: expected finite .*, or mask them in the"):
        fit(regression(losses.mean_squared_error), data, **arguments)
