"""Functions as one program that returns NumPy arrays, and the comparison of what they return."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.registry.rows import normal

# Two ways to the same float32 sums of up to a hundred terms: some ten roundings of 6e-8, as a
# share of the largest entry.
SAME = 5e-6


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jit(function)` with NumPy arrays for results: what follows compiles nothing more."""
    program = jax.jit(function, **options)
    return lambda *args, **kwargs: jax.tree.map(np.asarray, program(*args, **kwargs))


def with_gradients(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """The output, and by each argument the gradient of its product with random numbers."""

    def weighted(args: Any) -> tuple[Any, Any]:
        y = function(*args)
        return (y * jnp.asarray(normal(*y.shape, seed=9), y.dtype)).sum(), y

    gradients, y = compiled(jax.grad(weighted, has_aux=True))(args)
    return y, gradients


def expect_same(got: Any, expected: Any, rtol: float = SAME) -> None:
    """Each leaf of two trees within `rtol` of its largest entry."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(numbers, np.float64) for numbers in (leaf, other))
        assert a.shape == b.shape, f"{a.shape} for {b.shape}"
        apart, allowed = np.abs(a - b).max(), rtol * np.abs(b).max()
        assert apart <= allowed, f"{apart:.2e} apart, {allowed:.2e} allowed\n{a}\n{b}"
