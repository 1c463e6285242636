"""Checks of arguments, whose errors read `where: expected X, got Y; do Z`."""

import difflib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn.tree import path_of

Function = TypeVar("Function", bound=Callable[..., Any])


def spec(leaf: Any) -> str:
    """Dtype and shape of an array or a number, in JAX's short notation.

    >>> spec(jnp.zeros((3, 4)))
    'float32[3,4]'
    """
    return f"{jnp.result_type(leaf).name}[{','.join(map(str, jnp.shape(leaf)))}]"


def expect_alike(where: str, expected: PyTree, got: PyTree, *, dtypes: bool = False) -> None:
    """Checks that two trees have the same paths and shapes.

    Args:
      where: the beginning of the message: the function, and the names of the trees.
      dtypes: also compare the dtypes.

    Raises: ValueError that lists every missing, unexpected and differing leaf.

    >>> expect_alike('adam: params and grads', {'w': jnp.zeros(2)}, {'w': jnp.zeros(3)})
    Traceback (most recent call last):
        ...
    ValueError: adam: params and grads differ:
      w: expected float32[2], got float32[3]
    """
    want = {path_of(k): leaf for k, leaf in jax.tree.leaves_with_path(expected)}
    have = {path_of(k): leaf for k, leaf in jax.tree.leaves_with_path(got)}
    lines = [f"  {p}: expected {spec(want[p])}, got no such leaf" for p in want if p not in have]
    lines += [f"  {p}: expected no such leaf, got {spec(have[p])}" for p in have if p not in want]
    lines += [
        f"  {p}: expected {spec(want[p])}, got {spec(have[p])}"
        for p in want
        if p in have and _differ(want[p], have[p], dtypes)
    ]
    if lines:
        raise ValueError(f"{where} differ:\n" + "\n".join(lines))


def _differ(a: Any, b: Any, dtypes: bool) -> bool:
    return jnp.shape(a) != jnp.shape(b) or (dtypes and jnp.result_type(a) != jnp.result_type(b))


def expect_real(where: str, values: PyTree) -> None:
    """Checks that no leaf is complex: a cast would drop the imaginary part.

    Raises: ValueError, which begins with `where` and names the leaf.

    >>> expect_real('adam: params', {'w': jnp.zeros(2, jnp.complex64)})
    Traceback (most recent call last):
        ...
    ValueError: adam: params: expected real numbers at 'w', got complex64[2]; ...
    """
    for keys, leaf in jax.tree.leaves_with_path(values):
        if jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.complexfloating):
            at = f" at {path_of(keys)!r}" if keys else ""
            raise ValueError(
                f"{where}: expected real numbers{at}, got {spec(leaf)}; give real "
                "and imaginary part as two arrays, or as two features"
            )


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """A hint for an unknown name: the closest of `names`, or `otherwise`.

    >>> did_you_mean('rte', ['lr', 'rate'], 'add it')
    "did you mean 'rate'?"
    >>> did_you_mean('x', ['lr', 'rate'], 'add it')
    'add it'
    """
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def is_integer(value: Any) -> bool:
    """Whether a value is a Python or NumPy integer; False for a bool.

    >>> is_integer(3), is_integer(np.int32(3)), is_integer(3.0), is_integer(True)
    (True, True, False, False)
    """
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_zero(value: Any) -> bool:
    """Whether a value is the Python number 0, which is known without its being traced.

    >>> is_zero(0.0), is_zero(jnp.zeros(())), is_zero(0.5)
    (True, False, False)
    """
    return isinstance(value, (int, float)) and value == 0


def expect_positive(where: str, **numbers: int) -> None:
    """Checks that arguments are positive integers.

    >>> expect_positive('fit', steps=0)
    Traceback (most recent call last):
        ...
    ValueError: fit: expected steps to be a positive integer, got 0; use 1 or more
    """
    for name, value in numbers.items():
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"{where}: expected {name} to be a positive integer, got {value!r}; use 1 or more"
            )


def expect_not_paired(where: str, values: Any, *given: PyTree) -> None:
    """Checks that values of n examples are not (n, n): (n, 1) and (n,) broadcast to all pairs.

    Args:
      given: the inputs of the values; an input of that shape itself passes the check.

    >>> expect_not_paired('mean', jnp.ones((3, 3)), jnp.ones((3, 1)), jnp.ones(3))
    Traceback (most recent call last):
        ...
    ValueError: mean: expected a value per example or token, got float32[3,3] from \
float32[3,1], float32[3]; (n, 1) and (n,) broadcast to all pairs: reshape one
    """
    leaves = [leaf for leaf in jax.tree.leaves(given) if hasattr(leaf, "shape")]
    shape = jnp.shape(values)[:2]
    if len(shape) < 2 or shape[0] != shape[1] or shape[0] < 2 or not leaves:
        return
    if not any(leaf.shape[:2] == shape for leaf in leaves):
        raise ValueError(
            f"{where}: expected a value per example or token, got {spec(values)} from "
            f"{', '.join(map(spec, leaves))}; (n, 1) and (n,) broadcast to all pairs: reshape one"
        )


def expect_divided(where: str, batch: PyTree, parts: int) -> int:
    """The number of examples in a batch, checked to be divisible by `parts`.

    >>> expect_divided('here', (np.ones(4), np.ones(4)), 2)
    4
    """
    examples = jax.tree.leaves(batch)[0].shape[0]
    if examples % parts:
        raise ValueError(
            f"{where}: expected a batch that {parts} parts divide, got {examples} examples; "
            f"use batches of {examples // parts * parts or parts}, or another number of parts"
        )
    return examples


