"""The keys of all random draws of a function, read from its jaxpr."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn.testing._compare import fresh
from fnn.testing.battery import LawError

MAX_UNROLLED = 64  # steps of a scan that are looked into


class Draw(NamedTuple):
    """Random bits drawn with one key."""

    key: tuple[int, ...]  # its data
    shape: tuple[int, ...]  # of the bits
    number: int  # of the draw in the order of the program


def draws_of(function: Callable[..., Any], *args: Any) -> list[Draw]:
    """The random draws of `function(*args)`, also in scans (of up to 64 steps) and under vmap.

    A draw inside a while loop or a cond is not seen.

    >>> [len(draws_of(lambda k: jax.random.normal(k, (n,)), jax.random.key(0))) for n in (1, 9)]
    [1, 1]
    """
    shapes: list[tuple[int, ...]] = []

    def keys(*args: Any) -> list[Any]:
        closed = jax.make_jaxpr(function)(*args)
        found: list[Any] = []
        shapes.clear()
        _run(closed.jaxpr, closed.consts, jax.tree.leaves(args), found)
        shapes.extend(shape for _, shape in found)
        return [jax.random.key_data(key) for key, _ in found]

    with jax.debug_key_reuse(False):
        datas = jax.jit(keys)(*fresh(args))
    draws = []
    for i, (data, shape) in enumerate(zip(datas, shapes, strict=True)):
        rows = np.asarray(data).reshape(-1, np.shape(data)[-1])
        each = shape[data.ndim - 1 :]
        draws += [Draw(tuple(int(word) for word in row), each, i) for row in rows]
    return draws


def no_key_is_used_twice(function: Callable[..., Any], *args: Any) -> None:
    """No two random draws of `function(*args)` have the same key: they would be the same noise.

    >>> no_key_is_used_twice(lambda k: jax.random.normal(k), jax.random.key(0))
    >>> no_key_is_used_twice(
    ...     lambda k: jax.random.normal(k) + jax.random.uniform(k), jax.random.key(0))
    Traceback (most recent call last):
        ...
    fnn.testing.battery.LawError: no_key_is_used_twice: draws 0 and 1, of shapes () and (), have \
the same key; split it, or fold in another number for each
    """
    seen: dict[tuple[int, ...], Draw] = {}
    for draw in draws_of(function, *args):
        other = seen.setdefault(draw.key, draw)
        if other is not draw:
            raise LawError(
                f"no_key_is_used_twice: draws {other.number} and {draw.number}, of shapes "
                f"{other.shape} and {draw.shape}, have the same key; split it, or fold in another "
                "number for each",
                expected="a key of its own",
                got=draw.key,
            )


def _run(jaxpr: Any, consts: Any, args: Any, found: list[Any]) -> list[Any]:
    """Evaluates a jaxpr, inlines what it calls, and notes the keys of `random_bits`."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name == "random_bits":
            found.append((given[0], eqn.outvars[0].aval.shape))
        outputs = _apply(eqn, given, found)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: Any, given: list[Any], found: list[Any]) -> list[Any]:
    params = eqn.params
    if eqn.primitive.name == "scan" and params["length"] <= MAX_UNROLLED:
        return _unrolled(params, given, found)
    inner = _called(eqn, len(given))
    if inner is not None:
        return _run(*inner, given, found)
    outputs = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _called(eqn: Any, arguments: int) -> tuple[Any, Any] | None:
    """The jaxpr and constants of a call, such as that of a jit; None for other primitives."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        return None
    for jaxpr, consts in _jaxprs(eqn.params):
        if len(jaxpr.invars) == arguments and len(jaxpr.outvars) == len(eqn.outvars):
            return jaxpr, consts
    return None


def _jaxprs(params: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        value = params.get(name)
        if value is not None:
            yield getattr(value, "jaxpr", value), getattr(value, "consts", ())


def _unrolled(params: dict[str, Any], given: list[Any], found: list[Any]) -> list[Any]:
    body, steps = params["jaxpr"], range(params["length"])
    fixed, carried = params["num_consts"], params["num_carry"]
    constants, carry = given[:fixed], given[fixed : fixed + carried]
    xs = given[fixed + carried :]
    collected: list[list[Any]] = []
    for i in reversed(steps) if params["reverse"] else steps:
        slices = [x[i] for x in xs]
        outputs = _run(body.jaxpr, body.consts, [*constants, *carry, *slices], found)
        carry = outputs[:carried]
        collected.append(outputs[carried:])
    if params["reverse"]:
        collected.reverse()
    return [*carry, *(jax.numpy.stack(ys) for ys in zip(*collected, strict=True))]
