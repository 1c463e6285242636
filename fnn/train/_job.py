"""The arguments of a run, checked and placed once, for the loops on the host."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from fnn.keys import RunKeys, fold_name, run_keys
from fnn.measures import Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._inputs import expect_data
from fnn.train._scan import struct_of
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
        """The first state, in buffers of its own."""
        x = jax.tree.map(lambda a: a[: self.batch_size], self.data.train[0])
        state = compiled.init(self.recipe, self.keys.init, self.hyper, x, self.start)
        # A jit does not copy arguments that it returns, and the first step donates the state.
        return everywhere(self.devices, state if self.start is None else copied(state))

    def evaluate(self, state: TrainState, batch_size: int) -> dict[str, float]:
        """The validation metrics, the loss first."""
        settings = (self.recipe, batch_size, self.devices)
        values = compiled.evaluate(*settings, state, self.data.valid, self.hyper)
        return {
            name: values[name].item() for name in sorted(values, key=lambda n: (n != "loss", n))
        }

    def metric_names(self, batch_size: int) -> list[str]:
        """Names of the validation metrics."""
        settings = (self.recipe, batch_size, self.devices)
        state, valid = self._state_shapes(), self.data.valid
        return list(compiled.evaluate.eval_shape(*settings, state, valid, self.hyper))

    def recorded_shapes(self) -> Recorded:
        """Shapes and dtypes of the record of a step."""
        batch = struct_of(self.data.train, self.batch_size)
        arguments = (self._state_shapes(), batch, self.keys.noise, self.hyper)
        return compiled.step.eval_shape(self.recipe, self.devices, *arguments)[1]

    def _state_shapes(self) -> TrainState:
        x = struct_of(self.data.train, self.batch_size)[0]
        return compiled.init.eval_shape(self.recipe, self.keys.init, self.hyper, x)


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
    """The arguments of a run, checked, with the data on the devices.

    A source stays on the host. Only its first batch is checked: reading all of its examples may
    take as much time as the training.

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


def seed_keys(key: PRNGKey, n: int) -> Key[Array, " n"]:
    """The key itself, and n - 1 others."""
    others = fold_name(key, "other seeds")
    members = [key, *(jax.random.fold_in(others, i) for i in range(1, n))]
    # By their bits: stacking keys counts as consuming them, and the run of `key` uses it as well.
    bits = jnp.stack([jax.random.key_data(member) for member in members])
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))
