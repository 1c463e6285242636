"""Type checks of the arguments of public functions, made from their annotations at each call.

The `__init__` of a package ends with `check_exports(__name__)`: its functions then raise for
arguments of the wrong type, such as `linear('32')`, before anything is computed. Annotations that
name no type, such as `Any` or `Params`, are not checked. Compiled functions are not slowed down.
"""

import dataclasses
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray

from fnn._messages import (
    ARRAYS,
    EXAMPLES,
    advice,
    describe,
    foreign,
    is_array,
    is_key,
    refuse,
    with_article,
)
from fnn.expect import did_you_mean, is_integer
from fnn.types import Optimizer, Schedule

Function = TypeVar("Function", bound=Callable[..., Any])


class CallError(TypeError, ValueError):
    """A call with missing, misspelled or too many arguments."""


class Kind(NamedTuple):
    """The values that an annotation admits."""

    words: str
    admits: Callable[[Any], bool]
    advice: Callable[[Any], str]


def kind_of(annotation: Any, least: int | None = None) -> Kind | None:
    """The kind of an annotation, with integers of at least `least`; None if it cannot be checked.

    >>> kind = kind_of(int | None, least=1)
    >>> kind.words, kind.admits(2), kind.admits(0), kind.advice(2.0)
    ('a positive integer or None', True, False, 'write 2')
    """
    members = _members(annotation)
    parts = [member for member in members if member is not types.NoneType]
    kinds = [_simple(part, least) for part in parts]
    known = [kind for kind in kinds if kind is not None]
    if not known or len(known) < len(kinds):
        return None
    optional = len(parts) < len(members)
    words = " or ".join(dict.fromkeys(kind.words for kind in known if kind.words))
    if {int, Sequence[int]} == set(parts):
        words = "a positive number, or a sequence of them" if least else "a number, or several"
    return Kind(
        words + " or None" * optional,
        lambda value: (optional and value is None) or any(kind.admits(value) for kind in known),
        lambda value: next(filter(None, (kind.advice(value) for kind in known)), ""),
    )


def _members(annotation: Any) -> list[Any]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return list(typing.get_args(annotation)) if is_union else [annotation]


