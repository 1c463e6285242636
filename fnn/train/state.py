"""The first state of a run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fnn.train.devices import everywhere
from fnn.train.pack import pack, unpack
from fnn.train.recipe import RecipeFunction, build
from fnn.types import Hyper, Optimizer, Params, PRNGKey, TrainState


def init_state(recipe: RecipeFunction, key: PRNGKey, hyper: Hyper, x: Any) -> TrainState:
    """A fresh state for inputs like `x`; `key` is the run's init stream (`run_keys(key).init`)."""
    built = build(recipe, hyper)
    params, model_state = built.model.init(key, x)
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=pack(built.optimizer.init(params), params),
    )
    return everywhere(built.devices, state)


def make_init(recipe: RecipeFunction) -> Callable[[PRNGKey, Hyper, Any], TrainState]:
    """`init(key, hyper, x) -> state`, jitted as one program, so that no two leaves share a buffer.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Recipe
    >>> recipe = lambda hyper: Recipe(models.dense(2), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(hyper['lr']))
    >>> state = make_init(recipe)(jax.random.key(0), {'lr': 0.1}, jnp.zeros((4, 3)))
    >>> state.step.item(), state.params['kernel'].shape
    (0, (3, 2))
    """
    return jax.jit(lambda key, hyper, x: init_state(recipe, key, hyper, x))


def optimizer_state(optimizer: Optimizer, state: TrainState) -> PyTree:
    """What `optimizer.init` and `update` call their state, from the packed one in `state`.

    >>> from fnn import optim
    >>> opt, params = optim.adam(), {'w': jnp.ones(2)}
    >>> state = TrainState(step=jnp.int32(0), params=params, model_state=(),
    ...                    opt_state=pack(opt.init(params), params))
    >>> optimizer_state(opt, state).m['w'].tolist()
    [0.0, 0.0]
    """
    return unpack(state.opt_state, jax.eval_shape(optimizer.init, state.params), state.params)


@jax.jit
def copied(state: TrainState) -> TrainState:
    """The state in buffers of its own, which a donation leaves alone, and no two leaves share."""
    return jax.tree.map(jnp.copy, state)


def trained_params(recipe: RecipeFunction, state: TrainState, hyper: Hyper) -> Params:
    """The parameters to use after training: the optimizer's `weights`, such as an average.

    For most optimizers these are `state.params`.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Recipe
    >>> recipe = lambda hyper: Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> hyper = {'lr': 0.1}
    >>> state = make_init(recipe)(jax.random.key(0), hyper, jnp.zeros((4, 3)))
    >>> trained_params(recipe, state, hyper) is state.params
    True
    """
    optimizer = build(recipe, hyper).optimizer
    return optimizer.weights(optimizer_state(optimizer, state), state.params)
