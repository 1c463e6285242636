"""Comparisons of pytrees, with messages that name the leaf and show both values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn._messages import is_key
from fnn.dtypes import is_float
from fnn.expect import spec
from fnn.testing.battery import LawError
from fnn.tree import path_of


def fresh(args: PyTree) -> PyTree:
    """The same values, with keys cloned for JAX's check of key reuse."""
    return jax.tree.map(lambda leaf: jax.random.clone(leaf) if is_key(leaf) else leaf, args)


def rows(tree: PyTree, index: Any) -> PyTree:
    """Indexes every leaf, in NumPy, which needs no compilation."""
    return jax.tree.map(lambda leaf: leaf[index] if is_key(leaf) else np.asarray(leaf)[index], tree)


def expect_same(
    law: str,
    expected: PyTree,
    got: PyTree,
    *,
    names: tuple[str, str],
    hint: str,
    rtol: float = 0.0,
    allowed: PyTree | None = None,
) -> None:
    """Checks that two trees agree in structure, shapes, dtypes and values.

    Args:
      law: prefix of the message.
      names: of the two trees, such as ("eager", "jit").
      hint: end of the message: the usual cause of a difference.
      rtol: tolerance relative to the largest entry of a leaf; 0 is equality.
      allowed: the error allowed in each leaf instead, from `tolerance.of`.

    >>> expect_same('law', [1.0], [2.0], names=('first', 'second'), hint='see there')
    Traceback (most recent call last):
        ...
    fnn.testing.battery.LawError: law: leaf '0' at (): first is 1.0, second is 2.0; they must be \
equal; see there
    """
    expect_same_specs(law, expected, got, names=names, hint=hint)
    wanted, found = jax.tree.leaves_with_path(expected), jax.tree.leaves(got)
    limits = [None] * len(wanted) if allowed is None else jax.tree.leaves(allowed)
    for (keys, a), b, limit in zip(wanted, found, limits, strict=True):
        first, second = entries(a), entries(b)
        if limit is None:
            limit = rtol * float(np.abs(first[np.isfinite(first)]).max(initial=0.0)) if rtol else 0
        _expect_close(law, path_of(keys), first, second, float(limit), names, hint)


def entries(leaf: Any) -> np.ndarray:
    """The entries in NumPy: floats in float64, keys as their data."""
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return array.astype(np.float64) if is_float(array) else array


def _expect_close(
    law: str,
    leaf: str,
    a: np.ndarray,
    b: np.ndarray,
    allowed: float,
    names: tuple[str, str],
    hint: str,
) -> None:
    if a.dtype != np.float64:  # integers, booleans and keys: equal or not
        error = (a != b).astype(np.float64)
    else:
        alike = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(alike, 0.0, np.abs(np.where(alike, 0.0, a) - np.where(alike, 0.0, b)))
    wrong = ~(error <= allowed)
    if not wrong.any():
        return
    worst = np.where(wrong, np.nan_to_num(error, nan=np.inf), -1).argmax()
    index = tuple(int(i) for i in np.unravel_index(worst, a.shape))
    rule = f"at most {allowed:.1e} apart" if allowed else "equal"
    raise LawError(
        f"{law}: leaf '{leaf}' at {index}: {names[0]} is {a[index]}, {names[1]} is {b[index]}; "
        f"they must be {rule}; {hint}",
        law=law,
        leaf=leaf,
        expected=a[index],
        got=b[index],
        hint=hint,
    )


def expect_same_specs(
    law: str,
    expected: PyTree,
    got: PyTree,
    *,
    names: tuple[str, str],
    hint: str,
    weak: bool = False,
) -> None:
    """Checks that two trees agree in structure, shapes, dtypes and, with `weak`, weak types."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (expected, got)]
    if structures[0] != structures[1]:
        raise LawError(
            f"{law}: the structures differ: {names[0]} is {structures[0]}, "
            f"{names[1]} is {structures[1]}; {hint}",
            law=law,
            expected=structures[0],
            got=structures[1],
            hint=hint,
        )
    for (keys, a), b in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(got), strict=True):
        first, second = _spec(a, weak), _spec(b, weak)
        if first != second:
            leaf = path_of(keys)
            raise LawError(
                f"{law}: leaf '{leaf}': {names[0]} is {first}, {names[1]} is {second}; {hint}",
                law=law,
                leaf=leaf,
                expected=first,
                got=second,
                hint=hint,
            )


def _spec(leaf: Any, weak: bool) -> str:
    if is_key(leaf) or jax.dtypes.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return f"key{list(leaf.shape)}"
    return spec(leaf) + (", weak" if weak and getattr(leaf, "weak_type", False) else "")


def expect_all(
    law: str, tree: PyTree, holds: Callable[[np.ndarray], np.ndarray], *, rule: str, hint: str
) -> None:
    """Checks a condition on every entry of every leaf."""
    for keys, leaf in jax.tree.leaves_with_path(tree):
        values = entries(leaf)
        wrong = ~np.asarray(holds(values))
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
            leaf = path_of(keys)
            raise LawError(
                f"{law}: leaf '{leaf}' at {index} is {values[index]}, and {rule}; {hint}",
                law=law,
                leaf=leaf,
                expected=rule,
                got=values[index],
                hint=hint,
            )
