"""Weighted losses: sums and weights are added over parts of a batch and divided once."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


def per_weight(total: Any, weight: Any) -> Any:
    """total / weight, and total (which is then 0) where the weight is 0.

    >>> per_weight(jnp.array([6.0, 0.0]), jnp.array([3.0, 0.0])).tolist()
    [2.0, 0.0]
    """
    return total / jnp.where(weight == 0, 1, weight)


class Weighted(NamedTuple):
    """Values v with weights w, such as losses with a mask; masked elements have weight 0.

    A step adds `sum(w v)` and `sum(w)` over all parts of a batch and divides once, so the mean does
    not depend on how the batch is split. Weights may depend on hyperparameters and targets, never
    on the parameters.

    >>> Weighted(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0])).mean().item()
    2.0
    """

    values: Float[Array, "*shape"]
    weights: Float[Array, "*shape"]

    def sum(self) -> Float[Array, ""]:
        """sum(w v); values of weight 0 may be NaN."""
        return (self.weights * jnp.where(self.weights == 0, 0, self.values)).sum()

    def mean(self) -> Float[Array, ""]:
        """sum(w v) / sum(w); 0 if all weights are 0."""
        return per_weight(self.sum(), self.weights.sum())


class Terms(NamedTuple):
    """A loss of several terms, sum_k c_k mean(v_k), each a mean over its own weights."""

    losses: dict[str, Weighted]
    coefficients: dict[str, Any]  # c_k: scalars, which may be traced
