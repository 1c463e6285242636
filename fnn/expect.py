"""Checks of arguments, whose errors read `where: expected X, got Y; do Z`, and words for them."""

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn.tree import path_of


def spec(leaf: Any) -> str:
    """Shape and dtype of a leaf in short, for error messages.

    >>> spec(jnp.zeros((3, 4)))
    'float32[3,4]'
    """
    return f"{jnp.result_type(leaf).name}[{','.join(map(str, jnp.shape(leaf)))}]"


def expect_alike(where: str, expected: PyTree, got: PyTree, *, dtypes: bool = False) -> None:
    """Check that two trees have the same leaves.

    Args:
      where: how the message begins; names the function and what the trees are.
      dtypes: also compare the dtypes of the leaves.

    Raises: ValueError that lists every missing, extra and differing leaf.

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
    for p in want:
        if p in have and _differ(want[p], have[p], dtypes):
            lines.append(f"  {p}: expected {spec(want[p])}, got {spec(have[p])}")
    if lines:
        raise ValueError(f"{where} differ:\n" + "\n".join(lines))


def _differ(a: Any, b: Any, dtypes: bool) -> bool:
    if jnp.shape(a) != jnp.shape(b):
        return True
    return dtypes and jnp.result_type(a) != jnp.result_type(b)


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """What to do about a name that is not one of `names`: the closest one, or something else.

    >>> did_you_mean('rte', ['lr', 'rate'], 'add it')
    "did you mean 'rate'?"
    >>> did_you_mean('x', ['lr', 'rate'], 'add it')
    'add it'
    """
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def expect_positive(where: str, **numbers: int) -> None:
    """Raise for a number that is not a whole one above 0.

    >>> expect_positive('fit', steps=0)
    Traceback (most recent call last):
        ...
    ValueError: fit: expected steps to be a whole number above 0, got 0
    """
    for name, value in numbers.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{where}: expected {name} to be a whole number above 0, got {value!r}"
            )


def expect_divided(where: str, batch: PyTree, parts: int) -> int:
    """The number of examples in the batch, of which each part gets the same number.

    Raises: ValueError, which begins with `where`, for a batch that the parts do not divide.

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
