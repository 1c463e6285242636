"""Outputs of a trained model for many inputs, batch by batch."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._inputs import expect_arrays, expect_one_length
from fnn.train.check import check_state
from fnn.types import Hyper, TrainState


def predict(
    recipe: RecipeFunction, state: TrainState, x: Any, *, hyper: Hyper, batch_size: int = 1024
) -> PyTree:
    """The model's outputs for the inputs `x`, as NumPy arrays on the host.

    As in an evaluation, the model runs with train=False and the optimizer's `weights`. Inputs on
    the host are transferred batch by batch, and so are the outputs: neither has to fit into device
    memory. The program is compiled once for `batch_size` and once for a smaller last batch; further
    calls with the same `recipe` function compile nothing.

    Args:
      recipe, hyper: those of the training.
      state: after training, e.g. `fit(...).state`.
      x: arrays with the batch axis first, of JAX or NumPy (np.memmap as well), or a pytree of them.
      batch_size: examples per call of the model.

    Returns: the pytree of the outputs, with the examples along the first axis.
    Raises: ValueError for a state that is not the recipe's, inputs that are not arrays or differ in
      length, and outputs without a batch axis.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import make_init
    >>> recipe = lambda hyper: Recipe(nn.linear(2), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x, hyper = np.ones((5, 3), np.float32), {'lr': 0.1}
    >>> state = make_init(recipe)(jax.random.key(0), hyper, x)
    >>> predict(recipe, state, x, hyper=hyper, batch_size=2).shape
    (5, 2)
    """
    n = expect_one_length("predict: x", expect_arrays("predict: x", x))
    check_state("predict", recipe, state, hyper=hyper, x=x)
    size = min(batch_size, max(n, 1))
    specs = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), x)
    shapes = compiled.outputs.eval_shape(recipe, state, hyper, specs)
    _expect_batch_axis(shapes, size)
    if n == 0:
        return jax.tree.map(lambda a: np.zeros((0, *a.shape[1:]), a.dtype), shapes)

    def outputs(start: int) -> PyTree:
        stop = min(start + batch_size, n)
        batch = jax.tree.map(lambda a: _slice(a, start, stop), x)
        return compiled.outputs(recipe, state, hyper, batch)

    parts, ahead = [], outputs(0)
    for start in range(batch_size, n, batch_size):
        # The device computes the next batch while the outputs of this one are transferred.
        done, ahead = ahead, outputs(start)
        parts.append(jax.device_get(done))
    parts.append(jax.device_get(ahead))
    return jax.tree.map(lambda *outputs: np.concatenate(outputs), *parts)


def _expect_batch_axis(shapes: PyTree, size: int) -> None:
    for path, leaf in zip(tree.paths(shapes), jax.tree.leaves(shapes), strict=True):
        if leaf.shape[:1] != (size,):
            raise ValueError(
                f"predict: expected outputs with the batch axis of {size} first, got {leaf.shape} "
                f"{f'at {path!r}' if path else ''}; call model.apply for such outputs"
            )


def _slice(a: Any, start: int, stop: int) -> Any:
    if isinstance(a, jax.Array):  # compiled once for all starts, unlike a[start:stop]
        return jax.lax.dynamic_slice_in_dim(a, start, stop - start)
    return np.asarray(a[start:stop])
