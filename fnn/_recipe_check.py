"""Type checks of the fields of a recipe, made when it is built."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn._messages import advice, expect_pair, is_array, makes, name_of, refuse, with_article
from fnn.expect import expect_alike
from fnn.measures import Every
from fnn.types import (
    Gradient,
    Metric,
    Model,
    ModelState,
    Objective,
    Optimizer,
    Params,
    PRNGKey,
    Scalar,
    Schedule,
    StatefulMeasure,
)

_NOT_JAX = {"torch", "tensorflow", "keras"}  # their functions do not take JAX arrays


class _Function(NamedTuple):
    """The signature that a field's function must have, and the hint if it does not."""

    arguments: tuple[str, ...]
    hint: str
    kind: Any = None  # the return annotation of constructors of such functions


_SCHEDULE = _Function(("step",), "use one such as schedules.constant(1e-3)", Schedule)
_FIELDS = {
    "loss": _Function(("outputs", "targets"), "use one such as losses.mean_squared_error"),
    "schedule": _SCHEDULE,
    "penalty": _Function(
        ("params", "model_state"), "use a function such as lambda params, model_state: 0.0"
    ),
    "augment": _Function(("key", "batch"), "omit it for no augmentation"),
    "gradient": _Function(
        ("loss", "params", "model_state", "batch", "key"),
        "use one such as train.microbatches(4)",
        Gradient,
    ),
}
# Entries of an evaluation, of a step and of the rows of metrics.jsonl.
_RESERVED = {"metrics": ("loss",), "train_metrics": ("loss", "lr", "penalty", "step", "valid")}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raises ValueError for a field of a `Recipe` of the wrong type."""
    check_player("Recipe", fields["model"], fields["optimizer"], fields["schedule"])
    for name, function in _FIELDS.items():
        _expect_function(f"Recipe.{name}", fields[name], function)
    for name, reserved in _RESERVED.items():
        _expect_metrics(f"Recipe.{name}", fields[name], reserved)
    expect_measures("Recipe.measures", fields["measures"])


def check_player(where: str, model: Any, optimizer: Any, schedule: Any) -> None:
    """Raises ValueError for what is not a model, an optimizer and a schedule."""
    _expect(f"{where}.model", model, Model)
    init = _Function(("key", "x"), "return (params, model_state)")
    apply = _Function(
        ("params", "model_state", "x", "key=", "train="), "return (outputs, model_state)"
    )
    _expect_function(f"{where}.model.init", model.init, init)
    _expect_function(f"{where}.model.apply", model.apply, apply)
    _expect(f"{where}.optimizer", optimizer, Optimizer)
    update = _Function(
        ("grads", "state", "params", "lr", "objective"),
        "take all of them, objective=None included, and return (updates, state)",
    )
    weights = _Function(("state", "params"), "return the parameters to evaluate with")
    start = _Function(("params",), "return the optimizer's first state")
    _expect_function(f"{where}.optimizer.init", optimizer.init, start)
    _expect_function(f"{where}.optimizer.update", optimizer.update, update)
    _expect_function(f"{where}.optimizer.weights", optimizer.weights, weights)
    _expect_function(f"{where}.schedule", schedule, _SCHEDULE)


def _expect(where: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        refuse(where, with_article(kind.__name__), value, advice(value, kind))


def _expect_function(where: str, value: Any, function: _Function) -> None:
    words = f"a function of ({', '.join(function.arguments)})"
    if not callable(value) or makes(value, function.kind):
        refuse(where, words, value, advice(value, function.kind) or function.hint)
    package = (getattr(value, "__module__", None) or "").partition(".")[0]
    if package in _NOT_JAX:
        raise ValueError(
            f"{where}: expected {words} on JAX arrays, got {package}'s {name_of(value)}; "
            f"{function.hint}"
        )
    if (taken := _other_arguments(value, function.arguments)) is not None:
        raise ValueError(
            f"{where}: expected {words}, got {name_of(value)}({', '.join(taken)}); {function.hint}"
        )


def _other_arguments(function: Callable[..., Any], wanted: Sequence[str]) -> list[str] | None:
    """The argument names of a function that cannot be called with those wanted; else None."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return None
    keywords = {name.removesuffix("="): None for name in wanted if name.endswith("=")}
    try:
        signature.bind(*[None] * (len(wanted) - len(keywords)), **keywords)
    except TypeError:
        return list(signature.parameters)
    return None


