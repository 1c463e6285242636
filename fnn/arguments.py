"""Arguments of public functions, checked against their annotations when a call is made.

The `__init__` of a package ends with `check_exports(__name__)`: what it exports then refuses
arguments of another kind, such as `linear('32')`, before anything is computed. Annotations that say
nothing about kinds, such as `Any` or a tree of parameters, are not checked. Only Python is run: a
compiled function is not slower for it.
"""

import dataclasses
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray

from fnn.advice import (
    ARRAYS,
    EXAMPLES,
    advice,
    foreign,
    is_array,
    is_key,
    refuse,
    short,
    with_article,
)
from fnn.expect import did_you_mean
from fnn.types import Optimizer, Schedule

Function = TypeVar("Function", bound=Callable[..., Any])


class CallError(TypeError, ValueError):
    """A call whose arguments are not those of the function: too many, missing or misspelt ones."""


class Kind(NamedTuple):
    """What an annotation admits."""

    words: str
    admits: Callable[[Any], bool]
    advice: Callable[[Any], str]


def kind_of(annotation: Any, least: int | None = None) -> Kind | None:
    """The kind of an annotation; None if it says nothing that could be checked.

    Args:
      least: of whole numbers; None admits negative ones.

    >>> kind = kind_of(int | None, least=1)
    >>> kind.words, kind.admits(2), kind.admits(0), kind.advice(2.0)
    ('a whole number above 0 or None', True, False, 'write 2')
    """
    parts = [a for a in _members(annotation) if a is not types.NoneType]
    kinds = [_simple(part, least) for part in parts]
    known = [kind for kind in kinds if kind is not None]
    if not known or len(known) < len(kinds):
        return None
    optional = len(parts) < len(_members(annotation))
    words = " or ".join(dict.fromkeys(kind.words for kind in known))
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
    """The kind of an annotation that is no union."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return _array_kind(annotation)
    if annotation in (int, float, bool, str):
        return _PYTHON[annotation] if annotation is not int else _whole(least)
    if origin is Callable or annotation is Callable or _is_call_protocol(annotation):
        return _function_kind(annotation)
    if origin in (Sequence, tuple) and args and set(args) - {...} == {int}:
        return _several(_whole(least))
    if origin in (Sequence, tuple) and args and set(args) - {...} <= {float}:
        return _several(_PYTHON[float])
    if origin is Mapping and args[0] is str:
        return Kind("a mapping of names", lambda v: isinstance(v, Mapping), lambda v: "use a dict")
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


def _whole(least: int | None) -> Kind:
    words = {None: "a whole number", 0: "a whole number of at least 0"}
    return Kind(
        words.get(least, "a whole number above 0"),
        lambda value: is_whole(value) and (least is None or value >= least),
        lambda value: _advice_of_whole(value, least),
    )


def is_whole(value: Any) -> bool:
    """Whether a value is an int of Python or NumPy.

    >>> is_whole(3), is_whole(np.int32(3)), is_whole(3.0), is_whole(True)
    (True, True, False, False)
    """
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _advice_of_whole(value: Any, least: int | None) -> str:
    if isinstance(value, jax.core.Tracer):
        return (
            "hyper is traced, and what decides shapes cannot be: let the recipe close over a "
            "Python int, or sweep it with search.shapes"
        )
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return f"write {int(value)}"
    if isinstance(value, str) and value.strip().isdigit():
        return f"write {int(value)}"
    if is_whole(value):
        return f"use {least} or more"
    return f"use a Python int of {least} or more" if least is not None else "use a Python int"


def _is_number(value: Any) -> bool:
    """A real scalar, of Python, NumPy or JAX, that is not known to be NaN."""
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, float, np.integer, np.floating)):
        return not math.isnan(value)
    return is_array(value) and value.shape == () and _is_real(value.dtype)


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def _advice_of_number(value: Any) -> str:
    if isinstance(value, str):
        return "write it without quotes"
    if isinstance(value, float):
        return "use a finite number"
    if is_array(value) and value.shape:
        return "use one value, and jax.vmap for many"
    return "use a float"


_PYTHON = {
    float: Kind("a number", _is_number, _advice_of_number),
    bool: Kind(
        "True or False",
        lambda value: isinstance(value, (bool, np.bool_)),
        lambda value: "use one of them",
    ),
    str: Kind("a string", lambda value: isinstance(value, str), lambda value: "use its name"),
}


def _several(one: Kind) -> Kind:
    """A sequence of values of a kind; an array of them serves as well."""

    def admits(values: Any) -> bool:
        if is_array(values):
            return True
        return isinstance(values, Sequence) and all(map(one.admits, values))

    def of_first(values: Any) -> str:
        wrong = [v for v in values if not one.admits(v)] if isinstance(values, Sequence) else []
        return one.advice(wrong[0]) if wrong and not isinstance(values, str) else ""

    return Kind(f"a sequence of which each is {one.words}", admits, of_first)


def _function_kind(annotation: Any) -> Kind:
    def wanted(value: Any) -> str:
        if annotation == Schedule:
            return advice(value, Schedule)
        return "pass the function itself, not its name" if isinstance(value, str) else ""

    return Kind("a function", callable, lambda value: wanted(value) or "pass a function")


def _array_kind(annotation: Any) -> Kind:
    dtypes = annotation.dtypes if isinstance(annotation.dtypes, (list, tuple)) else ()
    if any("key" in str(name) or "prng" in str(name) for name in dtypes):
        return Kind("a typed key", is_key, lambda value: "make it with jax.random.key(seed)")
    scalar = annotation.dim_str == ""

    def admits(value: Any) -> bool:
        if scalar and _is_number(value):
            return is_whole(value) or not _has_only_integers(dtypes) or is_array(value)
        return is_array(value) and (not scalar or value.shape == ()) and _is_one(value, dtypes)

    def wanted(value: Any) -> str:
        if (package := foreign(value)) in ARRAYS:
            return ARRAYS[package]
        if is_array(value) and value.dtype == jnp.uint8 and "float32" in map(str, dtypes):
            return "cast it, and scale images: x.astype('float32') / 255"
        if is_array(value):
            dtype = {" of floats": "float32", " of bools": "bool"}.get(_of_dtypes(dtypes), "int32")
            return f"check the order of the arguments, or cast it: .astype({dtype!r})"
        if scalar:
            return "use a number" if not isinstance(value, str) else "write it without quotes"
        return "convert it: jnp.asarray(...)"

    of = _of_dtypes(dtypes)
    words = "a number" + of.removeprefix(" of numbers") if scalar else "an array" + of
    return Kind(words, admits, wanted)


def _has_only_integers(dtypes: Sequence[Any]) -> bool:
    return bool(dtypes) and not any("float" in str(name) for name in dtypes)


def _of_dtypes(dtypes: Sequence[Any]) -> str:
    names = {"".join(filter(str.isalpha, str(name))) for name in dtypes}
    if not dtypes or names >= {"float", "int"}:
        return "" if not dtypes or "bool" in names else " of numbers"
    for name, words in (("float", " of floats"), ("int", " of integers"), ("bool", " of bools")):
        if name in names:
            return words
    return ""


def _is_one(value: Any, dtypes: Sequence[Any]) -> bool:
    return not dtypes or str(value.dtype) in map(str, dtypes)


# Whole numbers that may be 0, and those that may be negative; all others count something.
_FROM_ZERO = {
    "ahead", "batch", "blank", "count", "first", "host", "key_length", "mask", "max_size",
    "min_factored", "n", "operations", "pad", "padding", "query_length", "shape", "sizes",
    "start_step", "swaps",
}  # fmt: skip
_ANY = {"axes", "axis", "ignore_index", "offset", "place", "start", "stop"}


_HINTS = {
    "progress": "use train.silent to show nothing",
    "callbacks": "give each a name and wrap its function in Callback",
}


def checked(function: Function, *, where: str = "", leave: Collection[str] = ()) -> Function:
    """A function that checks its arguments against their annotations; itself if none says a kind.

    Args:
      where: what messages begin with; the function's name if left out.
      leave: names of arguments that the function checks itself.

    Raises: ValueError, in the function, which begins with its name: for an argument of another
      kind; CallError for a call that has too many, too few or other arguments.

    >>> @checked
    ... def linear(features: int, *, bias: bool = True): ...
    >>> linear('32')
    Traceback (most recent call last):
        ...
    ValueError: linear: expected features to be a whole number above 0, got '32'; write 32
    """
    where = where or function.__name__
    if "kinds" in vars(function):  # exported by a package and by the one around it
        return function
    signature = inspect.signature(function)
    kinds = {name: _kind_of_argument(p) for name, p in signature.parameters.items()}
    wanted = {name: kind for name, kind in kinds.items() if kind is not None and name not in leave}
    if not wanted:
        return function
    required = [
        name
        for name, p in signature.parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            raise _call_error(where, signature, args, kwargs) from None
        for name, kind in wanted.items():
            if name in given and not kind.admits(value := given[name]):
                if value is not signature.parameters[name].default:
                    hint = _HINTS.get(name) or kind.advice(value)
                    refuse(where, f"{name} to be {kind.words}", value, hint)
        if lacking := [name for name in required if name not in given]:
            raise CallError(
                f"{where}: expected {', '.join(required)}, got no {lacking[0]}; give {lacking[0]}="
            )
        return function(*args, **kwargs)

    vars(call)["kinds"] = wanted
    return typing.cast(Function, call)


def _kind_of_argument(parameter: inspect.Parameter) -> Kind | None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    name = parameter.name
    least = None if name in _ANY else 0 if name in _FROM_ZERO else 1
    return kind_of(parameter.annotation, least)


def _call_error(
    where: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> CallError:
    """What is wrong with a call that has too many or other arguments."""
    taken = [name for name in signature.parameters if name != "self"]
    by_place = [n for n, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    rates = [kwargs[name] for name in ("lr", "learning_rate") if name in kwargs]
    if signature.return_annotation is Optimizer and (rates or not by_place):
        rate = short((*rates, *args, *kwargs)[0]) if rates or args else ""
        if rate:
            return CallError(
                f"{where}: expected no learning rate, got {rate}; it is the recipe's schedule, as "
                f"in schedules.constant({rate})"
            )
    if unknown := [name for name in kwargs if name not in taken]:
        hint = did_you_mean(unknown[0], taken, "leave it out")
        return CallError(f"{where}: expected only {', '.join(taken)}, got {unknown[0]!r}; {hint}")
    if len(args) > len(by_place):
        extra, named = short(args[len(by_place)]), [n for n in taken if n not in by_place]
        hint = f"name it, as in {named[0]}={extra}" if named else "leave it out"
        return CallError(
            f"{where}: expected at most {len(by_place)} arguments by position, got {len(args)}; "
            f"{hint}"
        )
    return CallError(f"{where}: expected each argument once, got one twice; leave one out")


def check_exports(package: str, *, prefix: str = "", leave: Collection[str] = ()) -> None:
    """Let the functions and configs that a package or module exports check their arguments.

    A function is replaced both in the package and in the file that defines it.

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
            check: Any = value  # a class, of which mypy would not let a method be replaced
            check.__init__ = checked(check.__init__, where=check.__name__)
