"""Files of parameters, optimizers of optax, and models that run without fnn."""

import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import models, nn, optim, schedules, tree
from fnn.interop import export, safetensors
from fnn.interop.optax import from_optax, to_optax
from fnn.types import Model
from tests.optim_runs import GRADS, LR, START, STEPS, run

PARAMS = {
    "layers": [{"kernel": jnp.arange(6.0).reshape(2, 3)}, {"bias": jnp.float32(2)}],
    "half": jnp.ones(2, jnp.bfloat16),
}


def test_parameters_come_back_from_a_file_as_they_were(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.write(path, PARAMS, {"made by": "a test"})
    back = safetensors.load(path, jax.tree.map(jnp.zeros_like, PARAMS))
    for got, expected in zip(jax.tree.leaves(back), jax.tree.leaves(PARAMS), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(got, float), np.asarray(expected, float))
    assert set(safetensors.read(path)) == {"layers.0.kernel", "layers.1.bias", "half"}


def test_a_file_of_another_model_is_refused_with_every_difference(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.write(path, PARAMS)
    with pytest.raises(ValueError) as error:
        safetensors.load(path, {"half": jnp.ones(3), "more": jnp.ones(1)})
    for line in (
        "half: expected float32[3], got bfloat16[2]",
        "more: expected float32[1], got no such leaf",
        "layers.1.bias: expected no such leaf, got float32[]",
    ):
        assert line in str(error.value)


def test_two_leaves_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got two 'a.b'"):
        safetensors.write(tmp_path / "x", {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)})


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.write(path, PARAMS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        safetensors.read(path)


SCHEDULE = schedules.warmup_cosine(LR, warmup_steps=5, total_steps=STEPS)
RATES = np.array(jax.vmap(SCHEDULE)(jnp.arange(STEPS)))


def run_optax(transform):
    """Parameters after every update, from one compiled scan, as optax says to do it."""

    def step(carry, g):
        params, state = carry
        updates, state = transform.update({"w": g}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"]

    with jax.numpy_dtype_promotion("standard"):
        params = {"w": jnp.asarray(START)}
        scan = jax.jit(lambda carry, gs: jax.lax.scan(step, carry, gs)[1])
        return np.asarray(scan((params, transform.init(params)), jnp.asarray(GRADS)))


def expect_close(got, expected):
    # Two float32 runs of fifty updates, whose corrections of the moments are rounded differently.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_an_optimizer_steps_in_a_chain_of_optax_as_in_fnn():
    chained = optax.chain(
        optax.clip_by_global_norm(1.5), to_optax(optim.adamw(weight_decay=0.1), SCHEDULE)
    )
    ours = optim.chain(optim.clip_by_global_norm(1.5), optim.adamw(weight_decay=0.1))
    expect_close(run_optax(chained), run(ours, lr=RATES))
    theirs = optax.chain(
        optax.clip_by_global_norm(1.5), optax.adamw(lambda t: SCHEDULE(t), weight_decay=0.1)
    )
    expect_close(run_optax(chained), run_optax(theirs))


def test_an_optimizer_serves_inside_wrappers_of_optax():
    masked = optax.masked(to_optax(optim.sgd(momentum=0.9), LR), {"w": True})
    every_second = optax.MultiSteps(to_optax(optim.sgd(momentum=0.9), LR), every_k_schedule=2)
    expect_close(run_optax(masked), run(optim.sgd(momentum=0.9)))
    pairs = GRADS.reshape(-1, 2, 4).mean(axis=1)
    expect_close(run_optax(every_second)[1::2], run(optim.sgd(momentum=0.9), grads=pairs))


def test_a_transformation_of_optax_steps_in_fnn_with_the_rate_of_fnn():
    theirs = from_optax(optax.adamw(1.0, weight_decay=0.1))
    expect_close(run(theirs, lr=RATES), run(optim.adamw(weight_decay=0.1), lr=RATES))
    clipped = optim.chain(optim.clip_by_global_norm(1.5), theirs)
    ours = optim.chain(optim.clip_by_global_norm(1.5), optim.adamw(weight_decay=0.1))
    expect_close(run(clipped, lr=RATES), run(ours, lr=RATES))


def test_a_transformation_with_a_rate_of_its_own_keeps_it_at_a_rate_of_one():
    theirs = from_optax(optax.adam(lambda t: SCHEDULE(t)))
    expect_close(run(theirs, lr=1.0), run(optim.adam(), lr=RATES))


def test_there_and_back_is_the_same_optimizer():
    again = from_optax(to_optax(optim.adam(), 1.0))
    np.testing.assert_array_equal(run(again), run(optim.adam()))


def test_an_optimizer_in_optax_needs_the_parameters():
    transform = to_optax(optim.sgd(), LR)
    params = {"w": jnp.ones(1)}
    with pytest.raises(ValueError, match="to_optax: expected the parameters, got None"):
        transform.update(params, transform.init(params))
    with pytest.raises(ValueError, match="to_optax: expected optimizers without a loss scale"):
        to_optax(optim.dynamic_loss_scale(optim.sgd()), LR)


ELSEWHERE = """
import sys
from pathlib import Path
import jax, numpy as np
folder = Path(sys.argv[1])
baked = jax.export.deserialize(bytearray((folder / "baked.bin").read_bytes()))
bare = jax.export.deserialize(bytearray((folder / "bare.bin").read_bytes()))
inputs = np.load(folder / "inputs.npz")
params = {"kernel": inputs["kernel"], "bias": inputs["bias"]}
outputs = {}
for n in (1, 3):
    outputs[f"baked{n}"] = baked.call(inputs["images"][:n])
    outputs[f"bare{n}"] = bare.call(params, (), inputs["x"][:n])
np.savez(folder / "outputs.npz", **outputs)
assert "fnn" not in sys.modules
"""


@pytest.mark.slow
def test_an_exported_model_runs_on_any_batch_in_a_process_without_fnn(tmp_path):
    pytest.importorskip("flatbuffers")
    config = models.cnn.CNNConfig(stages=((2,), (3,)), out_features=2)  # with running statistics
    cnn, dense = models.cnn.cnn(config), nn.linear(2)
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    weights = jax.jit(cnn.init)(jax.random.key(0), images)
    params, state = dense.init(jax.random.key(1), x)
    export.write(tmp_path / "baked.bin", export.predictor(cnn, *weights, images))
    export.write(tmp_path / "bare.bin", export.function(dense, params, state, x))
    np.savez(tmp_path / "inputs.npz", images=images, x=x, **params)
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)], check=True, cwd=tmp_path, timeout=300
    )
    with np.load(tmp_path / "outputs.npz") as file:
        outputs = dict(file)
    expected = {
        "baked": jax.jit(lambda x: cnn.apply(*weights, x)[0])(images),
        "bare": dense.apply(params, state, jnp.asarray(x))[0],
    }
    for name, y in expected.items():
        for n in (1, 3):
            # One program compiled twice, in another process with a batch of another size.
            np.testing.assert_allclose(outputs[f"{name}{n}"], y[:n], rtol=1e-5, atol=1e-6)


class Question(NamedTuple):
    x: Any
    lengths: Any = None


class Answer(NamedTuple):
    total: Any
    parts: Any


def test_a_named_input_is_a_dict_where_its_class_is_not_known():
    pytest.importorskip("flatbuffers")

    def apply(params, state, question, *, key=None, train=False):
        part = question.x * params["w"]
        return Answer(part.sum(axis=1), [part]), state

    x, params = Question(jnp.ones((2, 3))), {"w": jnp.float32(2)}
    exported = export.predictor(Model(None, apply), params, (), x)
    again = jax.export.deserialize(bytearray(exported.serialize()))
    y = again.call({"x": jnp.ones((4, 3)), "lengths": None})
    assert tree.paths(y) == ["parts/0", "total"]
    np.testing.assert_array_equal(y["total"], np.full(4, 6.0))
