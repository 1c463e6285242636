"""The experiment on names, on a few made of two letters."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from fnn import data, models
from fnn.data import Characters

names_rnn = importlib.import_module("experiments.names_rnn")
NAMES = ("ab", "ba", "aab", "b") * 600  # 2,000 are kept back
LETTERS = Characters.of(".ab")
TINY = {
    "steps": 4, "warmup_steps": 1, "eval_every": 2, "widths": (4,), "features": 3, "batch_size": 8,
    "samples": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a small run, and what it printed."""
    out, lines = tmp_path_factory.mktemp("names") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name, root: NAMES)
        patch.setattr("builtins.print", lambda *a, **k: lines.append(str(a[0])))
        names_rnn.main(names_rnn.Config(out=out, **TINY))
    return out, lines


@pytest.mark.slow
def test_it_trains_evaluates_and_writes_names(small):
    out, lines = small
    files = {"best.safetensors", "config.json", "curves.png", "last.safetensors", "metrics.jsonl"}
    assert {path.name for path in out.iterdir()} == files
    assert json.loads((out / "config.json").read_text())["widths"] == [4]
    text = "\n".join(lines)
    # An untrained network over three letters is about as sure as a guess, log 3 = 1.10 nats.
    found = [float(line.split()[1]) for line in lines if line.startswith(("valid", "test"))]
    assert len(found) == 2 and all(0.5 < nats < 2 for nats in found)
    assert "new names: " in text and set(text.split("new names: ")[1].split("\n")[0]) <= set("ab* ")


def test_a_name_is_read_from_its_beginning_and_ends_with_its_end():
    x, y = names_rnn.encode(["ab", "aab"], LETTERS)
    assert x.tolist() == [[0, 1, 2, 0], [0, 1, 1, 2]]
    assert y.tolist() == [[1, 2, 0, names_rnn.PADDING], [1, 1, 2, 0]]


def test_the_loss_is_minus_the_logarithm_of_the_probability_of_the_name():
    _, y = names_rnn.encode(["ab", "aab"], LETTERS)
    logits = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = [
        -np.log(p[0, 0, 1] * p[0, 1, 2] * p[0, 2, 0]),
        -np.log(p[1, 0, 1] * p[1, 1, 1] * p[1, 2, 2] * p[1, 3, 0]),
    ]
    config = names_rnn.Config(**TINY)
    recipe = names_rnn.make_recipe(config, names_rnn.make_model(config, LETTERS))(config.hyper)
    losses = recipe.loss(jnp.asarray(logits), jnp.asarray(y))
    # float32, a sum of seven logarithms; 2 + 3 letters and 2 ends
    np.testing.assert_allclose(losses.sum(), sum(expected), rtol=1e-5)
    np.testing.assert_allclose(losses.mean(), sum(expected) / 7, rtol=1e-5)


def test_every_name_is_in_one_part_and_1000_are_held_out_for_each():
    examples, test, letters = names_rnn.load(jax.random.key(0), NAMES)
    assert letters.symbols == ".ab"
    assert [len(part.y) for part in (examples.train, examples.valid, test)] == [400, 1000, 1000]
    rows = np.concatenate([examples.train.y, examples.valid.y, test.y])
    words = [letters.decode(row[row > 0]) for row in rows]
    assert sorted(words) == sorted(NAMES)


@pytest.mark.slow
def test_names_are_drawn_with_the_probabilities_of_the_network():
    # A head of zeros but for its bias: every letter is drawn from the same three probabilities.
    shape = models.rnn_lm.RNNLMConfig(vocab_size=3, features=2, widths=(2,), cell=models.rnn_lm.RNN)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params, _ = models.rnn_lm.rnn_lm(shape).init(jax.random.key(0), tokens)
    p = np.array([0.5, 0.4, 0.1])
    params["head"] = {"kernel": jnp.zeros((2, 3)), "bias": jnp.log(jnp.asarray(p, jnp.float32))}
    drawn = names_rnn.sample(
        shape, params, jax.random.key(1), LETTERS, n=4000, longest=8, temperature=1.0
    )
    # Five standard deviations of a share among 4,000.
    assert abs(np.mean([name == "" for name in drawn]) - 0.5) < 0.04
    assert abs(np.mean([name.startswith("a") for name in drawn]) - 0.4) < 0.04
    cold = names_rnn.sample(
        shape, params, jax.random.key(1), LETTERS, n=4000, longest=8, temperature=0.5
    )
    sharper = p**2 / (p**2).sum()
    assert abs(np.mean([name == "" for name in cold]) - sharper[0]) < 0.04


WRONG = {
    "--cell": ["transformer"],
    "--temperature": ["0"],
    "--widths": [],
    "--dropout-rate": ["1"],
    "--warmup-steps": ["100000"],
}


@pytest.mark.parametrize("flag", WRONG)
def test_a_wrong_argument_ends_it_with_a_message_that_names_it(flag, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(names_rnn.Config, args=[flag, *WRONG[flag]])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err


def test_it_says_where_it_looked_for_its_data(tmp_path):
    with pytest.raises(SystemExit, match=f"names_rnn.py: data.load: expected .* in .*{tmp_path}"):
        names_rnn.main(names_rnn.Config(root=str(tmp_path)))


def test_it_never_writes_into_a_run_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(data, "load", lambda name, root: NAMES)
    with pytest.raises(SystemExit, match="--out: expected a new directory"):
        names_rnn.main(names_rnn.Config(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
