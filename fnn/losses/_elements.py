"""Helpers of the losses: masks, weights, and the mean over an example's features.

Masked elements are set to 0 both before a loss, so that no NaN reaches a gradient, and after it.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32, indices
from fnn.expect import expect_real
from fnn.types import Scalar, Weighted
from fnn.xla import Dim

Mask = Array | None  # of bools: True counts; None counts all


def expect_same_shape(name: str, predictions: Array, targets: Array) -> None:
    """Raises ValueError for different shapes, which would broadcast across examples."""
    if predictions.shape != targets.shape:
        raise ValueError(
            f"{name}: expected targets of the shape of the predictions, {predictions.shape}, "
            f"got {targets.shape}; reshape one of them (broadcasting would mix the examples)"
        )


def expect_mask(name: str, where: Mask, shape: tuple[Dim, ...]) -> None:
    """Raises ValueError for a mask of another dtype than bool, or of another shape."""
    if where is not None and where.dtype != bool:
        raise ValueError(
            f"{name}: expected where of bools, True for what counts, got {where.dtype}; "
            "compare it, such as with mask > 0 (weights go into a Weighted)"
        )
    if where is not None and where.shape != shape:
        raise ValueError(
            f"{name}: expected where of shape {shape}, got {where.shape}; "
            "give one bool for each element (jnp.broadcast_to repeats a smaller mask)"
        )


def aligned(name: str, predictions: Array, targets: Array, where: Mask) -> tuple[Array, Array]:
    """Both in at least float32, checked to have the same shape, with 0 at masked elements."""
    expect_real(name, {"predictions": predictions, "targets": targets})
    expect_same_shape(name, predictions, targets)
    expect_mask(name, where, predictions.shape)
    dtype = at_least_float32(predictions)
    return shown(predictions.astype(dtype), where), shown(targets.astype(dtype), where)


def expect_classes(name: str, classes: int) -> None:
    """Raises ValueError for a single class, whose softmax is constant."""
    if classes < 2:
        raise ValueError(
            f"{name}: expected at least 2 classes in the last axis, got {classes}; for one logit "
            "use a binary loss, for numbers one of regression"
        )


def shown(values: Array, where: Mask) -> Array:
    """`values` with 0 at masked elements."""
    return values if where is None else jnp.where(where, values, 0)


def masked(loss: Array, where: Mask) -> Array | Weighted:
    """The loss weighted by the mask; unchanged without one."""
    return loss if where is None else Weighted(shown(loss, where), where.astype(loss.dtype))


def magnitude(x: Array) -> Array:
    """|x| with derivative 0 at 0; that of jnp.abs is 1."""
    return x * jnp.sign(x)


def mean_of_example(values: Float[Array, "batch *features"], where: Mask) -> Array | Weighted:
    """Mean over all axes but the first; with a mask, over what counts, weighted by its size.

    The mean over a batch is then the mean over all elements that count.
    """
    flat = shown(values, where).reshape(values.shape[0], math.prod(values.shape[1:]))
    if where is None:
        return flat.sum(axis=1) / max(flat.shape[1], 1)
    count = where.reshape(flat.shape).sum(axis=1).astype(flat.dtype)
    return Weighted(flat.sum(axis=1) / jnp.maximum(count, 1), count)


def weighted(q: Array, cost: Array) -> Array:
    """q cost, with 0 * inf = 0 and exact derivatives by q and cost."""
    return q * jnp.where((q == 0) & jnp.isinf(cost), 0, cost)


def smoothed(loss: Array, smooth: Array, label_smoothing: Scalar) -> Array:
    """(1 - a) loss + a smooth; an infinite loss stays infinite."""
    a = jnp.asarray(label_smoothing, loss.dtype)
    return loss + a * jnp.where(jnp.isfinite(loss), smooth - loss, 0)


def kept_rows(labels: Array, ignore_index: int | None, where: Mask) -> Mask:
    """The mask of rows that count: `where` and not the ignored label."""
    if ignore_index is None:
        return where
    kept = indices(labels) != ignore_index  # int32, since -100 does not exist for unsigned labels
    return kept if where is None else kept & where
