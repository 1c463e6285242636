"""Penalties on the size of parameters, for `Recipe.penalty`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32, widest
from fnn.losses._elements import magnitude
from fnn.tree import matching
from fnn.types import Params


def l1_penalty(params: Params, *patterns: str) -> Float[Array, ""]:
    """sum |w|, with derivative 0 at 0.

    Gradient descent on it oscillates around 0; for exact zeros see `optim.proximal_l1`.

    Args:
      patterns: paths of the leaves, as in `tree.matching`; all leaves by default.

    Returns: a scalar, in at least float32.
    Raises: ValueError for a pattern that matches no leaf.

    >>> params = {'bias': jnp.array([5.0]), 'kernel': jnp.array([[1.0, -2.0]])}
    >>> l1_penalty(params, '*kernel').item()
    3.0
    """
    return _sum(params, patterns, magnitude)


def l2_penalty(params: Params, *patterns: str) -> Float[Array, ""]:
    """sum w^2 / 2, whose gradient is w.

    Equal to weight decay under `sgd`, but not under optimizers that rescale gradients, such as
    `adam`; see `adamw`. Keras' L2 omits the factor 1/2.

    Args:
      patterns: paths of the leaves, as in `tree.matching`; all leaves by default.

    Returns: a scalar, in at least float32.
    Raises: ValueError for a pattern that matches no leaf.
    Source: Krogh & Hertz 1991, A simple weight decay can improve generalization.

    >>> params = {'bias': jnp.array([5.0]), 'kernel': jnp.array([[1.0, -2.0]])}
    >>> l2_penalty(params, '*kernel').item()
    2.5
    """
    return _sum(params, patterns, lambda w: 0.5 * jnp.square(w))


def _sum(
    params: Params, patterns: tuple[str, ...], size: Callable[[Array], Array]
) -> Float[Array, ""]:
    mask = matching(*patterns)(params) if patterns else jax.tree.map(lambda leaf: True, params)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
    sums = [size(leaf.astype(at_least_float32(leaf))).sum() for leaf, chosen in pairs if chosen]
    dtype = widest(sums)
    return sum((s.astype(dtype) for s in sums), start=jnp.zeros((), dtype))
