"""Recipes with measures=(): the same training, without what its norms cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, nn, optim, report, schedules
from fnn.checkpoint import RunDir
from fnn.diagnose import overfit_one_batch
from fnn.recipe import Recipe
from fnn.train import fit, make_run, silent, sweep
from fnn.types import Batch, Data
from tests.tiny import BATCH, DATA, HYPER, KEY, assert_same_bits, recipe

SIZES = {"steps": 12, "batch_size": BATCH}


def without(hyper):
    return recipe(hyper)._replace(measures=())


@pytest.fixture(scope="module")
def plain():
    return jax.jit(make_run(without, **SIZES))(KEY, HYPER, DATA)


@pytest.mark.slow
def test_the_training_is_the_same_and_there_are_no_norms(plain):
    (state, history), (other, measured) = (
        plain,
        jax.jit(make_run(recipe, **SIZES))(KEY, HYPER, DATA),
    )
    # Other fusions round otherwise; 12 steps of Adam grow that.
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.train["loss"], measured.train["loss"], rtol=1e-5)
    np.testing.assert_array_equal(history.train["lr"], measured.train["lr"])
    assert history.train.keys() == {"loss", "lr"}
    assert measured.train.keys() - history.train.keys() == {
        "grad_norm",
        "update_norm",
        "param_norm",
    }
    assert all(np.isfinite(values).all() for values in measured.train.values())


def test_the_step_reads_no_leaf_for_its_norms():
    def dots_and_sums(made):
        return str(jax.make_jaxpr(make_run(made, **SIZES))(KEY, HYPER, DATA)).count("reduce_sum")

    assert dots_and_sums(without) < dots_and_sums(recipe)


@pytest.mark.slow
def test_fit_records_them_and_the_report_leaves_their_panels_out(plain, tmp_path):
    store = RunDir(tmp_path / "run")
    given = {"key": KEY, "hyper": HYPER, "store": store, "progress": silent}
    result = fit(without, DATA, **given, **SIZES)
    assert_same_bits(result.history.train, plain[1].train)
    read = fit(without, DATA, **given, **SIZES, resume=True)  # it has come to its end
    assert_same_bits(read.history.train, result.history.train)
    titles = [axes.get_title(loc="left") for axes in report.curves.draw(result.history).axes]
    assert titles == ["loss", "accuracy", "learning rate"]


def test_a_member_of_a_sweep_is_frozen_before_parameters_that_are_not_finite():
    x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    line = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x))

    def made(hyper):
        schedule = schedules.constant(hyper["lr"])
        return Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(), schedule, measures=())

    # The first loss is finite, and the first update is not.
    settings = {"lr": np.array([0.1, np.inf], np.float32)}
    died = sweep(made, line, settings, KEY[None], steps=4, batch_size=4, progress=silent)
    assert died.made[:, 0].tolist() == [4, 0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(died.member(1).params))


@pytest.mark.slow
def test_overfit_one_batch_measures_what_it_tells():
    result = overfit_one_batch(without, DATA, key=KEY, hyper=HYPER, batch_size=4, steps=5)
    assert jnp.isfinite(result.train["grad_norm"]).all()
