"""Dropout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.types import PRNGKey, Scalar


def dropout(key: PRNGKey, x: Float[Array, "*n"], rate: Scalar) -> Float[Array, "*n"]:
    """Each element becomes 0 with probability `rate`, and x / (1 - rate) otherwise.

    The scaling (inverted dropout) keeps the mean, so evaluation simply leaves the layer out.

    Args:
      key: consumed.
      rate: drop probability in [0, 1]; may be traced. Its derivative is that of the scaling, with
        the mask held fixed: the exact derivative for the given key wherever it exists.

    Returns: the shape and dtype of x.
    Raises: ValueError for a rate outside [0, 1] that is known while tracing.
    Source: Srivastava et al. 2014, JMLR 15, section 4 (the scaling: section 10, in inverted form).

    >>> y = dropout(jax.random.key(0), jnp.ones(1000), 0.5)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    if isinstance(rate, (int, float)) and not 0 <= rate <= 1:
        raise ValueError(f"dropout: expected rate in [0, 1], got {rate}; it is a drop probability")
    keep = 1 - jnp.asarray(rate, x.dtype)
    kept = jax.random.uniform(key, x.shape) < keep.astype(jnp.float32)
    # At rate 1 nothing is kept; dividing by 1 there keeps 0 / 0 out of the gradient.
    return jnp.where(kept, x / jnp.where(keep > 0, keep, 1), 0)
