"""Training by several devices, in a process that has two; and what one says of them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from fnn.train import fit, make_run, silent
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe

HERE = Path(__file__).parent


@pytest.mark.slow
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


@pytest.mark.slow
def test_one_device_changes_no_bit():
    arguments = dict(steps=STEPS, batch_size=BATCH, eval_every=EVERY)
    one = jax.devices()[:1]
    plain = jax.jit(make_run(recipe, **arguments))(KEY, HYPER, DATA)
    assert_same_bits(jax.jit(make_run(recipe, devices=one, **arguments))(KEY, HYPER, DATA), plain)
    fitted = fit(recipe, DATA, key=KEY, hyper=HYPER, progress=silent, devices=one, **arguments)
    assert_same_bits(fitted.state, plain[0])


@pytest.mark.parametrize("devices", [2 * jax.devices()[:1]])
def test_what_is_no_list_of_distinct_devices_is_refused(devices):
    with pytest.raises(ValueError, match=r"devices: expected distinct devices, .* got "):
        make_run(recipe, steps=1, batch_size=2, devices=devices)(KEY, HYPER, DATA)
