"""The pure functions of a recipe, jitted once for fit, sweep, check, lr_find and fork.

JAX caches a trace by the recipe function and the shapes of the arguments: a step that was checked
is not traced again in training, nor for the next seed.
"""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array

from fnn.measures import Recorded
from fnn.recipe import RecipeFunction, build
from fnn.train.devices import Devices
from fnn.train.evaluate import make_evaluate
from fnn.train.state import Start, make_init
from fnn.train.step import make_recording_step
from fnn.types import Hyper, Pair, PRNGKey, TrainState


@partial(jax.jit, static_argnums=0)
def init(
    recipe: RecipeFunction, key: PRNGKey, hyper: Hyper, x: Any, start: Start = None
) -> TrainState:
    """See `make_init`; x are arrays, since ShapeDtypeStructs do not cross jit."""
    return make_init(recipe)(key, hyper, x, start)


@partial(jax.jit, static_argnums=(0, 1))
def step(
    recipe: RecipeFunction,
    devices: Devices,
    state: TrainState,
    batch: Pair,
    key: PRNGKey,
    hyper: Hyper,
) -> tuple[TrainState, Recorded]:
    """See `make_recording_step`."""
    return make_recording_step(recipe, devices=devices)(state, batch, key, hyper)


@partial(jax.jit, static_argnums=(0, 1, 2))
def evaluate(
    recipe: RecipeFunction,
    batch_size: int,
    devices: Devices,
    state: TrainState,
    examples: Pair,
    hyper: Hyper,
) -> dict[str, Array]:
    """See `make_evaluate`."""
    return make_evaluate(recipe, batch_size=batch_size, devices=devices)(state, examples, hyper)


@partial(jax.jit, static_argnums=0)
def outputs(recipe: RecipeFunction, state: TrainState, hyper: Hyper, x: Any) -> Any:
    """The model's outputs with train=False and the optimizer's `weights`."""
    r = build(recipe, hyper)
    params = r.optimizer.weights(state.opt_state, state.params)
    return r.model.apply(params, state.model_state, x)[0]
