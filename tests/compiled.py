"""Functions as one program that returns NumPy arrays: what follows compiles nothing more."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.against_torch import expect_close, ordinary

# Two ways to the same float32 sums of up to a hundred terms: some ten roundings of 6e-8, as a
# share of the largest entry.
SAME = 5e-6


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jit(function)` with NumPy arrays in place of JAX arrays."""
    program = jax.jit(function, **options)
    return lambda *args, **kwargs: jax.tree.map(np.asarray, program(*args, **kwargs))


def with_gradients(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """The output, and by each argument the gradient of its product with random numbers."""

    def weighted(args: Any) -> tuple[Any, Any]:
        y = function(*args)
        return (y * jnp.asarray(ordinary(*y.shape, seed=9), y.dtype)).sum(), y

    gradients, y = compiled(jax.grad(weighted, has_aux=True))(args)
    return y, gradients


def expect_same(got: Any, expected: Any, rtol: float = SAME) -> None:
    """Each leaf of two trees within `rtol` of its largest entry."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        expect_close("got", np.asarray(a, np.float64), np.asarray(b, np.float64), rtol)
