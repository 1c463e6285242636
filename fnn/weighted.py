"""Losses with weights: what is added and what divides, so that a mean comes out of any parts."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


def per_weight(total: Any, weight: Any) -> Any:
    """A sum over its weight; where there is no weight, the sum, which is then 0.

    >>> per_weight(jnp.array([6.0, 0.0]), jnp.array([3.0, 0.0])).tolist()
    [2.0, 0.0]
    """
    return total / jnp.where(weight == 0, 1, weight)


class Weighted(NamedTuple):
    """Losses, or other values, with a weight for each; masked elements have weight 0.

    A step adds `sum(w v)` and `sum(w)` over all parts of a batch and divides once, so a masked
    element never enters a mean, however the batch is cut. Weights may depend on hyperparameters,
    never on the parameters of the model.

    >>> Weighted(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0])).mean().item()
    2.0
    """

    values: Float[Array, "*shape"]
    weights: Float[Array, "*shape"]

    def sum(self) -> Float[Array, ""]:
        """Sum of w v; a value of weight 0 may be NaN."""
        return (self.weights * jnp.where(self.weights == 0, 0, self.values)).sum()

    def mean(self) -> Float[Array, ""]:
        """Sum of w v over the sum of w; 0 if all weights are 0."""
        return per_weight(self.sum(), self.weights.sum())


class Terms(NamedTuple):
    """Losses of several terms, sum_k c_k mean(v_k): each is a mean over its own weights."""

    losses: dict[str, Weighted]
    coefficients: dict[str, Any]  # numbers, which may be tracers
