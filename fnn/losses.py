"""Losses `loss(predictions, targets)`: one value per example; the reduction is the caller's.

All take logits where there is a probability, and none is NaN for a logit of -inf.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from fnn.types import Scalar


def _expect_same_shape(where: str, predictions: Array, targets: Array) -> None:
    if predictions.shape != targets.shape:
        raise ValueError(
            f"{where}: expected targets of the shape of the predictions, {predictions.shape}, "
            f"got {targets.shape}; reshape one of them (broadcasting would mix the examples)"
        )


def cross_entropy(
    logits: Float[Array, "*batch classes"],
    targets: Num[Array, "..."],
    *,
    label_smoothing: Scalar = 0.0,
) -> Float[Array, "*batch"]:
    """Cross-entropy of a softmax over the last axis.

        l = -sum_c q_c log softmax(z)_c,    q = (1 - a) onehot(y) + a / C

    Args:
      logits: z, unnormalised log-probabilities. A class at -inf is impossible: it is left out of
        the smoothing, and costs infinity only where it is the target.
      targets: integer labels in [0, C) of shape (*batch,), or probabilities (*batch, C).
      label_smoothing: a, in [0, 1]; may be traced.

    Returns: float of shape (*batch,), at least 0, in nats; statistics in at least float32.
    Raises: ValueError if the shapes do not fit. A label out of range gives NaN under jit; `fit`
      checks the labels before training.
    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (smoothing).

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4).tolist()   # log 4
    [1.386299967765808]
    """
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_total = jax.nn.logsumexp(wide, axis=-1)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        if targets.shape != logits.shape[:-1]:
            raise ValueError(
                f"cross_entropy: expected integer targets of shape {logits.shape[:-1]} for logits "
                f"{logits.shape}, got {targets.shape}; give one label for each row of logits"
            )
        at_label = jnp.take_along_axis(wide, targets[..., None], axis=-1, mode="fill")
        hit = log_total - at_label[..., 0]
    else:
        _expect_same_shape("cross_entropy", logits, targets)
        hit = _weighted(targets.astype(wide.dtype), log_total[..., None] - wide)
    if isinstance(label_smoothing, (int, float)) and label_smoothing == 0:
        return hit
    possible = ~jnp.isneginf(wide)
    share = possible / jnp.maximum(possible.sum(axis=-1, keepdims=True), 1).astype(wide.dtype)
    smooth = _weighted(share, log_total[..., None] - wide)
    a = jnp.asarray(label_smoothing, wide.dtype)
    return hit + a * jnp.where(jnp.isfinite(hit), smooth - hit, 0)


def _weighted(q: Array, cost: Array) -> Array:
    """sum_c q_c cost_c, in which a class of weight 0 costs nothing even where its cost is inf."""
    return jnp.where(q == 0, 0, q * jnp.where(q == 0, 0, cost)).sum(axis=-1)


def binary_cross_entropy(
    logits: Float[Array, "*batch"], targets: Num[Array, "..."]
) -> Float[Array, "*batch"]:
    """Cross-entropy of a sigmoid, one yes-or-no question per element.

        l = y log(1 + exp(-z)) + (1 - y) log(1 + exp(z))

    Args:
      logits: z, the log-odds of a yes.
      targets: y in [0, 1], of the same shape; bool and integer are taken as 0 and 1.

    Returns: float of the shape of the logits, at least 0, in nats; finite for finite logits.
    Raises: ValueError if the shapes differ.

    >>> binary_cross_entropy(jnp.array([0.0]), jnp.array([1.0])).round(4).tolist()   # log 2
    [0.6930999755859375]
    """
    _expect_same_shape("binary_cross_entropy", logits, targets)
    z = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    y = targets.astype(z.dtype)
    both = jnp.stack([jax.nn.softplus(-z), jax.nn.softplus(z)], axis=-1)
    return _weighted(jnp.stack([y, 1 - y], axis=-1), both)


def mean_squared_error(
    predictions: Float[Array, "batch *features"], targets: Num[Array, "..."]
) -> Float[Array, " batch"]:
    """Mean over the features of (prediction - target)^2, for each example.

    Args:
      predictions, targets: the same shape; the first axis is the batch.

    Returns: float of shape (batch,).
    Raises: ValueError if the shapes differ: (n, 1) against (n,) would broadcast to (n, n).

    >>> mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])).tolist()
    [2.0]
    """
    _expect_same_shape("mean_squared_error", predictions, targets)
    wide = predictions.astype(jnp.promote_types(predictions.dtype, jnp.float32))
    square = jnp.square(wide - targets.astype(wide.dtype))
    return square.reshape(square.shape[0], -1).mean(axis=1)
