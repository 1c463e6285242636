"""Input validation that runs before the first step."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.expect import expect_alike, expect_positive, expect_real, spec
from fnn.keys import run_keys
from fnn.recipe import RecipeFunction, build, expect_recipe
from fnn.recipe_check import expect_hyper
from fnn.train import _compiled as compiled
from fnn.train._blocks import struct_of
from fnn.train._given import expect_arrays, expect_data, expect_key, expect_state
from fnn.train._weighted import weighted_losses
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
    """Refuse bad input before any training; `run` and `fit` call this themselves.

    Shapes are checked by tracing the step without computing it. Values (NaN in the data, labels
    out of range) are checked where they are known: inside a jit or a vmap they are not, so call
    `check` yourself before `jax.jit(run)` on data that you do not trust.

    Raises: ValueError for a key that is not typed, an empty dataset, mismatched lengths, complex
      numbers, a batch larger than the data, NaN or infinity in it, hyperparameters that are no
      numbers or that the recipe does not know, a learning rate that is no scalar, shapes that
      the model or the loss refuses, a loss that is not per example, integer labels outside
      [0, classes).

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
    expect_key(key)
    expect_hyper(hyper)
    expect_data(data)
    sizes = {
        name: _check_examples(f"data.{name}", getattr(data, name)) for name in ("train", "valid")
    }
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
    """Refuse a state that is not one of `recipe` for inputs like `x`.

    Raises: ValueError, which begins with `where` and lists the leaves that differ.
    """
    expect_state(where, state)
    one = struct_of((x, ()), 1)[0]
    like = compiled.init.eval_shape(recipe, jax.random.key(0), hyper, one)
    expect_alike(f"{where}: the recipe's state and the given one", like, state, dtypes=True)


def _check_examples(where: str, examples: Pair) -> int:
    """Lengths, and values where they are known; returns the number of examples."""
    parts = zip("xy", examples, strict=True)
    x, y = (expect_arrays(f"{where}.{part}", value) for part, value in parts)
    leaves = {**x, **y}
    for name, leaf in leaves.items():
        expect_real(name, leaf)
    lengths = {name: leaf.shape[0] for name, leaf in leaves.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{where}: expected one length for all arrays, got {lengths}; check the split"
        )
    if 0 in lengths.values():
        raise ValueError(
            f"{where}: expected at least one example, got an empty dataset; check the split"
        )
    for name, leaf in x.items():
        if len(bad := _not_finite(leaf)):
            raise ValueError(
                f"{name}: expected finite numbers, got {np.asarray(leaf)[tuple(bad[0])]} at index "
                f"{tuple(bad[0].tolist())} ({len(bad)} in all); clean the data first"
            )
    return next(iter(lengths.values()))


def _known(leaf: Any) -> bool:
    return not isinstance(leaf, jax.core.Tracer)


def _not_finite(leaf: Any) -> np.ndarray:
    """The indices of the elements that are NaN or infinite, (n, axes), as far as they are known."""
    if not _known(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.zeros((0, 1), int)
    finite = np.isfinite(np.asarray(leaf))
    return np.zeros((0, 1), int) if finite.all() else np.argwhere(~finite)


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
    for name in ("train", "valid"):
        x, y = getattr(data, name)
        outputs = _predict.eval_shape(recipe, state, hyper, x, y)
        loss = build(recipe, hyper).loss
        _check_labels(f"data.{name}.y", loss, outputs, y)
        _check_finite_targets(f"data.{name}.y", loss, outputs, y)


# Jitted although nothing here is computed: JAX keeps the shapes, and checking the same recipe
# again, as each fit of a loop over seeds does, costs no second trace.


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
    """Integer targets of one axis less than the outputs are labels.

    JAX raises for no label: indexing clamps it. A loss may ignore some labels outside the range,
    such as -100, so the loss itself is asked: what it has no finite value for is refused.
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
    """Targets that are not finite may stand for missing ones: then the loss masks them."""
    for path, leaf in expect_arrays(name, y).items():
        bad = _not_finite(leaf)
        some = np.unique(bad[:, 0])[:8]
        if len(some) and not _accepts(loss, outputs, jax.tree.map(itemgetter(some), y)):
            raise ValueError(
                f"{path}: expected finite numbers, got {np.asarray(leaf)[tuple(bad[0])]} at index "
                f"{tuple(bad[0].tolist())} ({len(bad)} in all); clean the data, or mask them in "
                "the loss"
            )


def _accepts(loss: Loss, outputs: Any, y: Any) -> bool:
    """Whether the loss of outputs of 0 is finite for these targets, and its gradient."""
    y = jax.tree.map(jnp.asarray, y)
    zeros = jax.tree.map(lambda a: jnp.zeros((tree.length(y), *a.shape[1:]), a.dtype), outputs)
    value, grads = jax.value_and_grad(lambda z: weighted_losses(loss, z, y).mean())(zeros)
    return not _known(value) or bool(tree.all_finite((value, grads)))
