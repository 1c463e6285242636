"""Words for what came in place of what was expected, and what to do about it."""

import enum
import functools
import inspect
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.expect import spec
from fnn.types import Data, Decoder, Metric, Model, Optimizer, Schedule, TrainState, Transform


def refuse(where: str, words: str, value: Any, hint: str) -> typing.NoReturn:
    """Raise `where: expected words, got value; hint`.

    >>> refuse('dropout', 'rate to be a number', 'half', 'use a float')
    Traceback (most recent call last):
        ...
    ValueError: dropout: expected rate to be a number, got 'half'; use a float
    """
    raise ValueError(f"{where}: expected {words}, got {short(value)}; {hint}")


def two(where: str, words: str, result: Any) -> tuple[Any, Any]:
    """The result of a user's function that has to be a pair.

    >>> two('Recipe.model.init', '(params, model_state)', ({}, ()))
    ({}, ())
    """
    if not isinstance(result, tuple) or len(result) != 2:
        refuse(where, f"a pair {words}", result, f"return {words}")
    return result[0], result[1]


def short(value: Any) -> str:
    """A value in a few words, for error messages; never the entries of an array.

    >>> short(jnp.zeros((2, 3))), short('mse'), short(jnp.sin), short([1, 2]), short([[1]])
    ('float32[2,3]', "'mse'", 'the function sin', '[1, 2]', 'a list')
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.number, enum.Enum)):
        text = repr(value.item() if isinstance(value, np.generic) else value)
        return text if len(text) <= 40 else f"{text[:36]}..."
    if isinstance(value, jax.core.Tracer):
        return f"a traced {_spec(value)}"
    if is_array(value):
        return _spec(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and not foreign(value):
        return f"the function {name_of(value)}"
    if type(value) in (list, tuple) and 0 < len(value) < 8 and all(map(_is_plain, value)):
        inside = ", ".join(map(short, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    package = foreign(value)
    return with_article(type(value).__name__) + (f" of {package}" if package else "")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, jax.core.Tracer))


def with_article(name: str) -> str:
    """The name of a type with its article.

    >>> with_article('Model'), with_article('Optimizer'), with_article('MLPConfig')
    ('a Model', 'an Optimizer', 'an MLPConfig')
    """
    spelt = name[:2].isupper() and name[0] in "AEFHILMNORSX"
    return f"an {name}" if spelt or name[0] in "AEIOUaeiou" else f"a {name}"


def is_array(value: Any) -> bool:
    """Whether a value is an array of JAX or NumPy, or has the shape and dtype of one.

    >>> is_array(np.zeros(2)), is_array(jax.ShapeDtypeStruct((), jnp.int32)), is_array([1.0])
    (True, True, False)
    """
    if isinstance(value, (jax.Array, np.ndarray)):
        return True
    dtype = getattr(value, "dtype", None)  # those of torch and of TensorFlow are classes of theirs
    return isinstance(dtype, np.dtype) and hasattr(value, "shape") and not foreign(value)


def is_key(value: Any) -> bool:
    """Whether a value is a typed key, or several.

    >>> is_key(jax.random.key(0)), is_key(0)
    (True, False)
    """
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def makes(function: Any, kind: Any) -> bool:
    """Whether a function is annotated to return `kind`: a constructor that was not called.

    >>> def adam() -> Optimizer: ...
    >>> makes(adam, Optimizer), makes(jnp.sin, Model)
    (True, False)
    """
    if not callable(function) or isinstance(function, type):
        return False
    try:
        return inspect.signature(function).return_annotation == kind
    except (TypeError, ValueError):
        return False


def advice(value: Any, kind: Any = None) -> str:
    """What to do about a value where a `kind` was expected; '' if nothing is known.

    >>> def adam() -> Optimizer: ...
    >>> advice(adam, Optimizer), advice(0.1, Schedule)
    ('call it: adam()', 'use schedules.constant(0.1)')
    """
    if makes(value, kind):
        return f"call it: {name_of(value)}({'...' if _has_required(value) else ''})"
    package = foreign(value)
    if kind is Optimizer and (
        package == "optax" or {"init", "update"} == set(getattr(value, "_fields", ()))
    ):
        if package == "optax":
            return "wrap it: fnn.interop.optax.from_optax(...), with a learning rate of 1.0"
        return "end the chain with an optimizer: chain(..., sgd())"
    if kind is Model and package in _MODULES:
        return _MODULES[package]
    if kind is Schedule and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"use schedules.constant({value})"
    if kind is Metric and callable(value):
        return f"use metrics.mean({name_of(value)})"
    return EXAMPLES.get(kind, "")


_MODULES = {
    "flax": "wrap its init and apply in Model(init, apply), which return (params, state) and "
    "(outputs, state)",
    "equinox": "split it with equinox.partition and wrap the parts in Model(init, apply)",
    "torch": "build it of fnn.models, and read its weights with fnn.interop",
    "keras": "build it of fnn.models, as in sequential(nn.linear(10)) or models.mlp.mlp",
}
ARRAYS = {
    "torch": "convert it: np.asarray(tensor)",
    "tensorflow": "convert it: np.asarray(tensor)",
    "pandas": "convert it: .to_numpy(), or read the file with data.read_csv",
    "polars": "convert it: .to_numpy(), or read the file with data.read_csv",
}
EXAMPLES: dict[Any, str] = {
    Model: "use one such as nn.linear(10), or wrap your functions: Model(init, apply)",
    Optimizer: "use one such as optim.adam(), or your own: Optimizer(init, update)",
    Transform: "use one such as optim.clip_by_global_norm(1.0)",
    Metric: "use one such as metrics.accuracy()",
    Schedule: "use one such as schedules.constant(1e-3)",
    Decoder: "use one such as models.gpt.gpt_decoder(config)",
    Data: "use Data(train=(x, y), valid=(x, y))",
    TrainState: "use what make_init(recipe)(key, hyper, x) or a step returned",
}


def _has_required(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    return False


def foreign(value: Any) -> str:
    """The peer that a value's type, or one of its base classes, comes from; '' for none.

    >>> foreign(np.zeros(2))
    ''
    """
    for base in type(value).__mro__:
        package = base.__module__.partition(".")[0]
        if package in {*_MODULES, *ARRAYS, "optax"}:
            return package
    return ""


def name_of(function: Any) -> str:
    """The name of a function, or of what a partial calls.

    >>> name_of(functools.partial(jnp.sum, axis=0))
    'sum'
    """
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return getattr(function, "__name__", type(function).__name__)


def _spec(value: Any) -> str:
    try:
        return spec(value)
    except TypeError:  # strings and objects are no dtypes of JAX
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
