"""The experiment on mixtures, with few steps."""

import importlib

import jax
import numpy as np
import pytest
import tyro

mixture = importlib.import_module("experiments.mixture")


@pytest.mark.slow
def test_it_prints_a_row_for_each_weight(capsys):
    mixture.main(mixture.Config(weights=(0.0, 0.5, 1.0), steps=60, batch_size=8, seeds=2))
    head, *rows, last = capsys.readouterr().out.strip().split("\n")
    assert head.startswith("clean in a batch") and last.endswith(" s")
    assert [row.split()[0] for row in rows] == ["0", "50", "100"]
    assert all(0 <= float(row.split()[2]) <= 100 for row in rows)
    assert rows[-1].split()[-3:] == ["+0.00", "±", "0.00"]  # less itself


@pytest.mark.slow
def test_only_the_labels_behind_the_clean_source_are_noisy():
    config, key = mixture.Config(noise=0.5), jax.random.key(0)
    (data, whole), (train, test) = mixture.digits.load(key), mixture.sources(config, key)
    differ = np.asarray(train.y != data.train.y)
    assert not differ[: config.clean].any()
    # A random label is the true one in a tenth of the cases: 0.45 of 1,158, five deviations.
    assert abs(differ[config.clean :].mean() - 0.45) < 0.075
    np.testing.assert_array_equal(test.y, whole.y)


@pytest.mark.parametrize(
    ("flag", "values"),
    [("--weights", []), ("--weights", ["1.5"]), ("--noise", ["2"]), ("--seeds", ["1"])],
)
def test_a_wrong_argument_ends_it_with_a_message_that_names_it(flag, values, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(mixture.Config, args=[flag, *values])
    output = capsys.readouterr()
    assert end.value.code == 2 and flag in output.out + output.err
