"""Input validation that runs before the first step."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn._recipe_check import expect_hyper
from fnn.expect import expect_alike, expect_positive, expect_real, spec
from fnn.keys import run_keys
from fnn.recipe import RecipeFunction, build, expect_recipe
from fnn.train import _compiled as compiled
from fnn.train._inputs import (
    expect_arrays,
    expect_data,
    expect_key,
    expect_one_length,
    expect_state,
    weighted_losses,
)
from fnn.train._scan import struct_of
from fnn.train.devices import Devices
from fnn.types import Data, Hyper, Loss, Pair, PRNGKey, TrainState


def check(
    recipe: RecipeFunction,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    batch_size: int,
    devices: Devices = (),
) -> None:
    """Refuses bad input before any training; `run` and `fit` call it themselves.

    Shapes are checked by tracing the step without computing it. Values (NaN in the data, labels
    out of range) are checked where they are known. Inside a jit or a vmap they are not: call
    `check` before `jax.jit(run)` on untrusted data.

    Raises: ValueError for a key that is not typed, an empty dataset, mismatched lengths, complex
      numbers, a batch larger than the data, NaN or infinity in it, hyperparameters that are not
      numbers or unknown to the recipe, a learning rate that is not a scalar, shapes that the model
      or the loss refuses, a loss that is not per example, integer labels outside [0, classes).

    >>> from fnn import losses, models, nn, optim, schedules
    >>> from fnn.recipe import Recipe
    >>> from fnn.types import Batch
    >>> recipe = lambda hyper: Recipe(nn.linear(3), losses.cross_entropy, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> batch = Batch(jnp.zeros((4, 2)), jnp.array([0, 1, 2, 3]))
    >>> check(recipe, Data(train=batch, valid=batch), key=jax.random.key(0), hyper={'lr': 0.1},
    ...       batch_size=2)
    Traceback (most recent call last):
        ...
    ValueError: data.train.y: expected labels in [0, 3), got 3 at index 3; ...
    """
    expect_recipe(recipe)
    expect_key("key", key)
    expect_hyper(hyper)
    expect_data(data)
    sizes = {name: _check_examples(f"data.{name}", pair) for name, pair in vars(data).items()}
    expect_positive("batch_size", batch_size=batch_size)
    if batch_size > sizes["train"]:
        raise ValueError(
            f"batch_size: expected at most the {sizes['train']} examples of data.train, got "
            f"{batch_size}; use a smaller batch or more data"
        )
    _check_devices(devices)
    _check_shapes(recipe, data, key, hyper, batch_size, tuple(devices))


def check_state(
    where: str, recipe: RecipeFunction, state: TrainState, *, hyper: Hyper, x: Any
) -> None:
    """Refuses a state that is not one of `recipe` for inputs like `x`."""
    expect_state(where, state)
    one = struct_of((x, ()), 1)[0]
    like = compiled.init.eval_shape(recipe, jax.random.key(0), hyper, one)
    expect_alike(f"{where}: the recipe's state and the given one", like, state, dtypes=True)


def _check_examples(where: str, examples: Pair) -> int:
    """Checks lengths, and values where they are known; returns the number of examples."""
    parts = zip("xy", examples, strict=True)
    x, y = (expect_arrays(f"{where}.{part}", value) for part, value in parts)
    leaves = {**x, **y}
    for name, leaf in leaves.items():
        expect_real(name, leaf)
    length = expect_one_length(where, leaves)
    if length == 0:
        raise ValueError(
            f"{where}: expected at least one example, got an empty dataset; check the split"
        )
    for name, leaf in x.items():
        if len(bad := _not_finite(leaf)):
            _refuse_not_finite(name, leaf, bad, "clean the data first")
    return length


def _known(leaf: Any) -> bool:
    return not isinstance(leaf, jax.core.Tracer)


def _not_finite(leaf: Any) -> np.ndarray:
    """Indices (n, axes) of the NaN and infinite elements; none where values are unknown."""
    if not _known(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.zeros((0, 1), int)
    finite = np.isfinite(np.asarray(leaf))
    return np.zeros((0, 1), int) if finite.all() else np.argwhere(~finite)


def _refuse_not_finite(name: str, leaf: Any, bad: np.ndarray, hint: str) -> None:
    raise ValueError(
        f"{name}: expected finite numbers, got {np.asarray(leaf)[tuple(bad[0])]} at index "
        f"{tuple(bad[0].tolist())} ({len(bad)} in all); {hint}"
    )


def _check_devices(devices: Any) -> None:
    listed = list(devices) if isinstance(devices, Sequence) else [None]
    if not all(isinstance(d, jax.Device) for d in listed) or len(set(listed)) < len(listed):
        raise ValueError(
            f"devices: expected distinct devices, such as jax.devices(), got {devices!r}; "
            "name each once"
        )


def _check_shapes(
    recipe: RecipeFunction,
    data: Data,
    key: PRNGKey,
    hyper: Hyper,
    batch_size: int,
    devices: Devices,
) -> None:
    lr = _first_lr.eval_shape(recipe, hyper)
    if lr.shape != ():
        raise ValueError(
            f"schedule: expected one learning rate for a step, got {spec(lr)}; "
            "use jax.vmap over hyper for many values at once"
        )
    keys = run_keys(key)
    batch = struct_of(data.train, batch_size)
    state = compiled.init.eval_shape(recipe, keys.init, hyper, batch[0])
    after, _ = compiled.step.eval_shape(recipe, devices, state, batch, keys.noise, hyper)
    expect_alike("step: the states before and after it", state, after, dtypes=True)
    for name, (x, y) in vars(data).items():
        outputs = _predict.eval_shape(recipe, state, hyper, x, y)
        loss = build(recipe, hyper).loss
        _check_labels(f"data.{name}.y", loss, outputs, y)
        _check_finite_targets(f"data.{name}.y", loss, outputs, y)


# Jitted although nothing is computed: JAX caches the shapes, so that checking a recipe again, for
# each seed say, needs no second trace.


@partial(jax.jit, static_argnums=0)
def _first_lr(recipe: RecipeFunction, hyper: Hyper) -> Any:
    return build(recipe, hyper).schedule(jnp.int32(0))


@partial(jax.jit, static_argnums=0)
def _predict(recipe: RecipeFunction, state: TrainState, hyper: Hyper, x: Any, y: Any) -> Any:
    r = build(recipe, hyper)
    outputs, _ = r.model.apply(state.params, state.model_state, x)
    weighted_losses(r.loss, outputs, y)
    return outputs


def _check_labels(name: str, loss: Loss, outputs: Any, y: Any) -> None:
    """Refuses labels out of range: integer targets of one axis less than the outputs.

    JAX would clamp such an index. A loss may ignore some labels outside the range, such as -100, so
    only those for which it is not finite are refused.
    """
    if not (hasattr(outputs, "shape") and hasattr(y, "shape") and _known(y)):
        return
    if not jnp.issubdtype(y.dtype, jnp.integer) or outputs.shape[:-1] != y.shape:
        return
    labels, classes = np.asarray(y), outputs.shape[-1]
    outside = np.argwhere((labels < 0) | (labels >= classes))
    _, first = np.unique(labels[tuple(outside.T)], return_index=True)
    for index in outside[np.sort(first)]:  # the first index of each such label
        if not _accepts(loss, outputs, labels[index[:1]]):
            at = index.tolist()
            raise ValueError(
                f"{name}: expected labels in [0, {classes}), got {labels[tuple(index)]} at index "
                f"{at[0] if len(at) == 1 else tuple(at)}; "
                "correct the labels or give the model more outputs"
            )


def _check_finite_targets(name: str, loss: Loss, outputs: Any, y: Any) -> None:
    """Refuses targets that are not finite, unless the loss masks them as missing."""
    for path, leaf in expect_arrays(name, y).items():
        bad = _not_finite(leaf)
        some = np.unique(bad[:, 0])[:8]
        if len(some) and not _accepts(loss, outputs, jax.tree.map(itemgetter(some), y)):
            _refuse_not_finite(path, leaf, bad, "clean the data, or mask them in the loss")


def _accepts(loss: Loss, outputs: Any, y: Any) -> bool:
    """Whether the loss for outputs of 0 and these targets is finite, and its gradient."""
    y = jax.tree.map(jnp.asarray, y)
    zeros = jax.tree.map(lambda a: jnp.zeros((tree.length(y), *a.shape[1:]), a.dtype), outputs)
    value, grads = jax.value_and_grad(lambda z: weighted_losses(loss, z, y).mean())(zeros)
    return not _known(value) or bool(tree.all_finite((value, grads)))
