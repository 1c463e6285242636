"""The needs of a step on paper: exact where shapes say them, checked against this machine's."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from fnn import Recipe, losses, models, optim, plan, schedules
from fnn.train import make_init, make_step

BATCH = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32)


def recipe(hyper):
    return Recipe(
        models.mlp.mlp(models.mlp.MLPConfig(widths=(128,), out_features=10)),
        losses.cross_entropy,
        optim.adam(),
        schedules.constant(hyper["lr"]),
    )


HYPER = {"lr": 0.1}


def test_parameters_and_state_are_those_of_the_shapes():
    found = plan.estimate(recipe, BATCH, "h100:4", hyper=HYPER)
    numbers = 32 * 128 + 128 + 128 * 10 + 10
    assert found.params == found.gradients == 4 * numbers
    assert found.opt_state >= 8 * numbers
    assert found.devices == 4 and found.batch == 16 * (32 * 4 + 4)
    assert found.total >= found.params + found.opt_state + found.batch + found.temporaries


def test_here_it_is_the_program_that_a_training_compiles():
    found = plan.estimate(recipe, BATCH, hyper=HYPER)
    key = jax.random.key(0)
    state = jax.eval_shape(make_init(recipe), key, HYPER, BATCH[0])
    step = jax.jit(make_step(recipe), donate_argnums=0)
    stats = step.lower(state, BATCH, key, HYPER).compile().memory_analysis()
    assert found.temporaries == stats.temp_size_in_bytes
    assert found.seconds is None and found.mfu is None and found.fits


def test_the_time_is_at_least_that_of_each_peak():
    found = plan.estimate(recipe, BATCH, "h100", hyper=HYPER)
    chip = plan.CHIPS["h100"]
    assert found.seconds == max(found.flops / chip.flops, found.bytes_moved / chip.bandwidth)
    assert 0 < found.mfu <= 1


def test_the_largest_batch_fits_and_a_larger_one_does_not(monkeypatch):
    state = plan.estimate(recipe, BATCH, "h100", hyper=HYPER)
    monkeypatch.setitem(plan.CHIPS, "h100", plan.Chip(3 * state.total, 1e12, 1e12))
    size = plan.largest_batch(recipe, BATCH, "h100:2", hyper=HYPER, most=100_000)

    def fits(n):
        sized = tuple(jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype) for a in BATCH)
        return plan.estimate(recipe, sized, "h100:2", hyper=HYPER).fits

    assert size % 2 == 0 and fits(size) and not fits(2 * (size + size // 16 + 2) // 2 * 2)


def test_none_fits_where_the_parameters_do_not(monkeypatch):
    monkeypatch.setitem(plan.CHIPS, "h100", plan.Chip(1000, 1e12, 1e12))
    found = plan.estimate(recipe, BATCH, "h100", hyper=HYPER)
    assert not found.fits and "DOES NOT FIT" in str(found)
    assert plan.largest_batch(recipe, BATCH, "h100", hyper=HYPER) == 0


def test_what_the_compiler_says_of_too_much_is_read():
    message = "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (22.21G) exceeds"
    assert plan._used(message) == int(22.21 * 2**30)
    assert plan._used("RESOURCE_EXHAUSTED: Used 34.5G of 15.75G hbm") == int(34.5 * 2**30)
    assert plan._used("INVALID_ARGUMENT: Used 34.5G") is None


@pytest.mark.parametrize(
    "target, message",
    [
        ("h10", "did you mean 'h100'"),
        ("v5e:2by2", "expected a target such as"),
        ("h100:7", "expected a batch that 7 devices divide, got 64 examples; use 63"),
    ],
)
def test_what_is_no_target_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        plan.estimate(recipe, BATCH, target, hyper=HYPER)


FILE = """
from fnn import Recipe, losses, nn, optim, schedules

def mine(hyper):
    return Recipe(nn.linear(3), losses.cross_entropy, optim.sgd(), schedules.constant(hyper["lr"]))
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fnn.plan", *arguments], capture_output=True, text=True, timeout=300
    )


def test_the_command_prints_an_estimate_or_what_is_wrong(tmp_path):
    file = tmp_path / "task.py"
    file.write_text(FILE)
    shapes = ("--x", "float32[8,4]", "--y", "int32[8]")
    done = run(f"{file}:mine", *shapes, "--hyper", "lr=0.1", "--target", "h100:2", "--largest")
    assert done.returncode == 0, done.stderr
    assert "fits" in done.stdout and "largest batch" in done.stdout
    wrong = run(f"{file}", *shapes)
    assert wrong.returncode == 2 and "expected" in wrong.stderr and ":its_name" in wrong.stderr
    wrong = run(f"{file}:mine", "--x", "8x4", "--y", "int32[8]")
    assert wrong.returncode == 2 and "float32[128,784]" in wrong.stderr