def _expect_metrics(where: str, metrics: Any, reserved: Sequence[str]) -> None:
    if not isinstance(metrics, Mapping):
        hint = "give each a name, as in {'accuracy': metrics.accuracy()}"
        refuse(where, "a dict of names and metrics", metrics, hint)
    for name, metric in metrics.items():
        if not isinstance(name, str):
            refuse(where, "names that are strings", name, "name each metric by a string")
        if name in reserved:
            refuse(where, f"other names than {list(reserved)}", name, "rename it")
        _expect(f"{where}[{name!r}]", metric, Metric)


def expect_measures(where: str, measures: Any) -> None:
    """Raises ValueError for what is not a sequence of measures."""
    if isinstance(measures, (Every, StatefulMeasure)) or not isinstance(measures, Sequence):
        name = name_of(measures) if callable(measures) else "norms"
        refuse(where, "a sequence of measures", measures, f"put it in a tuple: ({name},)")
    view = _Function(("view",), "use one such as measures.norms")
    for i, measure in enumerate(measures):
        inner = measure.measure if isinstance(measure, Every) else measure
        if not isinstance(inner, StatefulMeasure):
            _expect_function(f"{where}[{i}]", inner, view)


def learning_rate(schedule: Schedule, step: Any) -> Any:
    """`schedule(step)`, checked to be a number."""
    lr = schedule(step)
    if not is_array(lr) and (isinstance(lr, bool) or not isinstance(lr, (int, float))):
        refuse("Recipe.schedule", "a learning rate from schedule(step)", lr, "return a number")
    return lr


def checked_model(model: Model) -> Model:
    """The model with its results checked to be pairs."""

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        return expect_pair("Recipe.model.init", "(params, model_state)", model.init(key, x))

    def apply(
        params: Params,
        model_state: ModelState,
        x: Any,
        *,
        key: PRNGKey | None = None,
        train: bool = False,
    ) -> tuple[Any, ModelState]:
        result = model.apply(params, model_state, x, key=key, train=train)
        return expect_pair("Recipe.model.apply", "(outputs, model_state)", result)

    return Model(init, apply)


def checked_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer with its updates checked to have the shapes of the parameters."""

    def update(
        grads: Params,
        state: Any,
        params: Params,
        lr: Scalar,
        objective: Objective | None = None,
    ) -> tuple[Params, Any]:
        result = optimizer.update(grads, state, params, lr, objective)
        updates, state = expect_pair("Recipe.optimizer.update", "(updates, state)", result)
        expect_alike("Recipe.optimizer.update: params and updates", params, updates)
        return updates, state

    return optimizer._replace(update=update)


def expect_hyper(hyper: Any) -> None:
    """Raises ValueError for hyperparameters that are not numbers or arrays of them."""
    if hyper is None:
        refuse("hyper", "hyperparameters, such as {'lr': 0.1}", None, "give {} if there are none")
    leaves, _ = jax.tree.flatten_with_path(hyper, is_leaf=lambda leaf: leaf is None)
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", type(leaf))
        if not _is_numeric(dtype):
            got = f"{getattr(dtype, '__name__', dtype)}" if leaf is not None else "None"
            raise ValueError(
                f"hyper[{tree.path_of(path)!r}]: expected a number or an array of numbers, got "
                f"{got}; let the recipe close over what is not a number"
            )


def _is_numeric(dtype: Any) -> bool:
    try:
        return jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)
    except TypeError:  # a dtype of torch, for one
        return False
