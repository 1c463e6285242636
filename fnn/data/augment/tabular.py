"""Augmentations of tabular rows: one example is a float array (features,)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes
from fnn.autodiff import safe_norm
from fnn.data._arrays import expect_numbers
from fnn.data.augment._base import Augment, round_like
from fnn.expect import within
from fnn.types import PRNGKey, Scalar


@within(std="[0, inf)")
def feature_noise(std: Scalar) -> Augment:
    """Adds normal noise to every feature of an x of any shape.

    Args:
      std: of the noise, in the unit of standardized features; may be traced.

    Source: Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".

    >>> feature_noise(0.0)(jax.random.key(0), jnp.ones(2)).tolist()
    [1.0, 1.0]
    """

    def augment(key: PRNGKey, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        wide = dtypes.wide(x)
        noise = jax.random.normal(key, x.shape, wide.dtype)
        return round_like(wide + jnp.asarray(std, wide.dtype) * noise, x)

    return augment


def smote(
    key: PRNGKey, x: Float[Array, "rows features"], count: int, *, neighbors: int = 5
) -> Float[Array, "count features"]:
    """Synthetic rows of a rare class: interpolations of a row and one of its nearest neighbors.

    Args:
      key: typed key; it is consumed.
      x: the rows of that class alone, at least two, standardized.
      count: number of synthetic rows.
      neighbors: number of nearest neighbors to choose from, at most rows - 1.

    Returns: rows of the dtype of x, for the training part alone.
    Raises: ValueError for fewer than two rows, or no neighbors.
    Source: Chawla et al. 2002, "SMOTE: Synthetic minority over-sampling technique".

    >>> new = smote(jax.random.key(0), jnp.array([[0.0], [1.0]]), 4)
    >>> new.shape, bool(((new >= 0) & (new <= 1)).all())
    ((4, 1), True)
    """
    expect_numbers("smote", x)
    if len(x) < 2 or neighbors < 1:
        raise ValueError(
            f"smote: expected at least 2 rows and 1 neighbor, got {len(x)} rows and "
            f"{neighbors} neighbors; use class weights for a class of one row"
        )
    k = min(neighbors, len(x) - 1)
    row_key, partner_key, weight_key = jax.random.split(key, 3)
    rows = jax.random.randint(row_key, (count,), 0, len(x))
    wide = dtypes.wide(x)
    distances = safe_norm(wide[rows][:, None, :] - wide[None, :, :], axis=2)[:, :, 0]
    distances = jnp.where(rows[:, None] == jnp.arange(len(x))[None, :], jnp.inf, distances)
    nearest = jax.lax.top_k(-distances, k)[1]
    chosen = jax.random.randint(partner_key, (count, 1), 0, k)
    partners = jnp.take_along_axis(nearest, chosen, axis=1)[:, 0]
    weight = jax.random.uniform(weight_key, (count, 1), wide.dtype)
    return (wide[rows] + weight * (wide[partners] - wide[rows])).astype(x.dtype)
