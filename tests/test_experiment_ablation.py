import importlib
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from fnn.types import History

pytestmark = pytest.mark.slow  # whole trainings

ablation = importlib.import_module("experiments.ablation")
FILE = Path(ablation.__file__)
TINY = ["--seeds", "2", "--steps", "4", "--eval-every", "2", "--warmup-steps", "1"]


def test_the_table_has_the_whole_recipe_and_the_rows_that_were_asked_for(monkeypatch, capsys):
    rows = ["--widths", "4", "--only", "early stopping", "dropout"]
    monkeypatch.setattr("sys.argv", ["ablation.py", *TINY, *rows])
    runpy.run_path(str(FILE), run_name="__main__")
    head, whole, stopping, dropout, _, _ = capsys.readouterr().out.split("\n")
    assert head.startswith("without") and whole.startswith("the whole recipe")
    assert stopping.startswith("early stopping") and dropout.startswith("dropout")
    assert "±" not in whole and "±" in stopping and "±" in dropout
    for row in (whole, stopping, dropout):
        mean, _, n = row[30:].split()[:3]
        assert 0 <= float(mean) <= 100 and n == "2"


def test_every_row_but_the_first_changes_one_thing_and_trains():
    """Two steps of each program, whose recipe is only traced."""
    config = ablation.Config(widths=(4,), steps=4, warmup_steps=1, seeds=2)
    seen = set()
    for row in ablation.ROWS.values():
        seen.add((row.parts, tuple(row.hyper.items()), row.stops_early))
        hyper = config.hyper | row.hyper
        assert hyper.keys() == config.hyper.keys()
        recipe = ablation.make_recipe(row.parts, config)(hyper)
        x = jax.ShapeDtypeStruct((3, 64), jnp.float32)
        params, _ = jax.eval_shape(recipe.model.init, jax.random.key(0), x)
        assert jax.eval_shape(recipe.optimizer.init, params) is not None
        assert recipe.schedule(2) > 0
    assert len(seen) == len(ablation.ROWS)


def test_sgd_shrinks_the_kernels_as_adam_does():
    config = ablation.Config()
    assert np.isclose(
        ablation.SGD["lr"] * ablation.SGD["weight_decay"], config.lr * config.weight_decay
    )


def history(valid, test):
    return History(
        train={"loss": jnp.zeros((2, 1))},
        eval_steps=jnp.zeros((2, 3), jnp.int32),
        valid={"valid": jnp.array(valid), "test": jnp.array(test)},
    )


def test_early_stopping_takes_the_lowest_validation_loss_without_a_look_at_the_test_part():
    seen = history([[3.0, 1.0, 2.0], [jnp.nan, 2.0, jnp.nan]], [[0.9, 0.5, 0.8], [0.7, 0.6, 0.1]])
    np.testing.assert_allclose(ablation.accuracies(seen, True), [50, 60])
    np.testing.assert_allclose(ablation.accuracies(seen, False), [80, 10])


def test_the_difference_is_that_of_pairs_with_its_standard_error():
    whole = np.array([98.0, 99.0, 97.0])
    said = ablation.line("dropout", whole - [1.0, 2.0, 3.0], whole)
    assert said.split()[-3:] == ["-2.00", "±", "0.58"]  # 1 / sqrt(3)


def test_validation_and_test_part_are_told_apart_and_each_measured_by_itself():
    data = ablation.load(jax.random.key(0))
    assert (len(data.train.x), len(data.valid.x)) == (1258, 539)
    test = np.asarray(data.valid.y["test"])
    assert test.sum() == 270 and test[-270:].all() and not data.train.y["test"].any()
    y = {"label": jnp.array([1.0, 2.0, 3.0]), "test": jnp.array([False, True, True])}
    means = [
        metric.value(metric.measure(jnp.array([1.0, 5.0, 3.0]), y))
        for metric in (ablation.mean_on(part, lambda p, label: p - label) for part in (False, True))
    ]
    np.testing.assert_allclose(means, [0.0, 1.5])


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--only", "no such part"), ("--seeds", "1"), ("--lr", "0"), ("--warmup-steps", "1500")],
)
def test_a_wrong_argument_ends_ablation_with_a_message_that_names_it(flag, value, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(ablation.Config, args=[flag, value])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err
