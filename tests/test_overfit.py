"""One fault at a time in a recipe that is sound: the first advice names it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, optim, schedules
from fnn.combinators import sequential
from fnn.recipe import Recipe
from fnn.train import overfit_one_batch
from fnn.types import Batch, Data, Model, Optimizer

KEY, N, FEATURES, CLASSES, BATCH = jax.random.key(0), 24, 32, 3, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, FEATURES)).astype(np.float32)
Y = RNG.integers(CLASSES, size=N).astype(np.int32)  # by chance: a single batch can be learned still


def data(x=X, y=Y):
    return Data(train=Batch(x, y), valid=Batch(x, y))


def recipe(hyper, **changes):
    """Linear, with more inputs than examples: its loss goes to zero at an lr around 1."""
    sound = Recipe(
        models.dense(CLASSES), losses.cross_entropy, optim.sgd(), schedules.constant(hyper["lr"])
    )
    return sound._replace(**changes)


def with_changes(**changes):
    return lambda hyper: recipe(hyper, **changes)


def overfit(recipe=recipe, data=data(), lr=1.0, **arguments):
    return overfit_one_batch(
        recipe, data, key=KEY, hyper={"lr": lr}, batch_size=BATCH, **{"steps": 100} | arguments
    )


def on_outputs(change):
    inner = models.dense(CLASSES)

    def apply(params, model_state, x, *, key=None, train=False):
        y, _ = inner.apply(params, model_state, x)
        return change(y, x), model_state

    return Model(inner.init, apply)


def test_a_sound_recipe_passes_and_nothing_is_said():
    result = overfit()
    assert result.passed and result.advice == ()
    assert result.evidence.last_loss < 0.02 * result.evidence.first_loss
    assert set(result.evidence.last_losses) == {1.0}  # no other trials
    assert result.train["loss"].shape == result.train["grad_norm"].shape == (100,)
    assert len(result.evidence.indices) == BATCH
    assert "near zero" in str(result) and "not near zero" not in str(result)


def test_an_lr_that_is_too_low_is_told_by_a_higher_one():
    result = overfit(lr=1e-3)
    assert not result.passed
    assert result.advice[0].startswith("The lr is too low: at 1000 times 0.001 the loss falls to")
    assert "not near zero" in str(result) and "  1. The lr is too low" in str(result)


def test_an_lr_that_is_too_high_is_told_by_a_lower_one():
    result = overfit(with_changes(loss=losses.mean_squared_error), one_hot(), lr=3.0)
    assert not result.passed and result.evidence.broken_step is not None
    assert result.advice[0].startswith("The lr is too high: at 0.1 times 3 the loss falls to")
    assert any("not finite from step" in text for text in result.advice)


def one_hot():
    return data(y=np.eye(CLASSES, dtype=np.float32)[Y])


def test_leaves_without_a_gradient_are_named():
    model = sequential(
        first=models.dense(8), cut=jax.lax.stop_gradient, last=on_outputs(lambda y, x: 0.01 * y)
    )
    result = overfit(with_changes(model=model), steps=20)
    assert result.evidence.without_gradient == ("first/bias", "first/kernel")
    assert result.advice[0].startswith("No gradient reaches first/bias, first/kernel: look for a")


def test_a_model_that_is_cut_off_wholly_is_told_so():
    result = overfit(with_changes(model=on_outputs(lambda y, x: jax.lax.stop_gradient(y))))
    assert result.advice[0].startswith("No gradient reaches all leaves")


def test_leaves_that_an_optimizer_freezes_are_named():
    def update(grads, state, params, lr, objective=None):
        return {"kernel": 0 * grads["kernel"], "bias": -lr * grads["bias"]}, state

    frozen = Optimizer(lambda params: (), update)
    result = overfit(with_changes(optimizer=frozen), steps=20)
    assert result.evidence.unmoved == ("kernel",)
    assert any("but kernel do not move: the optimizer freezes" in text for text in result.advice)


def test_updates_of_the_wrong_sign_are_told_before_the_lr():
    def update(grads, state, params, lr, objective=None):
        return jax.tree.map(lambda g: lr * g, grads), state

    result = overfit(with_changes(optimizer=Optimizer(lambda params: (), update)), steps=20)
    assert result.advice[0].startswith("The first update goes up the gradient: a sign is wrong")


def test_a_loss_of_the_wrong_sign_does_not_pass():
    negative = with_changes(loss=lambda p, y: -losses.cross_entropy(p, y))
    result = overfit(negative, steps=20)
    assert not result.passed and result.advice[0].startswith("The loss is negative")


def test_a_prediction_that_does_not_depend_on_the_input_is_told():
    model = on_outputs(lambda y, x: y.mean(axis=0, keepdims=True) + 0 * y)
    result = overfit(with_changes(model=model))
    assert result.advice[0].startswith("The prediction is the same for all inputs (which cannot")
    assert result.evidence.last_loss > 0.99 * result.evidence.constant_loss


def test_one_input_with_two_targets_is_told_with_its_examples():
    x = X.copy()
    first = overfit(steps=1).evidence.indices
    pairs = [
        (first[i], first[j]) for i in range(BATCH) for j in range(i) if Y[first[i]] != Y[first[j]]
    ]
    x[pairs[0][0]] = x[pairs[0][1]]
    result = overfit(data=data(x))
    assert sorted(result.evidence.twins[0]) == sorted(pairs[0])
    assert result.advice[0].startswith("The same input has different targets, as the examples")
    assert "Most of the loss that is left is in the examples" not in result.advice[0]


def test_inputs_that_are_all_the_same_are_told():
    result = overfit(data=data(np.ones_like(X)), steps=20)
    assert result.advice[0].startswith("All inputs of the batch are the same")


def test_a_first_loss_that_is_not_finite_is_not_blamed_on_the_lr():
    result = overfit(with_changes(loss=lambda p, y: losses.cross_entropy(p, y) / 0.0), steps=5)
    assert not result.passed and result.evidence.broken_step == 0
    assert result.advice[0].startswith("The first loss is not finite, before any update")


def test_a_loss_with_a_floor_is_told_by_its_gradient():
    def smooth(p, y):
        return losses.cross_entropy(p, y, label_smoothing=0.3)

    result = overfit(with_changes(loss=smooth))
    assert not result.passed
    assert result.advice[0].startswith("The gradient has vanished")


def test_a_schedule_that_ends_too_soon_is_told():
    def short(hyper):
        schedule = lambda step: jnp.where(step < 3, hyper["lr"], 0.0).astype(jnp.float32)  # noqa: E731
        return recipe(hyper, schedule=schedule)

    result = overfit(short, lr=0.1)
    assert any(text.startswith("The schedule is at an end") for text in result.advice[:2])


def test_augmentation_penalty_and_noise_are_out_of_the_way():
    model = sequential(models.dropout(0.5), models.dense(CLASSES))
    hostile = with_changes(
        model=model,
        augment=lambda key, batch: (jnp.zeros_like(batch[0]), batch[1]),
        penalty=lambda params, state: 100.0,
    )
    result = overfit(hostile)
    assert result.passed and result.evidence.noisy
    assert not overfit(steps=1).evidence.noisy


def test_a_hyperparameter_that_only_the_penalty_reads_is_not_taken_for_a_misspelt_one():
    def decayed(hyper):
        return recipe(hyper, penalty=lambda params, state: hyper["decay"])

    hyper = {"lr": 1.0, "decay": 0.1}
    result = overfit_one_batch(decayed, data(), key=KEY, hyper=hyper, batch_size=BATCH, steps=2)
    assert result.train["loss"].shape == (2,)


def test_running_statistics_that_lag_are_told_although_the_batch_is_learned():
    model = sequential(models.batch_norm(decay=0.99999), models.dense(CLASSES))
    far = data(X * 30 + 100)
    result = overfit(with_changes(model=model), far, lr=0.3)
    assert result.passed
    assert result.advice[0].startswith("In evaluation the loss of the same batch is")


def test_bad_arguments_are_refused_as_a_fit_refuses_them():
    with pytest.raises(ValueError, match="batch_size: expected at most the 24 examples"):
        overfit_one_batch(recipe, data(), key=KEY, hyper={"lr": 1.0}, batch_size=25)
    with pytest.raises(ValueError, match="expected steps to be a whole number above 0"):
        overfit(steps=0)
