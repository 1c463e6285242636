"""What the host's loops receive, prepared once: the arguments of a run, checked and placed."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from fnn.keys import RunKeys, run_keys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._blocks import struct_of
from fnn.train._given import expect_data
from fnn.train._source import Source
from fnn.train.check import check
from fnn.train.devices import Devices, everywhere
from fnn.train.state import Start, copied, expect_start
from fnn.types import Data, Hyper, Pair, PRNGKey, TrainState


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: recipe, data (on the device, or a source), keys and settings."""

    recipe: RecipeFunction
    data: Data
    key: PRNGKey
    keys: RunKeys
    hyper: Hyper
    batch_size: int
    devices: Devices
    start: Start = None

    def init(self) -> TrainState:
        """The state before the first step, in buffers of its own."""
        x = jax.tree.map(lambda a: a[: self.batch_size], self.data.train[0])
        state = compiled.init(self.recipe, self.keys.init, self.hyper, x, self.start)
        # What passes through a jit is not copied by it, and the first step donates the state.
        return everywhere(self.devices, state if self.start is None else copied(state))

    def evaluate(self, state: TrainState, batch_size: int) -> dict[str, float]:
        """The validation metrics, the loss first."""
        valid = self.data.valid
        settings = (self.recipe, batch_size, self.devices)
        values = compiled.evaluate(*settings, state, valid, self.hyper)
        return {
            name: values[name].item() for name in sorted(values, key=lambda n: (n != "loss", n))
        }

    def metric_names(self, batch_size: int) -> list[str]:
        """What an evaluation measures."""
        x = jax.tree.map(lambda a: a[: self.batch_size], self.data.train[0])
        state = compiled.init.eval_shape(self.recipe, self.keys.init, self.hyper, x)
        settings = (self.recipe, batch_size, self.devices)
        return list(compiled.evaluate.eval_shape(*settings, state, self.data.valid, self.hyper))

    def recorded_shapes(self) -> Recorded:
        """Shapes and dtypes of what a step records."""
        batch = struct_of(self.data.train, self.batch_size)
        state = compiled.init.eval_shape(self.recipe, self.keys.init, self.hyper, batch[0])
        step = compiled.step.eval_shape
        return step(self.recipe, self.devices, state, batch, self.keys.noise, self.hyper)[1]


def make_job(
    recipe: RecipeFunction,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    batch_size: int,
    devices: Devices = (),
    start: Start = None,
) -> Job:
    """The arguments of a run, checked, with the data on the device or devices.

    A source stays on the host; of its examples the first batch is checked, since to read all of
    them may take as long as to train.

    Raises: ValueError for what `check` finds.
    """
    expect_data(data)
    devices, seen = tuple(devices), data
    expect_start("fit", start)
    streamed = isinstance(data.train, Source)
    if streamed:
        first = jax.tree.map(lambda a: np.asarray(a[:batch_size]), tuple(data.train))
        seen = Data(train=first, valid=data.valid)
    check(recipe, seen, key=key, hyper=hyper, batch_size=batch_size, devices=devices)

    def place(examples: Pair) -> Pair:
        return everywhere(devices, jax.tree.map(jnp.asarray, examples))

    return Job(
        recipe=recipe,
        data=Data(train=data.train if streamed else place(data.train), valid=place(data.valid)),
        key=key,
        keys=run_keys(key),
        hyper=hyper,
        batch_size=batch_size,
        devices=devices,
        start=start,
    )
