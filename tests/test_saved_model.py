"""A trained model in one file, read where nothing of the training is known."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import checkpoint, models, nn, optim
from fnn.activations import tanh
from fnn.checkpoint import load_model, save_model
from fnn.train import fit, predict, silent, trained_params
from fnn.types import Model
from tests.tiny import BATCH, DATA, HYPER, KEY, assert_same_bits, recipe

X = DATA.valid.x
CONFIG = {"widths": [8], "out_features": 2}


def make_model(config, norm=nn.batch_norm):
    return models.mlp.mlp(
        models.mlp.MLPConfig(
            widths=tuple(config["widths"]), out_features=config["out_features"], activation=tanh,
            norm=norm,
        )
    )  # fmt: skip


def averaged(hyper):
    r = recipe(hyper)
    return r._replace(optimizer=optim.ema(r.optimizer, decay=0.9))


TRAINING = dict(recipe=averaged, hyper=HYPER, x=X, config=CONFIG)


@pytest.fixture(scope="module")
def state():
    return fit(averaged, DATA, key=KEY, hyper=HYPER, steps=8, batch_size=BATCH,
               progress=silent).state  # fmt: skip


@pytest.fixture
def path(tmp_path, state):
    save_model(tmp_path / "model.safetensors", state, **TRAINING)
    return tmp_path / "model.safetensors"


def test_the_weights_are_those_to_evaluate_with(path, state):
    loaded = load_model(path, make_model)
    assert_same_bits(loaded.params, trained_params(averaged, state, HYPER))
    assert_same_bits(loaded.model_state, state.model_state)
    assert loaded.config == CONFIG
    outputs, _ = loaded.model.apply(loaded.params, loaded.model_state, jnp.asarray(X))
    expected = predict(averaged, state, X, hyper=HYPER)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)  # compiled otherwise


OTHER = """
import sys
import numpy as np
from fnn.activations import tanh
from fnn.checkpoint import load_model
from fnn.models.mlp import MLPConfig, mlp
from fnn.nn import batch_norm
def make_model(c):
    widths, out_features = tuple(c["widths"]), c["out_features"]
    config = MLPConfig(widths=widths, out_features=out_features, activation=tanh, norm=batch_norm)
    return mlp(config)
m = load_model(sys.argv[1], make_model)
np.save(sys.argv[2], m.model.apply(m.params, m.model_state, np.load(sys.argv[3]))[0])
"""


def test_another_process_gives_the_same_outputs(path, tmp_path, state):
    np.save(tmp_path / "x.npy", X)
    files = [str(path), str(tmp_path / "y.npy"), str(tmp_path / "x.npy")]
    subprocess.run([sys.executable, "-c", OTHER, *files], check=True)
    expected = predict(averaged, state, X, hyper=HYPER)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


def test_it_starts_a_fine_tuning(path):
    loaded = load_model(path, make_model)
    start = (loaded.params, loaded.model_state)
    result = fit(recipe, DATA, key=KEY, hyper=HYPER | {"lr": 0.0}, steps=1, batch_size=BATCH,
                 init=start, progress=silent)  # fmt: skip
    assert_same_bits(result.state.params, loaded.params)


CONTAINERS = {
    "lists and tuples": {"a": [{"w": np.ones(2)}, (np.zeros(1), {"b": np.ones(1)})], "c": ()},
    "an array": np.ones((2, 3)),
    "nothing": (),
    "none": {"a": None, "b": np.ones(1)},
    "names with slashes and digits": {"0": {"1/2": np.ones(1)}, "é": [np.zeros(2)]},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_tree_of_dicts_lists_and_tuples_comes_back(tmp_path, name):
    params = jax.tree.map(np.float32, CONTAINERS[name])
    model = Model(lambda key, x: (params, (params,)), lambda p, s, x, **_: (x, s))
    save_model(tmp_path / "m", (params, (params,)), config=None, x={"i": X})
    loaded = load_model(tmp_path / "m", lambda config: model)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(params)
    assert_same_bits(loaded.params, params)
    assert_same_bits(loaded.model_state, (params,))


def test_a_state_needs_its_recipe(tmp_path, state):
    with pytest.raises(ValueError, match="save_model: expected recipe= and hyper= with a TrainSta"):
        save_model(tmp_path / "m", state, config=CONFIG, x=X)


@pytest.mark.parametrize(
    "config", [{"f": tanh}, {"n": np.float32(1)}, {"x": float("nan")}, {1: 2}, {"a": {1: 2}}]
)
def test_a_config_that_is_no_json(tmp_path, state, config):
    with pytest.raises(ValueError, match="save_model: expected a config"):
        save_model(tmp_path / "m", state, **(TRAINING | {"config": config}))
    assert not (tmp_path / "m").exists()


def test_containers_that_need_code(tmp_path, state):
    with pytest.raises(ValueError, match="got AdamState at '/params/a'|got TrainState at"):
        save_model(tmp_path / "m", ({"a": state}, ()), config=None, x=X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda c: make_model(c | {"widths": [9]}),
            r"kernel: expected float32\[2,9\], got float32",
        ),
        (lambda c: make_model(c | {"widths": [8, 8]}), "got no such leaf"),
        (lambda c: make_model(c, norm=None), "expected no such leaf, got float32"),
        (lambda c: c["depth"], "expected make_model to accept the config .* KeyError: 'depth'"),
        (lambda c: models.mlp.MLPConfig(**c, depth=3), "CallError: MLPConfig"),
        (lambda c: "model", "expected a Model from make_model, got str"),
    ],
)
def test_a_config_that_does_not_fit(path, make, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path, make)
    assert "checkpoint.load_model" in str(caught.value) and path.name in str(caught.value)


def test_damaged_files(path):
    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"pickle"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or foreign"):
            load_model(path, make_model)
    flipped = bytearray(content)
    flipped[-1] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match="got damage in"):
        load_model(path, make_model)


def test_a_checkpoint_of_a_run_is_no_model(tmp_path, state):
    checkpoint.save(tmp_path / "last", state, {"step": 8})
    with pytest.raises(
        ValueError, match="expected a model of version 1, got a checkpoint of a run"
    ):
        load_model(tmp_path / "last", make_model)


@pytest.mark.parametrize("name", ["_MODEL_VERSION", "_FORMAT"])
def test_other_versions(path, monkeypatch, name):
    monkeypatch.setattr(checkpoint, name, {"_MODEL_VERSION": 2, "_FORMAT": "fnn-2"}[name])
    with pytest.raises(
        ValueError, match="expected a model of version 2, got version 1|fnn-2.*fnn-1"
    ):
        load_model(path, make_model)
    if name == "_FORMAT":
        with pytest.raises(ValueError, match="expected the format 'fnn-2' .* got 'fnn-1'"):
            checkpoint.load(path, {})
