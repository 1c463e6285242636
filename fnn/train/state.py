"""The first state of a run, and the parameters to use after it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn import measures
from fnn.recipe import RecipeFunction, build
from fnn.types import Hyper, Params, PRNGKey, TrainState

InitState = Callable[[PRNGKey, Hyper, Any], TrainState]


def make_init(recipe: RecipeFunction) -> InitState:
    """`init(key, hyper, x) -> state`, a pure function: the state before the first step.

    Args of the function:
      key: for the parameters; of a run `run_keys(key).init`.
      hyper: what the recipe is built from.
      x: a batch of inputs, or ShapeDtypeStructs in its place; only shapes and dtypes matter.

    >>> from fnn import Recipe, losses, models, optim, schedules
    >>> recipe = lambda hyper: Recipe(models.dense(2), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(hyper['lr']))
    >>> state = jax.jit(make_init(recipe))(jax.random.key(0), {'lr': 0.1}, jnp.zeros((4, 3)))
    >>> state.step.item(), state.params['kernel'].shape, state.opt_state.m['kernel'].shape
    (0, (3, 2), (3, 2))
    """

    def init(key, hyper, x):
        r = build(recipe, hyper)
        params, model_state = r.model.init(key, x)
        return TrainState(
            step=jnp.int32(0),
            params=params,
            model_state=model_state,
            opt_state=r.optimizer.init(params),
            measure_state=measures.init_states(r.measures, params),
        )

    return init


@jax.jit
def copied(state: TrainState) -> TrainState:
    """The state in new buffers, no two of which are shared, so that both may be donated."""
    return jax.tree.map(jnp.copy, state)


def trained_params(recipe: RecipeFunction, state: TrainState, hyper: Hyper) -> Params:
    """The parameters to use after training: the optimizer's `weights`, such as a moving average.

    For most optimizers these are `state.params`.

    >>> from fnn import Recipe, losses, models, optim, schedules
    >>> recipe = lambda hyper: Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> hyper = {'lr': 0.1}
    >>> state = make_init(recipe)(jax.random.key(0), hyper, jnp.zeros((4, 3)))
    >>> trained_params(recipe, state, hyper) is state.params
    True
    """
    return build(recipe, hyper).optimizer.weights(state.opt_state, state.params)
