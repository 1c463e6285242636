"""Guards: what must not happen while a block of code runs, and why a function was traced again."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.monitoring

from fnn import tree
from fnn.flops import count_flops

_COMPILED = "/jax/core/compile/backend_compile_duration"
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@contextmanager
def no_recompiles(*, allowed: int = 0) -> Iterator[list[str]]:
    """Nothing is compiled in the block: every program that it runs was compiled before.

    For the steps after the first of a training loop. Operations outside `jit` are programs too.

    Args:
      allowed: number of compilations that are expected.

    Yields: the names of the functions compiled so far, in order.
    Raises: AssertionError at the end of the block, with these names.

    >>> step = jax.jit(lambda x: x * 2)
    >>> x, longer = jnp.ones(2), jnp.ones(3)
    >>> y = step(x)
    >>> with no_recompiles():
    ...     y = step(x)
    >>> with no_recompiles():
    ...     y = step(longer)
    Traceback (most recent call last):
        ...
    AssertionError: no_recompiles: expected at most 0 compilations, got 1, of jit(<lambda>); \
compile before the block, and see explain_retrace for what differs between two calls
    """
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **about: Any) -> None:
        if event == _COMPILED:
            compiled.append(str(about.get("fun_name", "a function")))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    if len(compiled) > allowed:
        raise AssertionError(
            f"no_recompiles: expected at most {allowed} compilations, got {len(compiled)}, of "
            f"{', '.join(compiled)}; compile before the block, and see explain_retrace for what "
            "differs between two calls"
        )


@contextmanager
def no_transfers() -> Iterator[None]:
    """No array is copied between host and device in the block.

    Copies that are asked for, by `jax.device_put` and `jax.device_get`, are allowed. On a CPU,
    copies to the host are not noticed, since there are none. Constants, such as those of
    `jnp.ones` outside of `jit`, come from the host.

    Raises: AssertionError where a copy is made.

    >>> step, x = jax.jit(lambda x, lr: x * lr), jnp.ones(2)
    >>> with no_transfers():
    ...     y = step(x, 0.1)
    Traceback (most recent call last):
        ...
    AssertionError: no_transfers: expected no copy between host and device, got \
