"""Segmentation losses: Dice overlap of predicted and true regions."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num

from fnn.dtypes import at_least_float32, indices
from fnn.expect import within
from fnn.losses._elements import (
    Mask,
    aligned,
    expect_classes,
    expect_mask,
    expect_same_shape,
    masked,
    shown,
)
from fnn.losses._logits import costs
from fnn.types import Scalar, Weighted

PerExample = Float[Array, " batch"] | Weighted


@within(smooth="[0, inf)")
def binary_dice(
    logits: Float[Array, "batch *pixels"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    smooth: Scalar = 1.0,
    where: Mask = None,
) -> PerExample:
    """Dice loss of a predicted region: one minus its overlap with the target.

        l = 1 - (2 sum_i p_i y_i + s) / (sum_i p_i + sum_i y_i + s),    p = sigmoid(z)

    Args:
      logits: z, (batch, *pixels); the sums are over an example's pixels.
      targets: y in [0, 1], of the same shape; bools and integers are cast.
      smooth: s, at least 0; may be traced. 1 as in Optax and the reference code of V-Net; Keras
        uses 1e-7.
      where: mask of the same shape; True counts.

    Returns: float of shape (batch,), in [0, 1]; 0 if both regions are empty. With `where`, a
      Weighted: examples that are masked entirely have weight 0.
    Raises: ValueError if the shapes differ.
    Source: Milletari, Navab & Ahmadi 2016, arXiv:1606.04797, section 3. Deviates: plain sums in the
      denominator, not sums of squares, as Sudre et al. 2017, arXiv:1707.03237.

    >>> f"{binary_dice(jnp.array([[99.0, -99.0]]), jnp.array([[1, 1]]), smooth=0.0)[0]:.4f}"
    '0.3333'
    """
    z, y = aligned("binary_dice", logits, targets, where)
    flat = (z.shape[0], math.prod(z.shape[1:]))
    p = shown(lax.logistic(z), where).reshape(flat)
    loss = _dice(p, y.reshape(flat), jnp.asarray(smooth, z.dtype), axis=1)
    return masked(loss, _any_pixel(where))


@within(smooth="[0, inf)")
def dice(
    logits: Float[Array, "batch *pixels classes"],
    targets: Num[Array, "..."],
    *,
    smooth: Scalar = 1.0,
    where: Mask = None,
) -> PerExample:
    """Dice loss of a softmax over the last axis: mean over the classes of one minus the overlap.

    Args:
      logits: (batch, *pixels, classes).
      targets: integer labels in [0, classes) of shape (batch, *pixels), or probabilities of the
        shape of the logits.
      smooth: as in `binary_dice`; makes the loss of a class that is absent from both 0.
      where: mask of the pixels, (batch, *pixels); True counts.

    Returns: float of shape (batch,), in [0, 1], or a Weighted, as in `binary_dice`; NaN for a label
      out of range.
    Raises: ValueError for inconsistent shapes.
    Source: as in `binary_dice`.

    >>> f"{dice(jnp.array([[[99.0, 0.0], [99.0, 0.0]]]), jnp.array([[0, 0]]))[0]:.4f}"
    '0.0000'
    """
    expect_classes("dice", logits.shape[-1])
    expect_mask("dice", where, logits.shape[:-1])
    pixels = None if where is None else where[..., None]
    z = shown(logits.astype(at_least_float32(logits)), pixels)
    p = shown(jnp.exp(-costs(z)), pixels)
    y = shown(_probabilities(targets, z), pixels)
    flat = (z.shape[0], math.prod(z.shape[1:-1]), z.shape[-1])
    smooth = jnp.asarray(smooth, z.dtype)
    loss = _dice(p.reshape(flat), y.reshape(flat), smooth, axis=1).mean(axis=-1)
    return masked(loss, _any_pixel(where))


def _any_pixel(where: Mask) -> Mask:
    """The mask of the examples with an unmasked pixel."""
    return None if where is None else where.any(axis=tuple(range(1, where.ndim)))


def _dice(p: Array, y: Array, smooth: Array, axis: int) -> Array:
    overlap = 2 * (p * y).sum(axis=axis) + smooth
    size = p.sum(axis=axis) + y.sum(axis=axis) + smooth
    empty = size == 0
    return jnp.where(empty, 0, 1 - overlap / jnp.where(empty, 1, size))


def _probabilities(targets: Array, z: Array) -> Array:
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        expect_same_shape("dice", z, targets)
        return targets.astype(z.dtype)
    if targets.shape != z.shape[:-1]:
        raise ValueError(
            f"dice: expected integer targets of shape {z.shape[:-1]} for logits {z.shape}, got "
            f"{targets.shape}; give one label for each pixel"
        )
    labels = indices(targets)[..., None]
    classes = jnp.arange(z.shape[-1], dtype=jnp.int32)
    classes = jnp.expand_dims(classes, tuple(range(z.ndim - 1)))
    known = (labels >= 0) & (labels < z.shape[-1])
    return jnp.where(known, (labels == classes).astype(z.dtype), jnp.nan)
