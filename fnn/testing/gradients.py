"""The law that derivatives are what they claim to be."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn.dtypes import is_float
from fnn.testing._compare import fresh
from fnn.tree import path_of

# In float64 a central difference at this step is right to about 1e-10 (the step squared, and
# 2^-53 over the step), so RTOL has room for steep functions and none for a wrong formula.
STEP = 1e-5
RTOL = 1e-6


def gradients_match_finite_differences(
    function: Callable[..., Any], *args: Any, rtol: float = RTOL
) -> None:
    """Reverse-mode derivatives agree with central differences, in float64.

        <grad f, d> = (f(x + h d) - f(x - h d)) / 2h

    for each leaf of the arguments, along a random direction d of the leaf's size; f is the sum of
    the outputs with random weights.

    Args:
      function: differentiable at `args`; whatever it holds besides must be plain Python numbers,
        or the cast to float64 does not reach it.
      args: pytrees; their floating-point leaves are cast to float64, all others stay.
      rtol: largest difference, as a share of the gradient's length times the direction's.

    >>> gradients_match_finite_differences(lambda x: jnp.sin(x) * x, jnp.arange(3.0))
    """
    with jax.enable_x64(True):
        leaves = jax.tree.leaves_with_path(args)
        structure = jax.tree.structure(args)
        paths = [path_of(keys) for keys, _ in leaves]
        values = [np.asarray(x, np.float64) if is_float(x) else x for _, x in leaves]
        moving = [i for i, (_, leaf) in enumerate(leaves) if is_float(leaf)]

        def weighted(floats: list[Any], values: list[Any]) -> Any:
            for i, leaf in zip(moving, floats, strict=True):
                values = [*values[:i], leaf, *values[i + 1 :]]
            return _weighted_sum(function(*jax.tree.unflatten(structure, values)))

        slope = jax.jit(jax.value_and_grad(weighted))
        points = [values[i] for i in moving]
        value, gradients = slope(points, fresh(values))
        for place, i in enumerate(moving):
            point, d = points[place], _direction(points[place], seed=i)

            def along(h: float, place: int = place, point: Any = point, d: Any = d) -> float:
                moved = [*points[:place], point + h * d, *points[place + 1 :]]
                return float(slope(moved, fresh(values))[0])

            numeric = (along(STEP) - along(-STEP)) / (2 * STEP)
            _expect_slope(paths[i], np.asarray(gradients[place]), d, numeric, float(value), rtol)


def _weighted_sum(outputs: PyTree) -> Any:
    total = jnp.float64(0)
    for i, leaf in enumerate(jax.tree.leaves(outputs)):
        if not is_float(leaf):
            continue
        if leaf.dtype != jnp.float64:
            raise AssertionError(
                f"gradients_match_finite_differences: output {i} is {leaf.dtype} for float64 "
                "arguments; derive every dtype from the input, and fix none at float32"
            )
        weights = np.random.default_rng(i).uniform(0.5, 1.5, size=leaf.shape)
        total += jnp.vdot(weights, leaf)
    return total


def _direction(point: Any, seed: int) -> np.ndarray:
    size = float(np.abs(point).max(initial=0.0)) or 1.0
    return np.asarray(size * np.random.default_rng(seed).normal(size=np.shape(point)))


def _expect_slope(
    path: str, gradient: np.ndarray, d: np.ndarray, numeric: float, value: float, rtol: float
) -> None:
    analytic = float(np.vdot(gradient, d))
    typical = float(np.linalg.norm(gradient) * np.linalg.norm(d)) / max(np.sqrt(d.size), 1.0)
    rounding = 1e-9 * max(abs(value), 1.0)  # a hundred times 2^-53 over the step
    allowed = rtol * max(abs(numeric), typical) + rounding
    if not abs(analytic - numeric) <= allowed:
        raise AssertionError(
            f"gradients_match_finite_differences: argument '{path}': the derivative along a random "
            f"direction is {analytic}, the central difference is {numeric}; they must be at most "
            f"{allowed:.1e} apart; look for a custom derivative, stop_gradient, a kink near the "
            "point, or a value from outside that is not float64"
        )
