"""Error messages: descriptions of unexpected values, and hints on how to correct them."""

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
    """Raises ValueError with `where: expected words, got value; hint`."""
    raise ValueError(f"{where}: expected {words}, got {describe(value)}; {hint}")


def expect_pair(where: str, words: str, result: Any) -> tuple[Any, Any]:
    """The result of a user's function, checked to be a pair."""
    if not isinstance(result, tuple) or len(result) != 2:
        refuse(where, f"a pair {words}", result, f"return {words}")
    return result[0], result[1]


def describe(value: Any) -> str:
    """A short description of a value, without the elements of an array.

    >>> describe(jnp.zeros((2, 3))), describe('mse'), describe(jnp.sin), describe([[1]])
    ('float32[2,3]', "'mse'", 'the function sin', 'a list')
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
    package = foreign(value)
    if callable(value) and not package:
        return f"the function {name_of(value)}"
    if type(value) in (list, tuple) and 0 < len(value) < 8 and all(map(_is_plain, value)):
        inside = ", ".join(map(describe, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return with_article(type(value).__name__) + (f" of {package}" if package else "")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, jax.core.Tracer))


def _spec(value: Any) -> str:
    try:
        return spec(value)
    except TypeError:  # JAX has no dtype for strings and objects
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def with_article(name: str) -> str:
    """The name of a type with its article: 'a Model', 'an Optimizer', 'an MLPConfig'."""
    acronym = name[:2].isupper() and name[0] in "AEFHILMNORSX"
    return f"an {name}" if acronym or name[0] in "AEIOUaeiou" else f"a {name}"


def is_array(value: Any) -> bool:
    """Whether a value is a JAX or NumPy array, or has a shape and a NumPy dtype."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return True
    dtype = getattr(value, "dtype", None)  # torch and TensorFlow have dtype classes of their own
    return isinstance(dtype, np.dtype) and hasattr(value, "shape") and not foreign(value)


def is_key(value: Any) -> bool:
    """Whether a value is an array of typed keys."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def makes(function: Any, kind: Any) -> bool:
    """Whether a function is annotated to return `kind`: a constructor that was not called."""
    if not callable(function) or isinstance(function, type):
        return False
    try:
        return inspect.signature(function).return_annotation == kind
    except (TypeError, ValueError):
        return False


def advice(value: Any, kind: Any = None) -> str:
    """A hint for a value in place of a `kind`; '' if there is none.

    >>> def adam() -> Optimizer: ...
    >>> advice(adam, Optimizer), advice(0.1, Schedule)
    ('call it: adam()', 'use schedules.constant(0.1)')
    """
    if makes(value, kind):
        return f"call it: {name_of(value)}({'...' if _has_required(value) else ''})"
    package = foreign(value)
    if kind is Optimizer and package == "optax":
        return "wrap it: fnn.interop.optax.from_optax(...), with a learning rate of 1.0"
    if kind is Optimizer and {"init", "update"} == set(getattr(value, "_fields", ())):
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
    """The peer library that defines a value's type or one of its base classes; '' for none."""
    for base in type(value).__mro__:
        package = base.__module__.partition(".")[0]
        if package in {*_MODULES, *ARRAYS, "optax"}:
            return package
    return ""


def name_of(function: Any) -> str:
    """The name of a function, or of the function of a partial."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return getattr(function, "__name__", type(function).__name__)
