"""The convex quadratic of the laws of optimizers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn.tree import dot
from fnn.types import Objective, Params

MINIMUM = 0.1


def example_params() -> Params:
    """Two matrices of one shape in a list, and a vector, normally distributed."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {"body": [{"kernel": normal(4, 3)}, {"kernel": normal(4, 3)}], "bias": normal(3)}


def gradient(params: Params) -> Params:
    """c (p - 0.1) for each parameter p, with curvatures c from 0.5 to 2 in every leaf."""

    def leaf(p: Any) -> Any:
        curvature = np.linspace(0.5, 2.0, p.size).reshape(p.shape)
        return jnp.asarray(curvature, p.dtype) * (p - jnp.asarray(MINIMUM, p.dtype))

    return jax.tree.map(leaf, params)


def loss(params: Params) -> Float[Array, ""]:
    """The sum of c (p - 0.1)^2 / 2, whose gradient is `gradient`."""
    away = jax.tree.map(lambda p: p - jnp.asarray(MINIMUM, p.dtype), params)
    return dot(away, gradient(params)) / 2


def objective(params: Params, shift: Params) -> Objective:
    """The loss plus the sum of shift * p, whose gradient is `gradient` plus the shift."""

    def at(params: Params) -> tuple[Array, Params]:
        value = loss(params) + dot(params, shift)
        return value, jax.tree.map(jnp.add, gradient(params), shift)

    return Objective(at(params)[0], at)


def noise(params: Params, noisy_steps: int, steps: int) -> Params:
    """Gradient noise of each step: normal in the first steps, to vary signs and moments, then 0."""
    generator = np.random.default_rng(1)

    def leaf(p: Any) -> Any:
        draws = generator.normal(size=(steps, *p.shape))
        draws[noisy_steps:] = 0
        return jnp.asarray(draws, p.dtype)

    return jax.tree.map(leaf, params)
