import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from fnn import nn

pytestmark = pytest.mark.slow  # whole trainings

precision = importlib.import_module("experiments.precision")


def test_the_table_has_a_row_for_each_precision(monkeypatch, capsys):
    two = {name: precision.PRECISIONS[name] for name in ("float32", "float16")}
    monkeypatch.setattr(precision, "PRECISIONS", two)
    precision.main(precision.Config(seeds=2, steps=2, warmup_steps=1, widths=(4,)))
    head, single, half, last, _ = capsys.readouterr().out.split("\n")
    assert head.startswith("computed in") and "two seeds" in last
    assert single.startswith("float32 ") and half.startswith("float16 ")
    apart = [float(row.split("%")[1].split()[-1]) for row in (single, half)]
    assert apart[0] == 0 <= apart[1] < 1  # after two steps the losses agree in four digits
    kept = [int(row.split(" B")[1].replace(",", "")) for row in (single, half)]
    assert kept[1] < kept[0]


def test_activations_are_what_depends_on_the_batch_and_half_of_it_in_16_bits():
    """One linear layer keeps its input, 5 elements for each of 8 examples."""
    config = precision.Config(batch_size=8)
    x, found = jnp.ones((20, 5)), {}
    for name in ("float32", "bfloat16"):
        mlp = precision.make_recipe(config, lambda recipe: recipe)(config.hyper)
        recipe = precision.PRECISIONS[name](mlp._replace(model=nn.linear(3)))
        params, state = recipe.model.init(jax.random.key(0), x)
        found[name] = precision.activations(recipe, params, state, x, config)
    assert found == {"float32": 8 * 5 * 4, "bfloat16": 8 * 5 * 2}


def test_curves_are_apart_by_a_fraction_of_the_first():
    a = np.array([[1.0, 3.0]])
    assert precision.apart(a, a) == 0
    np.testing.assert_allclose(precision.apart(a, a + 0.5), 25)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--widths", "0"), ("--seeds", "1"), ("--dropout-rate", "1"), ("--warmup-steps", "600")],
)
def test_a_wrong_argument_ends_precision_with_a_message_that_names_it(flag, value, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(precision.Config, args=[flag, value])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err
