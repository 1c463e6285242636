"""The first state of a run, and the parameters to use after it."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.expect import expect_alike
from fnn.measures import init_states
from fnn.recipe import RecipeFunction, build, expect_recipe
from fnn.train._inputs import expect_arrays, expect_key, expect_state
from fnn.types import Hyper, ModelState, Optimizer, Params, PRNGKey, TrainState

InitState = Callable[..., TrainState]  # (key, hyper, x, start=None)
Start = Any  # parameters, (params, model_state), or a TrainState; None initializes the model


def make_init(recipe: RecipeFunction) -> InitState:
    """Returns `init(key, hyper, x, start=None) -> state`, a pure function: the first state.

    Args of the function:
      key: for the parameters; in a run, `run_keys(key).init`.
      hyper: argument of the recipe.
      x: a batch of inputs, or ShapeDtypeStructs; only shapes and dtypes matter.
      start: pretrained weights (fine-tuning): parameters, a pair (params, model_state) as from
        `Model.init`, or a TrainState, of which only these two are used. Step and optimizer state
        are always new. None initializes all.

    Raises: ValueError, in the function, if the leaves of `start` differ from those of the model; it
      lists the path of each leaf that is missing, extra, or of another shape or dtype.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(2), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(hyper['lr']))
    >>> state = jax.jit(make_init(recipe))(jax.random.key(0), {'lr': 0.1}, jnp.zeros((4, 3)))
    >>> state.step.item(), state.params['kernel'].shape, state.opt_state.m['kernel'].shape
    (0, (3, 2), (3, 2))
    """
    expect_recipe(recipe)

    def init(key: PRNGKey, hyper: Hyper, x: Any, start: Start = None) -> TrainState:
        expect_key("key", key)
        expect_arrays("init: x", x)
        r = build(recipe, hyper)
        params, model_state = _from_start(*r.model.init(key, x), start)
        return fresh_state(params, model_state, r.optimizer, r.measures)

    return init


def fresh_state(
    params: Params, model_state: ModelState, optimizer: Optimizer, measures: Sequence[Any]
) -> TrainState:
    """The state of step 0 for these parameters."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        measure_state=init_states(measures, params),
    )


def _from_start(params: Params, model_state: ModelState, start: Start) -> tuple[Params, ModelState]:
    """Parameters and model state of `start`, in the structure of the model's own."""
    if start is None:
        return params, model_state
    if isinstance(start, TrainState):
        start = start.params, start.model_state
    elif type(start) is not tuple or len(start) != 2 or tree.paths(start) == tree.paths(params):
        start = start, None  # parameters alone
    weights, state = start
    if state is not None:
        model_state = _in_structure("model_state", model_state, state)
    return _in_structure("params", params, weights), model_state


def _in_structure(name: str, like: PyTree, values: PyTree) -> PyTree:
    values = jax.tree.map(jnp.asarray, values)
    expect_alike(
        f"init: {name} of the recipe's model and those to start from", like, values, dtypes=True
    )
    leaves = dict(zip(tree.paths(values), jax.tree.leaves(values), strict=True))
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in tree.paths(like)])


def expect_start(where: str, start: Start) -> None:
    """Raises for weights to start from whose leaves are not arrays."""
    if not all(isinstance(a, (jax.Array, np.ndarray, np.generic)) for a in jax.tree.leaves(start)):
        raise ValueError(
            f"{where}: expected init to be parameters, (params, model_state) or a TrainState, got "
            f"{type(start).__name__}; load files first, and of a FitResult pass its .state"
        )


def checksum(start: Start) -> str | None:
    """Identifies the weights in `start` when a run is resumed; None for None."""
    if start is None:
        return None
    weights = (start.params, start.model_state) if isinstance(start, TrainState) else start
    total = 0
    for path, leaf in zip(tree.paths(weights), jax.tree.leaves(weights), strict=True):
        array = np.asarray(leaf)
        head = f"{path}|{array.dtype.name}|{array.shape}".encode()
        total = zlib.crc32(array.tobytes(), zlib.crc32(head, total))
    return f"weights with checksum {total:08x}"


@jax.jit
def copied(state: TrainState) -> TrainState:
    """The state in new buffers, none of which two leaves share, so that it can be donated."""
    return jax.tree.map(jnp.copy, state)


def trained_params(recipe: RecipeFunction, state: TrainState, hyper: Hyper) -> Params:
    """The parameters to use after training: the optimizer's `weights`, such as a moving average.

    For most optimizers these are `state.params`.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> hyper = {'lr': 0.1}
    >>> state = make_init(recipe)(jax.random.key(0), hyper, jnp.zeros((4, 3)))
    >>> trained_params(recipe, state, hyper) is state.params
    True
    """
    expect_state("trained_params", state)
    return build(recipe, hyper).optimizer.weights(state.opt_state, state.params)
