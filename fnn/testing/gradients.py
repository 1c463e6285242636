"""The law that reverse-mode derivatives agree with finite differences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn.dtypes import is_float
from fnn.testing._compare import fresh
from fnn.testing.battery import LawError
from fnn.tree import path_of

# In float64 a central difference at this step has an error of about 1e-10 (the step squared, and
# 2^-53 over the step), so RTOL admits steep functions but no wrong formula.
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
      function: differentiable at `args`; values it closes over must be Python numbers, because the
        cast to float64 does not reach arrays.
      args: pytrees; their floating-point leaves are cast to float64.
      rtol: tolerance relative to the norm of the gradient times that of the direction.

    >>> gradients_match_finite_differences(lambda x: jnp.sin(x) * x, jnp.arange(3.0))
    """
    with jax.enable_x64(True):
        leaves = jax.tree.leaves_with_path(args)
        structure = jax.tree.structure(args)
        paths = [path_of(keys) for keys, _ in leaves]
        values = [np.asarray(x, np.float64) if is_float(x) else x for _, x in leaves]
        moving = [i for i, (_, leaf) in enumerate(leaves) if is_float(leaf)]

        def weighted(floats: list[Any], values: list[Any]) -> Any:
            values = list(values)
            for i, leaf in zip(moving, floats, strict=True):
                values[i] = leaf
            return _weighted_sum(function(*jax.tree.unflatten(structure, values)))

        slope = jax.jit(jax.value_and_grad(weighted))
        points = [values[i] for i in moving]
        value, gradients = slope(points, fresh(values))
        for j, (i, point) in enumerate(zip(moving, points, strict=True)):
            d = _direction(point, seed=i)
            ahead, behind = (
                float(slope([*points[:j], point + h * d, *points[j + 1 :]], fresh(values))[0])
                for h in (STEP, -STEP)
            )
            numeric = (ahead - behind) / (2 * STEP)
            _expect_slope(paths[i], np.asarray(gradients[j]), d, numeric, float(value), rtol)


def _weighted_sum(outputs: PyTree) -> Any:
    total = jnp.float64(0)
    for i, leaf in enumerate(jax.tree.leaves(outputs)):
        if not is_float(leaf):
            continue
        if leaf.dtype != jnp.float64:
            raise LawError(
                f"gradients_match_finite_differences: output {i} is {leaf.dtype} for float64 "
                "arguments; derive every dtype from the input, none fixed at float32"
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
        raise LawError(
            f"gradients_match_finite_differences: argument '{path}': the derivative along a random "
            f"direction is {analytic}, the central difference is {numeric}; they must be at most "
            f"{allowed:.1e} apart; look for a custom derivative, stop_gradient, a kink near the "
            "point, or a constant that is not float64"
        )