def within(**intervals: str) -> Callable[[Function], Function]:
    """Decorator that checks arguments against intervals, such as `rate="[0, 1]"`.

    Traced values and values that are not numbers pass. The decorated function has the intervals as
    its attribute `intervals`.

    Raises: ValueError, in the function, which begins with its name.

    >>> @within(rate='[0, 1)', eps='(0, inf)')
    ... def adam(rate, *, eps=1e-8):
    ...     return rate
    >>> adam(0.5), adam.intervals['rate']
    (0.5, '[0, 1)')
    >>> adam(1.0)
    Traceback (most recent call last):
        ...
    ValueError: adam: expected rate in [0, 1), got 1.0; choose a value in that interval
    """

    def decorate(function: Function) -> Function:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(names, args, strict=False)) | kwargs
            for name in given.keys() & intervals.keys():
                expect_within(f"{function.__name__}: expected {name}", intervals[name], given[name])
            return function(*args, **kwargs)

        vars(checked)["intervals"] = intervals
        return checked  # type: ignore[return-value]

    return decorate


def expect_within(where: str, interval: str, value: Any) -> None:
    """Checks the known numbers in `value` against an interval, such as '[0, 1)'; NaN is outside.

    >>> expect_within('lr_find: expected decay', '[0, 1)', 0.5)
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for leaf in jax.tree.leaves(value):
        numbers = known(leaf)
        above = numbers >= low if interval[0] == "[" else numbers > low
        below = numbers <= high if interval[-1] == "]" else numbers < high
        if not (inside := above & below).all():
            got = leaf if np.ndim(leaf) == 0 else numbers[~inside][0]
            raise ValueError(f"{where} in {interval}, got {got}; choose a value in that interval")


def expect_rising(where: str, *numbers: tuple[str, Any], strictly: bool = False) -> None:
    """Checks that named numbers are in ascending order, as far as they are known.

    Raises: ValueError, which begins with `where`, with the first two that are not.

    >>> expect_rising('warmup', ('warmup_steps', 20), ('total_steps', 10))
    Traceback (most recent call last):
        ...
    ValueError: warmup: expected warmup_steps of at most total_steps, got 20 and 10; exchange or \
correct them
    """
    for (name, value), (other, limit) in itertools.pairwise(numbers):
        low, high = known(value), known(limit)
        fine = (low < high) if strictly else (low <= high)
        if low.size and high.size and not fine.all():
            bound = "below" if strictly else "of at most"
            raise ValueError(
                f"{where}: expected {name} {bound} {other}, got {value} and {limit}; exchange or "
                "correct them"
            )


def known(leaf: Any) -> np.ndarray:
    """The elements of a real number or array as a float64 vector; empty if traced or not real.

    >>> known(2), known(jax.nn.relu)
    (array([2.]), array([], dtype=float64))
    """
    is_numeric = isinstance(leaf, (int, float, np.number, np.ndarray, jax.Array))
    if not is_numeric or isinstance(leaf, jax.core.Tracer):
        return np.zeros(0)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.zeros(0)
    dtype = jnp.result_type(leaf)
    is_real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    return np.asarray(leaf, np.float64).reshape(-1) if is_real else np.zeros(0)


def expect_floats(where: str, x: Any) -> None:
    """Checks that inputs are real floats, not images of uint8 for instance.

    Raises: ValueError, which begins with `where`.

    >>> expect_floats('linear', jnp.zeros(2, jnp.uint8))
    Traceback (most recent call last):
        ...
    ValueError: linear: expected x of floats, got uint8[2]; cast it, and scale it if it holds \
images: x.astype('float32') / 255
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{where}: expected x of floats, got {spec(x)}; cast it, and scale it if it holds "
            "images: x.astype('float32') / 255"
        )


class in_layer:
    """Context of a layer: names its operations, and adds a note with its path to an error.

        with in_layer(("stages", 1, "conv"), x): ...

    Nested contexts extend the path, which then reads as a path of the parameters: in the compiled
    program, in profiles, in `diagnose.summary`, and in the note, which also has the spec of x.

    Args:
      address: the path below the enclosing context.
      x: the input of the layer.

    >>> try:
    ...     with in_layer(('stages', 1), jnp.zeros((2, 8))), in_layer(('conv',), jnp.zeros((2, 4))):
    ...         raise ValueError('odd')
    ... except ValueError as error:
    ...     print(*error.__notes__)
    in stages/1/conv, which got float32[2,4]
    """

    def __init__(self, address: Sequence[str | int], x: Any):
        self.path, self.x = "/".join(map(str, address)), x
        self.scope = jax.named_scope(self.path)

    def __enter__(self) -> None:
        self.scope.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.scope.__exit__(kind, error, traceback)
        if not isinstance(error, Exception):
            return
        notes = getattr(error, "__notes__", [])
        for i, note in enumerate(notes):
            if isinstance(note, _LayerNote):
                notes[i] = _LayerNote(f"{self.path}/{note.path}", note.got)
                return
        error.add_note(_LayerNote(self.path, _specs(self.x)))


class _LayerNote(str):
    """The note of `in_layer`; its type tells it from other notes of the error."""

    path: str
    got: str

    def __new__(cls, path: str, got: str) -> "_LayerNote":
        note = super().__new__(cls, f"in {path}, which got {got}")
        note.path, note.got = path, got
        return note

    def __reduce__(self) -> tuple[Any, ...]:  # pickles, for errors sent between processes
        return _LayerNote, (self.path, self.got)


def _specs(x: Any) -> str:
    return str(jax.tree.map(_spec_or_type, x)).replace("'", "")


def _spec_or_type(leaf: Any) -> str:
    try:
        return spec(leaf)
    except TypeError:  # not an array; raising here would hide the first error
        return type(leaf).__name__
