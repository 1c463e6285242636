"""Mixing of pairs of examples and their targets: functions of whole batches."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import dtypes
from fnn.data.augment._base import BatchAugment, interval_mask, round_like
from fnn.expect import is_zero, within
from fnn.types import Pair, PRNGKey, Scalar


@within(alpha="[0, inf)")
def mixup(alpha: Scalar, *, classes: int | None = None) -> BatchAugment:
    """Replaces each example and its target by a convex combination with another of the batch.

        x_i <- w x_i + (1 - w) x_j      y_i <- w y_i + (1 - w) y_j,   w ~ Beta(alpha, alpha)

    Args:
      alpha: the larger, the more even the mixture; a plain 0 leaves the batch unchanged. May be
        traced. w and the permutation of the partners are drawn once for a batch.
      classes: number of classes, for integer labels; None for targets that are values or
        probabilities.

    Returns: float targets, for a loss that takes probabilities.
    Raises: ValueError for integer targets without `classes`.
    Source: Zhang et al. 2018, arXiv:1710.09412.

    >>> x, y = mixup(0.2, classes=2)(jax.random.key(0), (jnp.eye(2), jnp.array([0, 1])))
    >>> bool(jnp.allclose(x, y, atol=1e-6))
    True
    """

    def augment(key: PRNGKey, batch: Pair) -> Pair:
        x, y = batch
        targets = _as_probabilities("mixup", y, classes)
        if is_zero(alpha):
            return x, targets
        weight_key, order_key = jax.random.split(key)
        weight = _weight(weight_key, alpha)
        partners = jax.random.permutation(order_key, targets.shape[0])
        return jax.tree.map(lambda a: _mix(a, partners, weight), (x, targets))

    return augment


@within(alpha="[0, inf)")
def cutmix(alpha: Scalar, *, classes: int | None = None) -> BatchAugment:
    """Pastes a rectangle of another image into each image, and mixes the targets by area.

    Args:
      alpha: as in `mixup`; the rectangle covers a fraction 1 - w of the image, w ~ Beta(alpha,
        alpha), cut at the border. A plain 0 leaves the batch unchanged.
      classes: as in `mixup`.

    Returns: float targets, mixed by the area that is pasted.
    Raises: ValueError for integer targets without `classes`, and for x other than images (batch,
      height, width, channels).
    Source: Yun et al. 2019, arXiv:1905.04899.

    >>> x, y = cutmix(1.0, classes=2)(
    ...     jax.random.key(0), (jnp.ones((2, 4, 4, 1)), jnp.array([0, 1])))
    >>> y.sum(axis=1).tolist()
    [1.0, 1.0]
    """

    def augment(key: PRNGKey, batch: Pair) -> Pair:
        x, y = batch
        if not hasattr(x, "ndim") or x.ndim != 4:
            raise ValueError(
                "cutmix: expected images (batch, height, width, channels), got "
                f"{getattr(x, 'shape', type(x).__name__)}; mixup takes any x"
            )
        targets = _as_probabilities("cutmix", y, classes)
        if is_zero(alpha):
            return x, targets
        weight_key, order_key, center_key = jax.random.split(key, 3)
        partners = jax.random.permutation(order_key, targets.shape[0])
        side = jnp.sqrt(1 - _weight(weight_key, alpha))
        inside = []
        for n, k in zip(x.shape[1:3], jax.random.split(center_key), strict=True):
            center = jax.random.randint(k, (), 0, n).astype(jnp.float32)
            half = jnp.floor(side * n / 2)
            inside.append(interval_mask(n, center - half, 2 * half))
        hole = inside[0][:, None] & inside[1][None, :]
        mixed = jnp.where(hole[None, :, :, None], x[partners], x)
        return mixed, _mix(targets, partners, 1 - hole.mean(dtype=jnp.float32))

    return augment


def _weight(key: PRNGKey, alpha: Scalar) -> Float[Array, ""]:
    a = jnp.asarray(alpha, jnp.float32)
    return jax.random.beta(key, a, a)


def _mix(a: Array, partners: Array, weight: Float[Array, ""]) -> Array:
    wide = dtypes.wide(a)
    return round_like(wide + (1 - weight).astype(wide.dtype) * (wide[partners] - wide), a)


def _as_probabilities(where: str, y: Any, classes: int | None) -> Array:
    if classes is not None:
        return jax.nn.one_hot(dtypes.indices(y), classes, dtype=jnp.float32)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(
            f"{where}: expected targets that can be mixed, got {y.dtype.name}; "
            "pass classes= to turn labels into probabilities"
        )
    return y
