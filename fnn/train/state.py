"""The first state of a run, and the parameters to use after it."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import measures, tree
from fnn.expect import expect_alike
from fnn.recipe import RecipeFunction, build, expect_recipe
from fnn.train._given import expect_arrays, expect_key, expect_state
from fnn.types import Hyper, ModelState, Params, TrainState

InitState = Callable[..., TrainState]  # (key, hyper, x, start=None)
Start = Any  # parameters, (params, model_state), or a TrainState; None for those of the model


def make_init(recipe: RecipeFunction) -> InitState:
    """`init(key, hyper, x, start=None) -> state`, a pure function: the state before the first step.

    Args of the function:
      key: for the parameters; of a run `run_keys(key).init`.
      hyper: what the recipe is built from.
      x: a batch of inputs, or ShapeDtypeStructs in its place; only shapes and dtypes matter.
      start: weights to start from (fine-tuning): parameters, a pair (params, model_state) as
        `Model.init` returns it, or a TrainState, of which these two are taken. Step and optimizer
        state are new in each case, the latter made for these parameters. None initializes all.

    Raises: ValueError, in the function, if the leaves of `start` are not those of the model, with
      the path of each that is missing, extra, or of another shape or dtype.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(2), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(hyper['lr']))
    >>> state = jax.jit(make_init(recipe))(jax.random.key(0), {'lr': 0.1}, jnp.zeros((4, 3)))
    >>> state.step.item(), state.params['kernel'].shape, state.opt_state.m['kernel'].shape
    (0, (3, 2), (3, 2))
    """

    expect_recipe(recipe)

    def init(key, hyper, x, start=None):
        expect_key(key)
        expect_arrays("init: x", x)
        r = build(recipe, hyper)
        params, model_state = started(*r.model.init(key, x), start)
        return TrainState(
            step=jnp.int32(0),
            params=params,
            model_state=model_state,
            opt_state=r.optimizer.init(params),
            measure_state=measures.init_states(r.measures, params),
        )

    return init


def started(params: Params, model_state: ModelState, start: Start) -> tuple[Params, ModelState]:
    """Parameters and model state from `start`, in the structure of the given ones; see `make_init`.

    >>> started({'w': jnp.zeros(2)}, (), {'w': np.ones(2, np.float32)})[0]['w'].tolist()
    [1.0, 1.0]
    """
    if start is None:
        return params, model_state
    weights, state = weights_of(start, params)
    if state is not None:
        model_state = _in_structure("model_state", model_state, state)
    return _in_structure("params", params, weights), model_state


def weights_of(start: Start, like: Params) -> tuple[Params, ModelState | None]:
    """The parameters in `start`, and its model state, if it has one; `like` tells them apart."""
    if isinstance(start, TrainState):
        return start.params, start.model_state
    pair = type(start) is tuple and len(start) == 2
    return start if pair and tree.paths(start) != tree.paths(like) else (start, None)


def _in_structure(name: str, like: PyTree, values: PyTree) -> PyTree:
    values = jax.tree.map(jnp.asarray, values)
    expect_alike(
        f"init: {name} of the recipe's model and those to start from", like, values, dtypes=True
    )
    leaves = dict(zip(tree.paths(values), jax.tree.leaves(values), strict=True))
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in tree.paths(like)])


def expect_start(where: str, start: Start) -> None:
    """Refuse what holds something else than arrays.

    >>> expect_start('fit', 'model.safetensors')
    Traceback (most recent call last):
        ...
    ValueError: fit: expected init to be parameters, (params, model_state) or a TrainState, got \
str; load files first, and of a FitResult pass its .state
    """
    if not all(isinstance(a, (jax.Array, np.ndarray, np.generic)) for a in jax.tree.leaves(start)):
        raise ValueError(
            f"{where}: expected init to be parameters, (params, model_state) or a TrainState, got "
            f"{type(start).__name__}; load files first, and of a FitResult pass its .state"
        )


def checksum(start: Start) -> str | None:
    """Of the weights in `start`, by which a resumed run knows them; None for None.

    >>> checksum({'w': np.zeros(2)}) == checksum({'w': np.ones(2)})
    False
    """
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
    """The state in new buffers, no two of which are shared, so that both may be donated."""
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
