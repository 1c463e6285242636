"""Functions as one program that returns NumPy arrays, and their comparison with those of torch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tests.registry.rows import normal

# Two ways to the same float32 sums of up to a hundred terms: some ten roundings of 6e-8, as a
# share of the largest entry.
SAME = 5e-6
# Against another library in float64: float32 keeps seven digits, of which sums and cancellation
# take up to two; float64 keeps sixteen.
RTOL = {np.float32: 1e-5, np.float64: 1e-10}


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


def expect_like_torch(
    function: Callable[..., Any], reference: Callable[..., Any], *inputs: np.ndarray
) -> None:
    """`function` on JAX arrays and `reference` on torch tensors: the same output and gradients.

    In float32 and in float64, against the reference in float64; the gradients are by all inputs
    that hold floating-point numbers, which come before those that do not.
    """
    tensors = [torch.tensor(_cast(array, np.float64)) for array in inputs]
    moving = [tensor.requires_grad_() for tensor in tensors if tensor.is_floating_point()]
    y = reference(*tensors)
    y.backward(torch.tensor(normal(*y.shape, seed=9), dtype=y.dtype))
    expected = y.detach().numpy(), tuple(tensor.grad.numpy() for tensor in moving)
    for dtype, rtol in RTOL.items():
        with jax.enable_x64(dtype == np.float64):
            args = [jnp.asarray(_cast(array, dtype)) for array in inputs]
            floats, rest = args[: len(moving)], args[len(moving) :]
            got = with_gradients(lambda *f, rest=rest: function(*f, *rest), *floats)
        assert got[0].dtype == dtype
        expect_same(got, expected, rtol)


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array
