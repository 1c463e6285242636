"""The experiments on MNIST and Fashion-MNIST, on a few images of noise."""

import importlib
import json

import jax
import numpy as np
import pytest
import tyro

from experiments import shared
from fnn import data
from fnn.activations import softmax
from fnn.train import make_init
from fnn.types import Batch
from tests.pages import Page

pytestmark = pytest.mark.slow  # whole trainings

FILES = {"config.json", "curves.png", "last.safetensors", "best.safetensors"}
FILES |= {"metrics.jsonl", "report.html"}
TINY = {"steps": 4, "warmup_steps": 1, "eval_every": 2, "widths": (2, 3), "batch_size": 8}
NAMES = ["mnist_cnn", "fashion_cnn"]


def noise(n: int, seed: int) -> Batch:
    x = np.random.default_rng(seed).integers(256, size=(n, 28, 28)).astype(np.uint8)
    return Batch(x, np.arange(n, dtype=np.int32) % 10)


CLASSES = tuple(f"class {i}" for i in range(10))
DATASET = data.Dataset(train=noise(120, 0), test=noise(20, 1), classes=CLASSES)


@pytest.fixture(scope="module", params=NAMES)
def two_seeds(request, tmp_path_factory):
    """The experiment, the folder of a small run of it over two seeds, and what it printed."""
    module = importlib.import_module(f"experiments.{request.param}")
    out, lines = tmp_path_factory.mktemp(request.param) / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name, root: DATASET)
        patch.setattr("builtins.print", lambda *a, **k: lines.extend(str(a[0]).split("\n")))
        module.main(module.Config(out=out, seeds=2, seed=3, **TINY))
    return module, out, lines


def test_it_writes_all_that_it_promises(two_seeds):
    _, out, lines = two_seeds
    assert {path.name for path in out.iterdir()} == {"seed_3", "seed_4"}
    assert {path.name for path in (out / "seed_4").iterdir()} == FILES
    assert json.loads((out / "seed_4" / "config.json").read_text())["seed"] == 4
    page = Page((out / "seed_3" / "report.html").read_text("utf-8"))
    page.assert_needs_nothing_else()
    printed = next(line for line in lines if line.startswith("test accuracy"))
    assert printed.split("(")[0].removeprefix("test accuracy").strip() in page.text


def test_it_sums_up_its_seeds(two_seeds):
    lines = two_seeds[2]
    found = [float(line.split()[2]) for line in lines if "mistake" in line]
    last = lines[-1].replace(",", "").split()
    assert len(found) == 2 and last[:5] == ["test", "accuracy", "over", "2", "seeds:"]
    assert abs(float(last[6]) - np.mean(found)) < 0.01  # each is printed to a hundredth


def test_the_parts_are_disjoint_and_even_and_every_pixel_is_a_fraction_of_white(two_seeds):
    module = two_seeds[0]
    examples, test = module.divide(jax.random.key(0), DATASET)
    assert [len(part.y) for part in (examples.train, examples.valid, test)] == [110, 10, 20]
    assert np.bincount(examples.valid.y).tolist() == [1] * 10
    dealt = np.concatenate([examples.train.x, examples.valid.x])[..., 0]
    assert dealt.min() == 0 and dealt.max() == 1
    as_given = np.round(255 * dealt).astype(np.uint8)
    assert {x.tobytes() for x in as_given} == {x.tobytes() for x in DATASET.train.x}


def test_the_probabilities_of_fashion_are_a_mean_over_the_image_and_its_mirror_image():
    module = importlib.import_module("experiments.fashion_cnn")
    recipe, hyper = module.make_recipe(module.Config(**TINY)), module.Config(**TINY).hyper
    x = module.divide(jax.random.key(0), DATASET)[1].x
    state = make_init(recipe)(jax.random.key(1), hyper, x)
    ours = shared.mirrored(recipe, state, x, hyper)
    mirrored = shared.mirrored(recipe, state, x[:, :, ::-1], hyper)
    # The same two terms in the other order; the compiler may fuse each differently.
    np.testing.assert_allclose(ours, mirrored, rtol=1e-6)
    np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-5)  # ten float32 terms
    one_sided = softmax(recipe(hyper).model.apply(state.params, state.model_state, x)[0])
    assert abs(one_sided - ours).max() > 1e-4


WRONG = {
    "--lr": ["-1"],
    "--widths": [],
    "--dropout-rate": ["1"],
    "--norm-decay": ["1"],
    "--weight-decay": ["inf"],
    "--warmup-steps": ["100000"],
    "--seeds": ["0"],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", WRONG)
def test_a_wrong_argument_ends_it_with_a_message_that_names_it(name, flag, capsys):
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(SystemExit) as end:
        tyro.cli(module.Config, args=[flag, *WRONG[flag]])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_looked_for_its_data(name, tmp_path):
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(SystemExit, match=f"{name}.py: data.load: expected .* in one of {tmp_path}"):
        module.main(module.Config(root=str(tmp_path)))


@pytest.mark.parametrize("name", NAMES)
def test_it_never_writes_into_a_run_that_is_there(name, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(data, "load", lambda name, root: DATASET)
    with pytest.raises(SystemExit, match="--out: expected a new directory"):
        module.main(module.Config(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
