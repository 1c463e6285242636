"""Laws of pure functions, to be called in tests with small arguments."""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn._messages import is_key
from fnn.testing import tolerance
from fnn.testing._compare import expect_same, expect_same_specs, fresh, rows
from fnn.testing.battery import LawError

Function = Callable[..., Any]

# Reordered float32 sums in a three-layer transformer differ by up to 7e-7, relative to the largest
# entry. This leaves room for deeper models, and none for a wrong formula.
RTOL = 5e-6


def keeps_structure_and_dtype(function: Function, tree: PyTree, *args: Any) -> None:
    """`function(tree, *args)` has the structure, shapes and dtypes of `tree`.

    >>> keeps_structure_and_dtype(lambda state: state + 1, jnp.arange(3))
    >>> keeps_structure_and_dtype(lambda state: state / 2, jnp.arange(3))
    Traceback (most recent call last):
        ...
    fnn.testing.battery.LawError: keeps_structure_and_dtype: leaf '': before is int32[3], \
after is float32[3]; cast the result to the dtype of what it replaces
    """
    expect_same_specs(
        "keeps_structure_and_dtype",
        tree,
        jax.eval_shape(function, tree, *args),
        names=("before", "after"),
        hint="cast the result to the dtype of what it replaces",
    )


def jit_equals_eager(function: Function, *args: Any) -> None:
    """`jit(function)` agrees with `function`, as closely as its conditioning allows.

    >>> jit_equals_eager(jnp.sin, jnp.arange(3.0))
    """
    compiled = jax.jit(function)
    expect_same(
        "jit_equals_eager",
        function(*fresh(args)),
        compiled(*fresh(args)),
        names=("eager", "jit"),
        allowed=tolerance.of(compiled, *args),
        hint="look for state outside the function, or a choice by the type of an argument",
    )


def vmap_equals_loop(function: Function, *args: Any) -> None:
    """`vmap(function)` agrees with a loop over the first axis of every argument.

    >>> vmap_equals_loop(jnp.dot, jnp.ones((2, 3)), jnp.ones((2, 3)))
    """
    one, batched = jax.jit(function), jax.jit(jax.vmap(function))
    if not jax.tree.leaves(args):
        raise ValueError(
            "vmap_equals_loop: expected arguments with arrays, got none; pass those of the function"
        )
    count = len(jax.tree.leaves(args)[0])
    loop = [one(*rows(fresh(args), i)) for i in range(count)]
    expect_same(
        "vmap_equals_loop",
        tree.stack(loop),
        batched(*fresh(args)),
        names=("the loop", "vmap"),
        allowed=tolerance.of(batched, *args),
        hint="look for a fixed batch axis, or a reduction over all axes",
    )


def scan_equals_unrolled(step: Function, carry: PyTree, xs: PyTree) -> None:
    """`lax.scan(step, carry, xs)` agrees with a Python loop of `step(carry, x)`.

    >>> scan_equals_unrolled(lambda total, x: (total + x, total), jnp.float32(0), jnp.arange(3.0))
    """
    one = jax.jit(step)
    count = len(jax.tree.leaves(xs)[0])
    parts = [_arrays(rows(xs, i)) for i in range(count)]
    keeps_structure_and_dtype(lambda carry: step(carry, parts[0])[0], carry)
    unrolled, outputs = fresh(carry), []
    for part in parts:
        unrolled, output = one(unrolled, fresh(part))
        outputs.append(output)
    scan = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs))
    expect_same(
        "scan_equals_unrolled",
        (unrolled, tree.stack(outputs)),
        scan(fresh(carry), fresh(xs)),
        names=("unrolled", "scan"),
        allowed=tolerance.of(scan, carry, xs),
        hint="look for Python state that each step of the loop changes",
    )


def _arrays(values: PyTree) -> PyTree:
    """JAX's arrays of NumPy's, which an eager or a traced function would get."""
    return jax.tree.map(lambda leaf: leaf if is_key(leaf) else jnp.asarray(leaf), values)


def donation_is_safe(step: Function, make_state: Callable[[], PyTree], *args: Any) -> None:
    """`step(state, *args)` is bitwise the same when `state` is donated.

    Args:
      step: returns a new state, alone or in a tuple.
      make_state: called for each state, because a donated one is deleted.

    >>> donation_is_safe(lambda state, x: state + x, lambda: jnp.zeros(2), 1.0)
    """
    law, names = "donation_is_safe", ("kept", "donated")
    expect_own_buffers(law, make_state())
    kept = jax.jit(step)(make_state(), *fresh(args))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*donated")
        try:
            donated = jax.jit(step, donate_argnums=0)(make_state(), *fresh(args))
        except (UserWarning, ValueError, RuntimeError) as error:
            raise LawError(
                f"{law}: the state cannot be donated ({error}); each leaf needs a buffer of its "
                "own, and an output of the same shape and dtype: build the state in one jit"
            ) from error
    expect_same(law, kept, donated, names=names, hint="look for a buffer that is used twice")


