"""Training by several devices, in a process that has two; and what one says of them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from fnn.train import fit, make_run, silent, sweep
from fnn.types import Recipe
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe

HERE = Path(__file__).parent


def test_the_cases_for_two_devices_pass_in_a_process_that_has_two():
    """They are in a file of their own: a process chooses once how many devices it has."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(HERE / "on_two_devices.py")],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def on_one(hyper) -> Recipe:
    return recipe(hyper)._replace(devices=jax.devices()[:1])


def test_one_device_changes_no_bit():
    arguments = dict(steps=STEPS, batch_size=BATCH, eval_every=EVERY)
    plain = jax.jit(make_run(recipe, **arguments))(KEY, HYPER, DATA)
    assert_same_bits(jax.jit(make_run(on_one, **arguments))(KEY, HYPER, DATA), plain)
    fitted = fit(on_one, DATA, key=KEY, hyper=HYPER, progress=silent, **arguments)
    assert_same_bits(fitted.state, plain[0])


@pytest.mark.parametrize("devices", [jax.devices()[0], 2 * jax.devices()[:1], [0], 2])
def test_what_is_no_list_of_distinct_devices_is_refused(devices):
    with pytest.raises(ValueError, match=r"Recipe.devices: expected distinct devices, .* got "):
        make_run(lambda hyper: recipe(hyper)._replace(devices=devices), steps=1, batch_size=2)(
            KEY, HYPER, DATA
        )


def test_a_sweep_shares_its_members_and_refuses_to_share_their_batches():
    hypers = jax.tree.map(lambda number: jnp.full(2, number), HYPER)
    with pytest.raises(ValueError, match=r"sweep: .* without devices, got one with 1; .*devices="):
        sweep(on_one, DATA, hypers, KEY[None], steps=2, batch_size=BATCH, progress=silent)
