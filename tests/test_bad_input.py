"""Bad input: a clear error before any training, from `check`, `fit` and `run` alike."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules
from fnn.checkpoint import RunDir
from fnn.recipe import Recipe
from fnn.train import check, fit, make_run, silent
from fnn.types import Batch, Data
from tests.tiny import BATCH, DATA, HYPER, KEY, recipe


@pytest.fixture(autouse=True)
def without_shape_hook():
    """Users have no hook that checks the annotations; what they give must reach our own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refused(match, data=DATA, recipe=recipe, **changes):
    """Whether `fit` and `run` both refuse, in the same words."""
    arguments = dict(key=KEY, hyper=HYPER, batch_size=BATCH) | changes
    key, hyper, batch_size = arguments["key"], arguments["hyper"], arguments["batch_size"]
    with pytest.raises(ValueError, match=match) as by_fit:
        fit(recipe, data, key=key, hyper=hyper, steps=3, batch_size=batch_size, progress=silent)
    with pytest.raises(ValueError, match=match) as by_run:
        make_run(recipe, steps=3, batch_size=batch_size)(key, hyper, data)
    assert "expected" in str(by_fit.value) and "got" in str(by_fit.value)
    if "batch_size" not in changes:
        assert str(by_fit.value) == str(by_run.value)


def with_train(x=DATA.train.x, y=DATA.train.y) -> Data:
    return Data(train=Batch(x, y), valid=DATA.valid)


def with_valid(x=DATA.valid.x, y=DATA.valid.y) -> Data:
    return Data(train=DATA.train, valid=Batch(x, y))


def test_a_wrong_rank():
    x = DATA.train.x
    refused(
        r"mlp: expected x of shape \(batch, features\), got \(16, 1, 2\)", with_train(x[:, None])
    )
    refused(r"mlp: expected x of shape \(batch, features\), got \(16,\)", with_train(x[:, 0]))