def expect_own_buffers(law: str, state: PyTree) -> None:
    """Checks that no two leaves share memory, as two names of one array do."""
    seen: dict[int, str] = {}
    for keys, leaf in jax.tree.leaves_with_path(state):
        if not isinstance(leaf, jax.Array) or is_key(leaf) or leaf.size == 0:
            continue
        path = tree.path_of(keys)
        other = seen.setdefault(leaf.unsafe_buffer_pointer(), path)
        if other != path:
            raise LawError(
                f"{law}: leaves '{other}' and '{path}' share one buffer, which cannot be donated "
                "twice; make each with its own jnp.zeros_like or jnp.copy",
                law=law,
                leaf=path,
            )


def traces_once(function: Function, *calls: Sequence[Any]) -> None:
    """`jit(function)` is traced once, whatever the values of its arguments.

    Args:
      calls: argument tuples, at least three, with different values.

    >>> traces_once(lambda x, lr: x * lr, (1.0, 0.1), (2.0, 0.2), (3.0, 0.3))
    """
    traced: list[Any] = []

    def counted(*args: Any) -> Any:
        traced.append(jax.tree.map(jax.typeof, args))
        return function(*args)

    compiled = jax.jit(counted)
    for args in calls:
        if not isinstance(args, (tuple, list)):
            raise ValueError(
                f"traces_once: expected a tuple of arguments for each call, got {type(args)}; "
                "pass (x,) for a function of one argument"
            )
        compiled(*fresh(tuple(args)))
    if len(traced) != 1:
        raise LawError(
            f"traces_once: {len(calls)} calls were traced {len(traced)} times, and must be once; "
            f"{_first_change(traced)}; give every call the same shapes and dtypes, and pass "
            "changing values as arrays"
        )


def _first_change(traced: list[Any]) -> str:
    first, other = jax.tree.leaves_with_path(traced[0]), jax.tree.leaves(traced[1])
    for (keys, a), b in zip(first, other, strict=False):
        if a != b:
            return f"argument '{tree.path_of(keys)}' was {a}, then {b} (~ marks a Python number)"
    return "the structure of the arguments changed"


def is_pure(function: Function, *args: Any) -> None:
    """`function` is deterministic, bitwise, and does not modify its arguments.

    >>> is_pure(jnp.sin, jnp.arange(3.0))
    """
    first = arguments_are_kept(function, *args)
    expect_same(
        "is_pure",
        first,
        function(*fresh(args)),
        names=("the first call", "the second"),
        hint="look for a global, a counter or a generator that the function changes",
    )


def arguments_are_kept(function: Function, *args: Any) -> Any:
    """`function` changes no argument: no NumPy array, no dict, no list. Returns its result.

    >>> arguments_are_kept(jnp.sin, jnp.float32(0)).item()
    0.0
    """
    given, kept = fresh(args), _copy(args)
    result = function(*given)
    expect_same(
        "arguments_are_kept",
        kept,
        given,
        names=("an argument before the call", "after"),
        hint="return new values instead of modifying the arguments",
    )
    return result


def is_traced_alike(function: Function, *args: Any) -> None:
    """Two traces of `function` are the same program with the same constants.

    >>> is_traced_alike(jnp.sin, jnp.arange(3.0))
    """
    programs = [jax.make_jaxpr(lambda *args: function(*args))(*fresh(args)) for _ in range(2)]
    texts = [re.sub("0x[0-9a-f]+", "", str(program)) for program in programs]
    changed = [
        line
        for line in zip(*(text.splitlines() for text in texts), strict=False)
        if line[0] != line[1]
    ]
    if texts[0] != texts[1]:
        before, after = changed[0] if changed else ("a program", "another")
        raise LawError(
            f"is_traced_alike: the first trace has `{before.strip()}`, the second "
            f"`{after.strip()}`; look for a global, a counter or a generator that the function "
            "changes"
        )
    expect_same(
        "is_traced_alike, in its constants",
        list(programs[0].consts),
        list(programs[1].consts),
        names=("the first trace", "the second"),
        hint="look for a global, a counter or a generator that the function changes",
    )


def _copy(args: PyTree) -> PyTree:
    """The values now: containers are rebuilt and NumPy arrays copied."""
    return jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, args)


def is_elementwise(function: Function, x: Any, *, rtol: float = RTOL) -> None:
    """Each output depends only on the input at the same index; shape and dtype are kept.

    >>> is_elementwise(jnp.tanh, jnp.arange(6.0).reshape(2, 3))
    """
    keeps_structure_and_dtype(function, x)
    order = np.random.default_rng(0).permutation(x.size)
    alone = jax.vmap(function)(jnp.reshape(x, (-1, 1)))[:, 0]  # each element in its own array
    expect_equal = partial(
        expect_same,
        "is_elementwise",
        names=("each element alone", "all together"),
        rtol=rtol,
        hint="an element depends on its neighbors: look for a reduction",
    )
    expect_equal(alone, function(x).ravel())
    shuffled = function(jnp.reshape(jnp.ravel(x)[order], x.shape)).ravel()
    expect_equal(alone[order], shuffled)
