"""The experiments on CIFAR-10, on a few images of noise."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments import cifar_resnet, cifar_speedrun
from fnn import data, layers
from fnn.types import Batch
from tests.pages import Page

pytestmark = pytest.mark.slow  # whole trainings

TINY = cifar_speedrun.Config(
    widths=(24, 25, 26), epochs=1.6, batch_size=10, train_examples=20, test_examples=12, half=False
)


def noise(n: int, seed: int) -> Batch:
    x = np.random.default_rng(seed).integers(256, size=(n, 32, 32, 3)).astype(np.uint8)
    return Batch(x, np.arange(n, dtype=np.int32) % 10)


CLASSES = tuple(f"class {i}" for i in range(10))
CIFAR = data.Dataset(train=noise(500, 0), test=noise(20, 1), classes=CLASSES)


@pytest.fixture
def cifar(monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, root: CIFAR)


def test_the_resnet_writes_all_that_it_promises(cifar, tmp_path, capsys):
    out = tmp_path / "run"
    shape = {"depths": (1,), "widths": (2,), "examples": 500, "steps": 2, "batch_size": 4}
    cifar_resnet.main(cifar_resnet.Config(out=out, eval_every=2, cutout=2.0, **shape))
    files = {"config.json", "curves.png", "report.html", "metrics.jsonl"}
    assert files <= {path.name for path in out.iterdir()}
    assert json.loads((out / "config.json").read_text())["widths"] == [2]
    page = Page((out / "report.html").read_text("utf-8"))
    page.assert_needs_nothing_else()
    lines = capsys.readouterr().out.split("\n")
    printed = next(line for line in lines if line.startswith("test accuracy"))
    assert printed.split("(")[0].removeprefix("test accuracy").strip() in page.text


def test_the_gpu_setting_of_the_resnet_is_resnet_18_for_small_images():
    model = cifar_resnet.make_model(cifar_resnet.GPU, 0.9)
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    # 11,689,512 for ImageNet; 64 x 3 x (49 - 9) less in the stem, 513 x 990 less in the head.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_689_512 - 7_680 - 507_870
    logits, _ = jax.eval_shape(model.apply, params, state, x)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)


@pytest.fixture(scope="module")
def sprint():
    """The first and last state of a tiny run, its accuracy and its losses."""
    run = jax.jit(cifar_speedrun.make_run(TINY))
    train, test = (
        Batch(part.x[:n], part.y[:n]) for part, n in ((CIFAR.train, 20), (CIFAR.test, 12))
    )
    arguments = TINY.hyper, *jax.tree.map(jnp.asarray, (train, test))
    return [run(jax.random.key(seed), *arguments) for seed in (0, 0, 1)]


def test_a_sprint_is_one_program_that_follows_its_key(sprint):
    (share, values), (_, again), (_, other) = sprint
    assert values.shape == (TINY.steps,) == (4,)
    np.testing.assert_array_equal(values, again)
    assert (values != other).any() and np.isfinite(values).all()
    assert 0 <= share <= 1 and float(share * 12) == pytest.approx(round(float(share * 12)))


def test_the_sprint_says_what_it_took(cifar, capsys, monkeypatch):
    monkeypatch.setattr(
        cifar_speedrun,
        "make_run",
        lambda config: lambda key, hyper, train, test: (0.5, jnp.ones(2)),
    )
    cifar_speedrun.main(dataclasses.replace(TINY, runs=2))
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0].startswith("4 steps, compiled in") and lines[1].startswith("seed 0: 50.00 % in")
    assert lines[-1].startswith("test accuracy over 2 runs: mean 50.00 %, std 0.00 %; median time")


def test_whitening_makes_outputs_that_are_uncorrelated_and_of_one_size():
    # Smooth images: neighbors are alike, so the patches are far from white.
    rough = np.random.default_rng(0).normal(size=(40, 12, 12, 3))
    x = jnp.asarray(rough + np.roll(rough, 1, 1) + np.roll(rough, 1, 2) + 0.5, jnp.float32)
    kernel = cifar_speedrun.whitening(x, eps=0.0)
    y = layers.patches(x, (2, 2)).reshape(-1, 12) @ kernel.reshape(12, 24)
    half = np.asarray(y[:, :12], np.float64)
    # An eigenvalue is right to 1e-6 of the largest, and they differ by a factor of 50.
    np.testing.assert_allclose(half.T @ half / len(half), np.eye(12), atol=1e-3)
    np.testing.assert_array_equal(y[:, 12:], -y[:, :12])


def test_the_first_outputs_of_a_kernel_hand_on_the_inputs():
    kernel = cifar_speedrun.partly_identity(jax.random.key(0), (3, 3, 4, 6))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 5, 4)), jnp.float32)
    y = layers.conv({"kernel": kernel}, x)
    np.testing.assert_array_equal(y[..., :4], x)
    assert float(jnp.abs(kernel[..., 4:]).max()) <= 1 / 6  # 1 / sqrt(36 inputs)
    assert float(kernel[..., 4:].std()) > 0.05


def test_six_views_weigh_the_image_as_it_lies_as_much_as_all_moved_ones():
    # With one pixel as the only logit, the weights of the views can be read off: a view moved down
    # and right shows there what was above and left, and its mirror image what was beside that.
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)
    seen = cifar_speedrun.views(lambda x: x[:, 1, 1], x)
    plain = x[:, 1, 1] + x[:, 1, 2]
    moved = x[:, 0, 0] + x[:, 0, 1] + x[:, 2, 2] + x[:, 2, 3]
    np.testing.assert_allclose(seen, plain / 4 + moved / 8, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(cifar_speedrun.views(lambda x: jnp.ones((len(x), 1)), x), 1)


def test_the_recipe_leaves_the_whitening_and_moves_biases_faster():
    recipe = cifar_speedrun.make_recipe(TINY)(
        {name: value for name, value in TINY.hyper.items() if name != "slow_decay"}
    )
    params = {
        "whiten": {"kernel": jnp.ones(1), "bias": jnp.ones(1)},
        "blocks": [{"norm1": {"bias": jnp.zeros(1)}, "conv1": {"kernel": jnp.zeros(1)}}],
    }
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = recipe.optimizer.update(ones, recipe.optimizer.init(params), params, 0.1)
    assert updates["whiten"]["kernel"].item() == 0
    block = updates["blocks"][0]
    assert block["norm1"]["bias"].item() == pytest.approx(64 * block["conv1"]["kernel"].item())
    # 11.5 for 1,024 examples and a momentum of 0.85; the peak is at 23 % of the steps.
    peak = 11.5 * TINY.batch_size / 1024 / (1 + 1 / 0.15)
    rates = [recipe.schedule(step).item() for step in (0, 1, 4)]
    assert rates == pytest.approx([0.2 * peak, peak, 0.07 * peak])


def test_the_slow_weights_meet_the_fast_ones():
    state = cifar_speedrun.TrainState(
        step=jnp.int32(5), params={"w": jnp.float32(1)}, model_state=jnp.float32(3), opt_state=()
    )
    slow = ({"w": jnp.float32(0)}, jnp.float32(0))
    apart = cifar_speedrun.meet(state, slow, jnp.float32(0.25), jnp.bool_(False))
    assert apart[0].params["w"] == 1 and apart[1] == slow
    met = cifar_speedrun.meet(state, slow, jnp.float32(0.25), jnp.bool_(True))
    assert (met[0].params["w"], met[0].model_state) == (0.75, 2.25)
    assert met[1] == ({"w": 0.75}, 2.25)


WRONG = {
    cifar_resnet: {"--lr": "0", "--depths": "2", "--examples": "9", "--warmup-fraction": "1"},
    cifar_speedrun: {"--lr": "-1", "--epochs": "0", "--momentum": "1", "--train-examples": "3"},
}


@pytest.mark.parametrize(
    ("module", "flag"), [(module, flag) for module, flags in WRONG.items() for flag in flags]
)
def test_a_wrong_argument_ends_it_with_a_message_that_names_it(module, flag, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(module.Config, args=[flag, WRONG[module][flag]])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err


@pytest.mark.parametrize("module", WRONG)
def test_it_says_where_it_looked_for_its_data(module, tmp_path):
    name = module.__name__.split(".")[-1]
    with pytest.raises(SystemExit, match=f"{name}.py: data.load: expected .* in one of {tmp_path}"):
        module.main(module.Config(root=str(tmp_path)))


def test_it_does_not_invent_images(cifar):
    with pytest.raises(SystemExit, match="--train-examples: expected at most 500, got 501"):
        cifar_speedrun.main(dataclasses.replace(TINY, train_examples=501))
