"""How the annotations of fnn are checked while the tests run."""

import functools
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

# As for a type checker, an int may stand where a float is expected.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_made: Counter[CodeType] = Counter()


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Types and shapes of every argument and result, by beartype, for pytest's jaxtyping hook.

    Constructors are skipped: JAX also makes dataclasses of what stands in the place of arrays,
    such as axes, shardings and ShapeDtypeStructs. So are all but the first closures of a `def`:
    beartype would write the same check for each, which takes longer than most of them run.
    """
    if function.__name__ == "__init__":
        return function
    _made[function.__code__] += 1
    if _made[function.__code__] > 5:
        return function
    try:
        return _check(function)
    except BeartypeDecorHintPep3119Exception:  # takes a Protocol that only mypy can check
        return function


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without these checks, as users call it: to test the errors of fnn."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return function(*args, **kwargs)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    return call
