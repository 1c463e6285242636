"""The first state of a run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.train.recipe import RecipeFunction, build
from fnn.types import Hyper, PRNGKey, TrainState


def init_state(recipe: RecipeFunction, key: PRNGKey, hyper: Hyper, x: Any) -> TrainState:
    """A fresh state for inputs like `x`; `key` is the run's init stream (`run_keys(key).init`)."""
    built = build(recipe, hyper)
    params, model_state = built.model.init(key, x)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=built.optimizer.init(params),
    )


def make_init(recipe: RecipeFunction) -> Callable[[PRNGKey, Hyper, Any], TrainState]:
    """`init(key, hyper, x) -> state`, jitted as one program, so that no two leaves share a buffer.

    >>> from fnn import losses, models, optim, schedules
    >>> recipe = lambda hyper: Recipe(models.dense(2), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(hyper['lr']))
    >>> state = make_init(recipe)(jax.random.key(0), {'lr': 0.1}, jnp.zeros((4, 3)))
    >>> state.step.item(), state.params['kernel'].shape
    (0, (3, 2))
    """
    return jax.jit(lambda key, hyper, x: init_state(recipe, key, hyper, x))
