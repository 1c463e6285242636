"""Everything that can be known to be wrong before the first step, said before the first step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.keys import run_keys
from fnn.train.recipe import RecipeFunction, build
from fnn.train.state import init_state
from fnn.train.step import per_example, pure_step
from fnn.types import Data, Hyper, Loss, Metrics, Pair, PRNGKey, TrainState


def check(
    recipe: RecipeFunction, data: Data, *, key: PRNGKey, hyper: Hyper, batch_size: int
) -> None:
    """Refuse bad input before any training; `run` and `fit` call this themselves.

    Shapes are checked by tracing the step without computing it. Values (NaN in the data, labels
    out of range) are checked where they are known: inside a jit or a vmap they are not, so call
    `check` yourself before `jax.jit(run)` on data that you do not trust.

    Raises: ValueError for a key that is not typed, an empty dataset, mismatched lengths, a batch
      larger than the data, NaN or infinity in the data, hyperparameters that are no numbers or
      that the recipe does not know, a learning rate that is no scalar, shapes that the model or the
      loss refuses, a loss that is not per example, integer labels outside [0, classes).

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Batch, Recipe
    >>> recipe = lambda hyper: Recipe(models.dense(3), losses.cross_entropy, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> batch = Batch(jnp.zeros((4, 2)), jnp.array([0, 1, 2, 3]))
    >>> check(recipe, Data(train=batch, valid=batch), key=jax.random.key(0), hyper={'lr': 0.1},
    ...       batch_size=2)
    Traceback (most recent call last):
        ...
    ValueError: data.train.y: expected labels in [0, 3), got 3 at index 3; ...
    """
    _check_key(key)
    _check_hyper(hyper)
    sizes = {
        name: _check_examples(f"data.{name}", getattr(data, name)) for name in ("train", "valid")
    }
    expect_positive("batch_size", batch_size=batch_size)
    if batch_size > sizes["train"]:
        raise ValueError(
            f"batch_size: expected at most the {sizes['train']} examples of data.train, got "
            f"{batch_size}; use a smaller batch or more data"
        )
    _check_shapes(recipe, data, key, hyper, batch_size)


def expect_positive(where: str, **numbers: int) -> None:
    """Raise for a number that is not a whole one above 0."""
    for name, value in numbers.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{where}: expected {name} to be a whole number above 0, got {value!r}"
            )


def check_state(
    where: str, recipe: RecipeFunction, state: TrainState, *, hyper: Hyper, data: Data
) -> None:
    """Refuse a state that is not one of `recipe` on `data`.

    Raises: ValueError, which begins with `where` and lists the leaves that differ.
    """
    x = _batch_of(data.train, 1)[0]
    like = _first_state.eval_shape(recipe, jax.random.key(0), hyper, x)
    tree.expect_alike(f"{where}: the recipe's state and the given one", like, state, dtypes=True)


def _check_key(key: Any) -> None:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        got = tree.spec(key) if isinstance(key, (jax.Array, np.ndarray)) else type(key).__name__
        raise ValueError(f"key: expected a typed key, got {got}; make it with jax.random.key(seed)")
    if key.shape != ():
        raise ValueError(
            f"key: expected a single key, got {key.shape} of them; use jax.vmap over keys"
        )


def _check_hyper(hyper: Hyper) -> None:
    """Numbers, or arrays of them, such as a learning rate for each step."""
    for path, leaf in zip(tree.paths(hyper), jax.tree.leaves(hyper), strict=True):
        kind = getattr(leaf, "dtype", type(leaf))
        if not (jnp.issubdtype(kind, np.number) or jnp.issubdtype(kind, np.bool_)):
            raise ValueError(
                f"hyper[{path!r}]: expected a number or an array of numbers, got "
                f"{getattr(kind, '__name__', kind)}; leave what is no number to the recipe"
            )


def _check_examples(where: str, examples: Pair) -> int:
    """Lengths, and values where they are known; returns the number of examples."""
    if not isinstance(examples, tuple) or len(examples) != 2:
        raise ValueError(f"{where}: expected a pair (x, y), got {type(examples).__name__}")
    leaves = _named_leaves(where, examples)
    for name, leaf in leaves.items():
        if not hasattr(leaf, "shape") or leaf.ndim < 1:
            raise ValueError(f"{name}: expected an array with the batch axis first, got {leaf!r}")
    lengths = {name: leaf.shape[0] for name, leaf in leaves.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{where}: expected one length for all arrays, got {lengths}; check the split"
        )
    if 0 in lengths.values():
        raise ValueError(
            f"{where}: expected at least one example, got an empty dataset; check the split"
        )
    for name, leaf in leaves.items():
        _check_finite(name, leaf)
    return next(iter(lengths.values()))


def _named_leaves(where: str, examples: Pair) -> dict[str, Any]:
    named = {}
    for part, value in zip("xy", examples, strict=True):
        for path, leaf in zip(tree.paths(value), jax.tree.leaves(value), strict=True):
            named[f"{where}.{part}" + (f"[{path!r}]" if path else "")] = leaf
    return named


def _known(leaf: Any) -> bool:
    return not isinstance(leaf, jax.core.Tracer)


def _check_finite(name: str, leaf: Any) -> None:
    if not _known(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return
    values = np.asarray(leaf)
    if np.isfinite(values).all():  # the quick way for data that is in order
        return
    bad = np.argwhere(~np.isfinite(values))
    raise ValueError(
        f"{name}: expected finite numbers, got {values[tuple(bad[0])]} at index "
        f"{tuple(bad[0].tolist())} ({len(bad)} in all); clean the data first"
    )


def _check_shapes(
    recipe: RecipeFunction, data: Data, key: PRNGKey, hyper: Hyper, batch_size: int
) -> None:
    lr = _first_lr.eval_shape(recipe, hyper)
    if lr.shape != ():
        raise ValueError(
            f"schedule: expected one learning rate for a step, got {tree.spec(lr)}; "
            "use jax.vmap over hyper for many values at once"
        )
    keys = run_keys(key)
    batch = _batch_of(data.train, batch_size)
    state = _first_state.eval_shape(recipe, keys.init, hyper, batch[0])
    after, _ = _step.eval_shape(recipe, state, batch, keys.noise, hyper)
    tree.expect_alike("step: the states before and after it", state, after, dtypes=True)
    for name in ("train", "valid"):
        x, y = getattr(data, name)
        predictions = _predict.eval_shape(recipe, state, hyper, x, y)
        _check_labels(f"data.{name}.y", build(recipe, hyper).loss, predictions, y)


# Jitted although nothing here is computed: JAX then keeps the shapes, and checking the same recipe
# again, as each fit of a loop over seeds does, costs no second tracing.


@partial(jax.jit, static_argnums=0)
def _first_lr(recipe: RecipeFunction, hyper: Hyper) -> Any:
    return build(recipe, hyper).schedule(jnp.int32(0))


@partial(jax.jit, static_argnums=0)
def _first_state(recipe: RecipeFunction, key: PRNGKey, hyper: Hyper, x: Any) -> TrainState:
    return init_state(recipe, key, hyper, x)


@partial(jax.jit, static_argnums=0)
def _step(
    recipe: RecipeFunction, state: TrainState, batch: Pair, key: PRNGKey, hyper: Hyper
) -> tuple[TrainState, Metrics]:
    return pure_step(recipe)(state, batch, key, hyper)


@partial(jax.jit, static_argnums=0)
def _predict(recipe: RecipeFunction, state: TrainState, hyper: Hyper, x: Any, y: Any) -> Any:
    built = build(recipe, hyper)
    predictions, _ = built.model.apply(state.params, state.model_state, x)
    per_example(built.loss, predictions, y)
    return predictions


def _batch_of(examples: Pair, batch_size: int) -> tuple[Any, Any]:
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), jnp.result_type(a)),
        tuple(examples),
    )


def _check_labels(name: str, loss: Loss, predictions: Any, y: Any) -> None:
    """Integer targets of one axis less than the predictions are labels.

    JAX raises for no label: indexing clamps it. A loss may ignore some labels outside the range,
    such as -100, so the loss itself is asked: what it has no finite value for is refused.
    """
    if not (hasattr(predictions, "shape") and hasattr(y, "shape") and _known(y)):
        return
    if not jnp.issubdtype(y.dtype, jnp.integer) or predictions.shape[:-1] != y.shape:
        return
    labels, classes = np.asarray(y), predictions.shape[-1]
    outside = np.argwhere((labels < 0) | (labels >= classes))
    _, first = np.unique(labels[tuple(outside.T)], return_index=True)
    for index in outside[np.sort(first)]:  # the first place of each such label
        example = jnp.asarray(labels[index[:1]])
        found = loss(jnp.zeros((1, *predictions.shape[1:]), predictions.dtype), example)
        if _known(found) and not np.isfinite(np.asarray(found)).all():
            place = index.tolist()
            raise ValueError(
                f"{name}: expected labels in [0, {classes}), got {labels[tuple(index)]} at index "
                f"{place[0] if len(place) == 1 else tuple(place)}; "
                "correct the labels or give the model more outputs"
            )