float32[] from the host; put it on the device before the block, with jax.device_put
    """
    try:
        with jax.transfer_guard("disallow"):
            yield
    except jax.errors.JaxRuntimeError as error:
        found = re.search(
            r"Disallowed (\S+)-to-\S+ transfer: (?:aval=ShapedArray\(([^)]*?\])?)?", str(error)
        )
        if found is None:
            raise
        what = f"{found[2] or 'an array'} from the {found[1]}"
        raise AssertionError(
            f"no_transfers: expected no copy between host and device, got {what}; put it on the "
            "device before the block, with jax.device_put"
        ) from error


@contextmanager
def no_leaks() -> Iterator[None]:
    """No traced value survives the function that was traced, as a global or in a list.

    Raises: AssertionError, with the place where the value was made.

    >>> kept = []
    >>> with no_leaks():
    ...     y = jax.jit(lambda x: kept.append(x) or x)(jnp.ones(2))
    Traceback (most recent call last):
        ...
    AssertionError: no_leaks: expected no traced value to survive its function, ...
    """
    try:
        with jax.checking_leaks():
            yield
    except Exception as error:
        if "Leaked" not in str(error):
            raise
        raise AssertionError(
            "no_leaks: expected no traced value to survive its function, got one; return it "
            f"instead of storing it elsewhere\n{error}"
        ) from error


@contextmanager
def keys_used_once() -> Iterator[None]:
    """No key draws twice in the block, under `jit` or outside: it is split or folded in between.

    Raises: AssertionError where a key is used again.

    >>> key = jax.random.key(0)
    >>> with keys_used_once():
    ...     a, b = jax.random.normal(key), jax.random.uniform(key)
    Traceback (most recent call last):
        ...
    AssertionError: keys_used_once: expected each key to draw once, ...
    """
    try:
        with jax.debug_key_reuse(True):
            yield
    except jax.errors.KeyReuseError as error:
        raise AssertionError(
            "keys_used_once: expected each key to draw once, got one that draws again; split it, "
            f"or derive others by jax.random.fold_in\n{error}"
        ) from error


def explain_retrace(
    function: Callable[..., Any],
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    static: Sequence[str] = (),
) -> str:
    """Why `jax.jit(function)` would be traced again for the second arguments; '' if it would not.

    Args:
      first, second: the positional arguments of two calls.
      static: names of the arguments that are static (`static_argnames` of `jit`).

    Returns: a line for each difference: in the structure, or in a leaf's shape, dtype, weak type,
      sharding or memory; for a static argument, in its value.

    >>> def step(state, lr): ...
    >>> print(explain_retrace(step, ({'w': jnp.ones(2)}, 0.1), ({'w': jnp.ones(3)}, jnp.ones(()))))
    state: leaf 'w': shape (2,), then (3,)
    lr: a Python number, weakly typed, then an array
    """
    lines: list[str] = []
    calls = [_named(function, args) for args in (first, second)]
    for name in dict.fromkeys([*calls[0], *calls[1]]):
        if any(name not in call for call in calls):
            there, gone = ("second", "first") if name in calls[1] else ("first", "second")
            lines.append(f"{name}: given in the {there} call, not in the {gone}")
        elif name in static:
            a, b = (call[name] for call in calls)
            if a != b or hash(a) != hash(b):
                lines.append(f"{name}: static value {a!r}, then {b!r}")
        else:
            lines += [f"{name}: {text}" for text in _differences(*(call[name] for call in calls))]
    return "\n".join(lines)


def _named(function: Callable[..., Any], args: Sequence[Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(function).bind_partial(*args).arguments
    except (TypeError, ValueError):
        return {f"argument {i}": value for i, value in enumerate(args)}


def _differences(a: Any, b: Any) -> list[str]:
    structures: Any = jax.tree.structure(a), jax.tree.structure(b)
    if structures[0] != structures[1]:
        gone, new = _apart(tree.paths(a), tree.paths(b))
        if gone or new:
            return [f"leaves {gone} are gone, {new} are new"]
        return [f"structure {structures[0]}, then {structures[1]}"]
    found = []
    for path, x, y in zip(tree.paths(a), jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        where = f"leaf {path!r}: " if path else ""
        found += [where + text for text in _leaf_differences(x, y)]
    return found


def _apart(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    return [path for path in a if path not in b], [path for path in b if path not in a]


def _leaf_differences(x: Any, y: Any) -> list[str]:
    try:
        one, two = jax.typeof(x), jax.typeof(y)
    except TypeError:
        return [f"{type(x).__name__}, then {type(y).__name__}, which are no arrays"]
    found = [
        f"{name} {getattr(one, name)}, then {getattr(two, name)}"
        for name in ("shape", "dtype")
        if getattr(one, name) != getattr(two, name)
    ]
    if one.weak_type != two.weak_type:
        words = "a Python number, weakly typed", "an array"
        found.append("{}, then {}".format(*(words if one.weak_type else words[::-1])))
    places = [getattr(leaf, "sharding", None) for leaf in (x, y)]
    committed = [getattr(leaf, "committed", False) for leaf in (x, y)]
    if places[0] != places[1] and any(committed):
        found.append(f"sharding {places[0]}, then {places[1]}")
    return found


def costs_at_most(
    function: Callable[..., Any],
    *args: Any,
    flops: float | None = None,
    temporaries: int | None = None,
    collectives: int | None = None,
) -> dict[str, float]:
    """`function(*args)`, compiled for this machine and not executed, stays within a budget.

    Args:
      args: arrays, or ShapeDtypeStructs with their shardings.
      flops: operations, counted as in `summary`, the same on every platform.
      temporaries: bytes of intermediate values, by XLA.
      collectives: number of operations between devices, by XLA.

    Returns: what each of the three is.
    Raises: AssertionError that names every budget exceeded, and both numbers.

    >>> product = lambda a: a @ a
    >>> costs_at_most(product, jnp.ones((8, 8)), flops=2 * 8**3)['flops']
    1024.0
    >>> costs_at_most(product, jnp.ones((8, 8)), flops=1000)
    Traceback (most recent call last):
        ...
    AssertionError: costs_at_most: expected flops of at most 1,000, got 1,024; \
find the operations that are new, or raise the budget
    """
    compiled: Any = jax.jit(function).lower(*args).compile()
    text: str = compiled.as_text()
    found = {
        "flops": float(count_flops(function, *args)),
        "temporaries": float(compiled.memory_analysis().temp_size_in_bytes),
        "collectives": float(
            sum(text.count(f" {c}(") + text.count(f" {c}-start(") for c in COLLECTIVES)
        ),
    }
    budget = {"flops": flops, "temporaries": temporaries, "collectives": collectives}
    over = [
        f"expected {name} of at most {most:,.0f}, got {found[name]:,.0f}"
        for name, most in budget.items()
        if most is not None and found[name] > most
    ]
    if over:
        raise AssertionError(
            f"costs_at_most: {'; '.join(over)}; find the operations that are new, or raise the "
            "budget"
        )
    return found