def _simple(annotation: Any, least: int | None) -> Kind | None:
    """The kind of an annotation that is not a union."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return next((extra for extra in args if isinstance(extra, Kind)), None)
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return _array(annotation)
    if annotation is int:
        return _integer(least)
    if annotation in _PYTHON:
        return _PYTHON[annotation]
    if origin is Callable or annotation is Callable or _is_call_protocol(annotation):
        return _function(annotation)
    if origin in (Sequence, tuple) and args and set(args) - {...} == {int}:
        return _sequence(_integer(least))
    if origin in (Sequence, tuple) and args and set(args) - {...} <= {float}:
        return _sequence(_PYTHON[float])
    if origin is Mapping and args[0] is str:
        return Kind("a mapping of names", lambda v: isinstance(v, Mapping), lambda v: "use a dict")
    if hasattr(annotation, "__jax_array__"):  # acts as the array that stands beside it
        return Kind("", lambda value: isinstance(value, annotation), lambda value: "")
    if annotation in EXAMPLES or (isinstance(annotation, type) and _is_config(annotation)):
        return Kind(
            with_article(annotation.__name__),
            lambda value: isinstance(value, annotation),
            lambda value: advice(value, annotation) or f"make one: {annotation.__name__}(...)",
        )
    return None


def _is_call_protocol(annotation: Any) -> bool:
    return getattr(annotation, "_is_protocol", False) and "__call__" in vars(annotation)


def _is_config(annotation: type) -> bool:
    return dataclasses.is_dataclass(annotation) and annotation.__name__.endswith("Config")


def _integer(least: int | None) -> Kind:
    words = {None: "an integer", 0: "a non-negative integer"}
    return Kind(
        words.get(least, "a positive integer"),
        lambda value: is_integer(value) and (least is None or value >= least),
        lambda value: _advice_for_integer(value, least),
    )


def _advice_for_integer(value: Any, least: int | None) -> str:
    if isinstance(value, jax.core.Tracer):
        return (
            "hyper is traced, and what decides shapes cannot be: let the recipe close over a "
            "Python int, or sweep it with search.shapes"
        )
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return f"write {int(value)}"
    if isinstance(value, str) and value.strip().isdigit():
        return f"write {int(value)}"
    if is_integer(value):
        return f"use {least} or more"
    return f"use a Python int of {least} or more" if least is not None else "use a Python int"


def _is_number(value: Any) -> bool:
    """Whether a value is a real scalar of Python, NumPy or JAX, and not a known NaN."""
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, float, np.integer, np.floating)):
        return not math.isnan(value)
    return is_array(value) and value.shape == () and _is_real(value.dtype)


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def _advice_for_number(value: Any) -> str:
    if isinstance(value, str):
        return "write it without quotes"
    if isinstance(value, float):
        return "use a finite number"
    if is_array(value) and value.shape:
        return "use one value, and jax.vmap for many"
    return "use a float"


_PYTHON = {
    float: Kind("a number", _is_number, _advice_for_number),
    bool: Kind(
        "True or False",
        lambda value: isinstance(value, (bool, np.bool_)),
        lambda value: "use one of them",
    ),
    str: Kind("a string", lambda value: isinstance(value, str), lambda value: "use its name"),
}


def _sequence(element: Kind) -> Kind:
    """A sequence of values of a kind, or any array."""

    def admits(values: Any) -> bool:
        if is_array(values):
            return True
        return isinstance(values, Sequence) and all(map(element.admits, values))

    def advice_for_first(values: Any) -> str:
        if isinstance(values, str) or not isinstance(values, Sequence):
            return ""
        return next((element.advice(v) for v in values if not element.admits(v)), "")

    return Kind(f"a sequence of which each is {element.words}", admits, advice_for_first)


def _function(annotation: Any) -> Kind:
    def advice_for(value: Any) -> str:
        if annotation == Schedule:
            return advice(value, Schedule)
        return "pass the function itself, not its name" if isinstance(value, str) else ""

    return Kind("a function", callable, lambda value: advice_for(value) or "pass a function")


def _array(annotation: Any) -> Kind:
    dtypes = annotation.dtypes if isinstance(annotation.dtypes, (list, tuple)) else ()
    names = {str(dtype) for dtype in dtypes}
    if any("key" in name or "prng" in name for name in names):
        return Kind("a typed key", is_key, lambda value: "make it with jax.random.key(seed)")
    scalar = annotation.dim_str == ""
    only_integers = bool(names) and not any("float" in name for name in names)
    of = _of_dtypes(names)

    def admits(value: Any) -> bool:
        if scalar and _is_number(value):
            return is_integer(value) or not only_integers or is_array(value)
        if not is_array(value) or (scalar and value.shape != ()):
            return False
        return not names or str(value.dtype) in names

    def advice_for(value: Any) -> str:
        if (package := foreign(value)) in ARRAYS:
            return ARRAYS[package]
        if is_array(value) and value.dtype == jnp.uint8 and "float32" in names:
            return "cast it, and scale images: x.astype('float32') / 255"
        if is_array(value):
            dtype = {" of floats": "float32", " of bools": "bool"}.get(of, "int32")
            return f"check the order of the arguments, or cast it: .astype({dtype!r})"
        if scalar:
            return "use a number" if not isinstance(value, str) else "write it without quotes"
        return "convert it: jnp.asarray(...)"

    words = "a number" + of.removeprefix(" of numbers") if scalar else "an array" + of
    return Kind(words, admits, advice_for)


def _of_dtypes(dtypes: Collection[str]) -> str:
    names = {"".join(filter(str.isalpha, dtype)) for dtype in dtypes}
    if not dtypes or names >= {"float", "int"}:
        return "" if not dtypes or "bool" in names else " of numbers"
    for name, words in (("float", " of floats"), ("int", " of integers"), ("bool", " of bools")):
        if name in names:
            return words
    return ""


# Integer arguments that may be 0, and those that may be negative; all others are positive.
_FROM_ZERO = {
    "ahead", "batch", "blank", "count", "first", "host", "key_length", "mask", "max_size",
    "min_factored", "n", "operations", "pad", "padding", "query_length", "shape", "sizes",
    "start_step", "swaps",
}  # fmt: skip
_ANY = {"axes", "axis", "ignore_index", "offset", "start", "stop"}


_HINTS = {
    "progress": "use train.silent to show nothing",
    "callbacks": "give each a name and wrap its function in Callback",
}


def checked(function: Function, *, where: str = "", leave: Collection[str] = ()) -> Function:
    """The function with its arguments checked; unchanged if no annotation can be checked.

    Args:
      where: the beginning of messages; the function's name by default.
      leave: names of arguments that the function checks itself.

    Raises: ValueError, when called, for an argument of the wrong type; CallError for missing,
      unknown or too many arguments.

    >>> @checked
    ... def linear(features: int, *, bias: bool = True): ...
    >>> linear('32')
    Traceback (most recent call last):
        ...
    ValueError: linear: expected features to be a positive integer, got '32'; write 32
    """
    where = where or function.__name__
    if "kinds" in vars(function):  # already checked: exported by two packages
        return function
    signature = inspect.signature(function)
    parameters = {
        name: p
        for name, p in signature.parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    kinds = {n: _kind_of_argument(p) for n, p in parameters.items() if n not in leave}
    wanted = {name: kind for name, kind in kinds.items() if kind is not None}
    if not wanted:
        return function
    required = [name for name, p in parameters.items() if p.default is p.empty]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            raise _call_error(where, signature, args, kwargs) from None
        for name, kind in wanted.items():
            if name in given and not kind.admits(value := given[name]):
                if value is not parameters[name].default:
                    hint = _HINTS.get(name) or kind.advice(value)
                    refuse(where, f"{name} to be {kind.words}", value, hint)
        if missing := [name for name in required if name not in given]:
            raise CallError(
                f"{where}: expected {', '.join(required)}, got no {missing[0]}; give {missing[0]}="
            )
        return function(*args, **kwargs)

    vars(call)["kinds"] = wanted
    return typing.cast(Function, call)


def _kind_of_argument(parameter: inspect.Parameter) -> Kind | None:
    name = parameter.name
    least = None if name in _ANY else 0 if name in _FROM_ZERO else 1
    return kind_of(parameter.annotation, least)


def _call_error(
    where: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> CallError:
    """The error of a call that does not fit the signature."""
    names = [name for name in signature.parameters if name != "self"]
    positional = [n for n, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    rates = [kwargs[name] for name in ("lr", "learning_rate") if name in kwargs]
    if signature.return_annotation is Optimizer and (rates or (args and not positional)):
        rate = describe((*rates, *args)[0])
        return CallError(
            f"{where}: expected no learning rate, got {rate}; it is the recipe's schedule, as "
            f"in schedules.constant({rate})"
        )
    if unknown := [name for name in kwargs if name not in names]:
        hint = did_you_mean(unknown[0], names, "drop it")
        return CallError(f"{where}: expected only {', '.join(names)}, got {unknown[0]!r}; {hint}")
    if len(args) > len(positional):
        extra, keywords = describe(args[len(positional)]), [n for n in names if n not in positional]
        hint = f"name it, as in {keywords[0]}={extra}" if keywords else "drop it"
        return CallError(
            f"{where}: expected at most {len(positional)} arguments by position, got {len(args)}; "
            f"{hint}"
        )
    return CallError(f"{where}: expected each argument once, got one twice; leave one out")


def check_exports(package: str, *, prefix: str = "", leave: Collection[str] = ()) -> None:
    """Replaces the exported functions and configs of a package or module by checked ones.

    A function is replaced both in the package and in the module that defines it.

    Args:
      prefix: of the names in messages, such as "search.".
      leave: names of arguments that the functions check themselves.

    >>> check_exports('fnn.metrics')   # its last line; a second call changes nothing
    """
    exports: dict[str, Any] = vars(sys.modules[package])
    for name in exports.get("__all__", list(exports)):
        value = exports[name]
        home = str(getattr(value, "__module__", ""))
        if name.startswith("_") or not (home + ".").startswith(f"{package}."):
            continue
        if isinstance(value, types.FunctionType):
            own = value.__name__
            exports[name] = checked(value, where=prefix + own, leave=leave)
            if vars(sys.modules[home]).get(own) is value:
                setattr(sys.modules[home], own, exports[name])
        elif inspect.isclass(value) and _is_config(value):
            check: Any = value  # mypy does not let the __init__ of a class be replaced
            check.__init__ = checked(check.__init__, where=check.__name__)
