"""A scan whose gradient needs memory for the square root of its steps."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

# f, init, xs, length -> carry, ys: `jax.lax.scan`, or another way to the same result.
Scan = Callable[..., tuple[Any, Any]]

_SHORT = 4  # below it there is nothing to gain


def checkpointed_scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` that keeps, for its gradient, the carry of every sqrt(n)-th step only.

    The steps between two of them are made once more when the gradient comes to them, and only their
    memory is held then: about 2 sqrt(n) carries in place of all that n steps compute. A scan inside
    of another adds one more forward pass each, so three levels cost the gradient about a half more
    time. Without a gradient it is the plain scan in two loops.

    Args:
      f, init, xs, length: as for `jax.lax.scan`; any length, also a prime one.

    Returns: the last carry, and the outputs of all steps along their first axis.
    Source: Griewank 1992; Chen et al. 2016, arXiv:1604.06174, section 4.

    >>> decay = lambda rate: checkpointed_scan(lambda x, _: (rate * x, x), 1.0, length=5)
    >>> decay(0.5)[0].item(), decay(0.5)[1].tolist()
    (0.03125, [1.0, 0.5, 0.25, 0.125, 0.0625])
    >>> jax.grad(lambda rate: decay(rate)[0])(0.5).item()   # 5 rate^4
    0.3125
    """
    n = jax.tree.leaves(xs)[0].shape[0] if length is None else length
    if n < _SHORT:
        return jax.lax.scan(f, init, xs, length=n)
    inner = _segment_length(n)
    outer, rest = divmod(n, inner)

    def segment(carry: PyTree, xs: PyTree, length: int) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(f, carry, xs, length=length)

    head = jax.tree.map(lambda a: a[: n - rest].reshape(outer, inner, *a.shape[1:]), xs)
    # Inside a loop, XLA cannot merge what is computed twice: no barrier is needed against it.
    kept = jax.checkpoint(partial(segment, length=inner), prevent_cse=False)
    carry, ys = jax.lax.scan(kept, init, head, length=outer)
    ys = jax.tree.map(lambda a: a.reshape(n - rest, *a.shape[2:]), ys)
    if rest:
        tail = jax.tree.map(lambda a: a[n - rest :], xs)
        carry, last = jax.checkpoint(partial(segment, length=rest))(carry, tail)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)
    return carry, ys


def _segment_length(n: int) -> int:
    """A divisor of n near its root, if there is one; else the root, which leaves a rest."""
    root = math.isqrt(n)
    return min(range(root // 2 + 1, 2 * root), key=lambda i: (n % i > 0, abs(i - root)))