def test_a_wrong_feature_count_in_the_validation_data():
    x = np.ones((21, 3), np.float32)
    refused(
        r"linear: expected x with 2 features in its last axis, got shape \(21, 3\)", with_valid(x)
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("label", [-1, 2, 10**6])
def test_labels_out_of_range(label):
    y = DATA.train.y.copy()
    y[7] = label
    refused(rf"data.train.y: expected labels in \[0, 2\), got {label} at index 7", with_train(y=y))
    y = DATA.valid.y.copy()
    y[3] = label
    refused(rf"data.valid.y: expected labels in \[0, 2\), got {label} at index 3", with_valid(y=y))


def test_labels_that_the_loss_ignores_are_no_error():
    ignoring = lossy(lambda p, t: losses.cross_entropy(p, t, ignore_index=-100))
    y = DATA.train.y.copy()
    y[:3] = -100
    check(ignoring, with_train(y=y), key=KEY, hyper=HYPER, batch_size=BATCH)
    y[5] = 2
    with pytest.raises(ValueError, match="got 2 at index 5"):
        check(ignoring, with_train(y=y), key=KEY, hyper=HYPER, batch_size=BATCH)


def test_an_empty_dataset():
    refused(
        "data.train: expected at least one example, got an empty",
        with_train(DATA.train.x[:0], DATA.train.y[:0]),
    )
    refused(
        "data.valid: expected at least one example, got an empty",
        with_valid(DATA.valid.x[:0], DATA.valid.y[:0]),
    )


def test_a_batch_larger_than_the_data():
    refused("batch_size: expected at most the 50 examples of data.train, got 51", batch_size=51)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_batch_size_that_is_no_count(batch_size):
    refused("batch_size", batch_size=batch_size)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(value):
    x = DATA.train.x.copy()
    x[4, 1] = value
    refused(
        rf"data.train.x: expected finite numbers, got {value} at index \(4, 1\) \(1 in all\)",
        with_train(x),
    )


def test_mismatched_lengths():
    refused(
        r"data.train: expected one length for all arrays, got .*50.*49",
        with_train(y=DATA.train.y[:49]),
    )


def test_a_scalar_instead_of_an_array():
    refused("data.train.y: expected an array with the batch axis first", with_train(y=3.0))


def test_data_that_is_no_pair():
    refused(
        r"data.valid: expected a pair \(x, y\), got float32\[21,2\]",
        Data(train=DATA.train, valid=DATA.valid.x),
    )


def test_an_unknown_key_in_hyper():
    refused(
        r"recipe: expected only keys .*got also \['learning_rate'\]",
        hyper=HYPER | {"learning_rate": 1.0},
    )


def test_keys_that_are_read_late_or_by_a_map_over_hyper_are_no_error():
    def late(hyper):
        return recipe(hyper)._replace(penalty=lambda params, state: hyper["penalty"])

    check(late, DATA, key=KEY, hyper=HYPER | {"penalty": 0.1}, batch_size=BATCH)

    def mapped(hyper):
        return recipe({k: v for k, v in jax.tree.map(jnp.abs, hyper).items() if k in HYPER})

    check(mapped, DATA, key=KEY, hyper=HYPER | {"other": 0.1}, batch_size=BATCH)


def test_a_missing_key_in_hyper_with_the_nearest_name():
    hyper = {("warmup_step" if k == "warmup_steps" else k): v for k, v in HYPER.items()}
    refused(r"recipe: expected hyper\['warmup_steps'\].*did you mean 'warmup_step'", hyper=hyper)


def test_a_hyperparameter_that_is_no_number():
    expected = r"hyper\['lr'\]: expected a number or an array of numbers, got "
    refused(expected + "str", hyper=HYPER | {"lr": "0.1"})
    refused(expected + "<U3", hyper=HYPER | {"lr": np.array(["0.1"])})


def test_a_learning_rate_that_is_no_scalar():
    refused(
        r"warmup_cosine: expected peak to be a number, got .*float32\[2\]; use one value",
        hyper=HYPER | {"lr": np.ones(2)},
    )


@pytest.mark.slow
def test_an_array_of_numbers_is_a_hyperparameter_to_fit_and_run_alike():
    def tabled(hyper):
        return recipe(hyper)._replace(schedule=lambda step: hyper["table"][step])

    table = jnp.array([0.1, 0.2, 0.3], jnp.float32)
    hyper = HYPER | {"table": table}
    arguments = dict(key=KEY, hyper=hyper, steps=3, batch_size=BATCH, progress=silent)
    by_fit = fit(tabled, DATA, **arguments).history.train["lr"]
    by_run = make_run(tabled, steps=3, batch_size=BATCH)(KEY, hyper, DATA)[1].train["lr"]
    assert by_fit.tolist() == by_run.tolist() == table.tolist()


def test_a_recipe_that_returns_something_else():
    refused(
        "recipe: expected a Recipe from recipe.hyper., got tuple",
        recipe=lambda hyper: tuple(recipe(hyper)),
    )


def lossy(loss):
    return lambda hyper: recipe(hyper)._replace(loss=loss)


def test_a_loss_that_is_already_reduced():
    mean = lambda p, t: losses.cross_entropy(p, t).mean()  # noqa: E731
    refused(
        r"loss: expected floats of shape \(16, ...\), one loss per example, got float32\[\]",
        recipe=lossy(mean),
    )


def test_a_loss_that_is_not_one_array_of_floats():
    refused(
        "loss: expected an array of per-example losses or a Weighted, got tuple",
        recipe=lossy(lambda p, t: (p, t)),
    )
    refused(r"loss: expected floats .* got int32\[16\]", recipe=lossy(lambda p, t: t))


def test_targets_whose_shape_would_broadcast():
    regression = lambda hyper: recipe(hyper)._replace(loss=losses.mean_squared_error, metrics={})  # noqa: E731
    refused(
        "mean_squared_error: expected targets of the shape of the predictions", recipe=regression
    )


def test_dropout_without_a_key():
    model = models.mlp.mlp(models.mlp.MLPConfig(out_features=2), rate=0.5)
    params, state = model.init(KEY, DATA.train.x)
    with pytest.raises(ValueError, match="dropout: expected a key with train=True, got None"):
        model.apply(params, state, DATA.train.x, train=True)


@pytest.mark.parametrize("key", [0, jnp.zeros(2, jnp.uint32), None])
def test_a_key_that_is_not_typed(key):
    refused("key: expected a typed key, got", key=key)


def test_several_keys_at_once():
    keys = jax.random.split(jax.random.key(1), 3)
    refused(r"key: expected a single key, got \(3,\)", key=keys)


def test_a_model_state_that_changes_its_shape():
    def growing(hyper):
        model = nn.linear(2)

        def apply(params, state, x, *, key=None, train=False):
            return model.apply(params, state, x)[0], jnp.zeros(3)

        init = lambda key, x: (model.init(key, x)[0], jnp.zeros(2))  # noqa: E731
        return Recipe(
            model._replace(init=init, apply=apply),
            losses.cross_entropy,
            optim.sgd(),
            schedules.constant(hyper["lr"]),
        )

    refused(
        r"model_state: expected float32\[2\], got float32\[3\]", recipe=growing, hyper={"lr": 0.1}
    )


@pytest.mark.parametrize("name", ["steps", "eval_every", "eval_batch_size", "patience"])
def test_counts_that_are_no_counts(name):
    arguments = dict(key=KEY, hyper=HYPER, steps=3, batch_size=BATCH, progress=silent) | {name: 0}
    with pytest.raises(
        ValueError, match=f"fit: expected {name} to be a positive integer( or None)?, got 0"
    ):
        fit(recipe, DATA, **arguments)


def test_a_run_directory_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="RunDir: expected a directory that can be written to"):
        RunDir(file / "run")  # permissions would not stop root, a file in the way does


@pytest.mark.slow
def test_inside_jit_shapes_are_checked_and_values_are_not():
    run = make_run(recipe, steps=3, batch_size=BATCH)
    with pytest.raises(ValueError, match="data.train: expected one length"):
        jax.jit(run)(KEY, HYPER, with_train(y=DATA.train.y[:49]))
    x = np.full_like(DATA.train.x, np.nan)
    _, history = jax.jit(run)(KEY, HYPER, with_train(x))
    assert jnp.isnan(history.train["loss"]).all()


def test_good_input_passes():
    assert check(recipe, DATA, key=KEY, hyper=HYPER, batch_size=BATCH) is None
