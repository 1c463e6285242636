"""How the laws compare: leaf by leaf, with a message that names the leaf and shows both values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn.dtypes import is_float
from fnn.expect import spec
from fnn.tree import path_of


def fresh(args: PyTree) -> PyTree:
    """The same values, with keys that count as unused where JAX checks for their reuse.

    >>> fresh({'w': 1.0})
    {'w': 1.0}
    """
    return jax.tree.map(lambda leaf: jax.random.clone(leaf) if is_key(leaf) else leaf, args)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed random keys.

    >>> is_key(jax.random.key(0)), is_key(1.0)
    (True, False)
    """
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def rows(tree: PyTree, index: Any) -> PyTree:
    """The given rows of every leaf, or one row of it; in NumPy, which compiles nothing.

    >>> rows({'x': jnp.arange(3)}, [2, 0])['x'].tolist()
    [2, 0]
    """
    return jax.tree.map(lambda leaf: leaf[index] if is_key(leaf) else np.asarray(leaf)[index], tree)


def expect_same(
    law: str,
    expected: PyTree,
    got: PyTree,
    *,
    names: tuple[str, str],
    hint: str,
    rtol: float = 0.0,
) -> None:
    """Check that two trees agree in structure, shapes, dtypes and values.

    Args:
      law: how the message begins.
      names: what the two trees are, such as ("eager", "jit").
      hint: how the message ends: what usually causes the difference.
      rtol: largest difference allowed, as a share of the largest entry of a leaf; 0 is equality.

    Raises: AssertionError that names the leaf, where it differs most, and both values.

    >>> expect_same('law', [1.0], [2.0], names=('first', 'second'), hint='see there')
    Traceback (most recent call last):
        ...
    AssertionError: law: leaf '0' at (): first is 1.0, second is 2.0; they must be equal; see there
    """
    expect_same_specs(law, expected, got, names=names, hint=hint)
    wanted, found = jax.tree.leaves_with_path(expected), jax.tree.leaves(got)
    for (keys, a), b in zip(wanted, found, strict=True):
        _expect_close(f"{law}: leaf '{path_of(keys)}'", _numbers(a), _numbers(b), rtol, names, hint)


def _numbers(leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return array.astype(np.float64) if is_float(array) else array


def _expect_close(
    where: str, a: np.ndarray, b: np.ndarray, rtol: float, names: tuple[str, str], hint: str
) -> None:
    if a.dtype != np.float64:  # integers, booleans and keys: equal or not
        error, allowed = (a != b).astype(np.float64), 0.0
    else:
        alike = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(alike, 0.0, np.abs(np.where(alike, 0.0, a) - np.where(alike, 0.0, b)))
        allowed = rtol * float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    wrong = ~(error <= allowed)
    if not wrong.any():
        return
    place = np.unravel_index(
        np.where(wrong, np.nan_to_num(error, nan=np.inf), -1).argmax(), a.shape
    )
    index = tuple(int(i) for i in place)
    rule = f"at most {allowed:.1e} apart" if rtol else "equal"
    raise AssertionError(
        f"{where} at {index}: {names[0]} is {a[index]}, {names[1]} is {b[index]}; "
        f"they must be {rule}; {hint}"
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
    """Check that two trees agree in structure, and their leaves in shape and dtype.

    Args:
      weak: also compare weak types, which make a compiled function trace anew.

    Raises: AssertionError that names the first leaf that differs.

    >>> three, two = {'w': jnp.zeros(3)}, {'w': jnp.zeros(2)}
    >>> expect_same_specs('law', three, two, names=('before', 'after'), hint='see there')
    Traceback (most recent call last):
        ...
    AssertionError: law: leaf 'w': before is float32[3], after is float32[2]; see there
    """
    structures: list[Any] = [jax.tree.structure(tree) for tree in (expected, got)]
    if structures[0] != structures[1]:
        raise AssertionError(
            f"{law}: the structures differ: {names[0]} is {structures[0]}, "
            f"{names[1]} is {structures[1]}; {hint}"
        )
    for (keys, a), b in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(got), strict=True):
        first, second = _spec(a, weak), _spec(b, weak)
        if first != second:
            raise AssertionError(
                f"{law}: leaf '{path_of(keys)}': {names[0]} is {first}, {names[1]} is {second}; "
                f"{hint}"
            )


def _spec(leaf: Any, weak: bool) -> str:
    if is_key(leaf):
        return f"key{list(leaf.shape)}"
    return spec(leaf) + (", weak" if weak and getattr(leaf, "weak_type", False) else "")


def expect_all(
    law: str, tree: PyTree, holds: Callable[[np.ndarray], np.ndarray], *, rule: str, hint: str
) -> None:
    """Check a condition on every number of every leaf.

    Raises: AssertionError that names the first number that breaks it.

    >>> positive = dict(rule='must be above 0', hint='see there')
    >>> expect_all('law', {'w': jnp.array([1.0, -2.0])}, lambda x: x > 0, **positive)
    Traceback (most recent call last):
        ...
    AssertionError: law: leaf 'w' at (1,) is -2.0, and must be above 0; see there
    """
    for keys, leaf in jax.tree.leaves_with_path(tree):
        numbers = _numbers(leaf)
        wrong = ~np.asarray(holds(numbers))
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
            raise AssertionError(
                f"{law}: leaf '{path_of(keys)}' at {index} is {numbers[index]}, and {rule}; {hint}"
            )
