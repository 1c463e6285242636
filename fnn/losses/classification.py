"""Classification losses from logits: cross-entropies, focal losses, hinge losses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from fnn.dtypes import at_least_float32, indices
from fnn.expect import expect_real, is_zero, spec, within
from fnn.losses._elements import (
    Mask,
    aligned,
    expect_classes,
    expect_mask,
    expect_same_shape,
    kept_rows,
    masked,
    shown,
    smoothed,
    weighted,
)
from fnn.losses._logits import cost_at, costs, log_total, logit_at
from fnn.losses.fused import fused_cross_entropy
from fnn.losses.lazy import LazyLogits, as_logits, is_large
from fnn.types import Scalar, Weighted
from fnn.weighted import per_weight


@within(label_smoothing="[0, 1]", z_loss="[0, inf)")
def cross_entropy(
    logits: Float[Array, "*batch classes"] | LazyLogits,
    targets: Num[Array, "..."],
    *,
    label_smoothing: Scalar = 0.0,
    class_weights: Float[Array, "..."] | None = None,
    z_loss: Scalar = 0.0,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """Cross-entropy of a softmax over the last axis.

        l = -sum_c q_c log softmax(z)_c + b (log sum_c exp z_c)^2,    q = (1 - a) onehot(y) + a / C

    Args:
      logits: z, unnormalized log-probabilities. A class at -inf is excluded from the smoothing, and
        has infinite loss only as the target. Large `LazyLogits`, of a language model in training,
        are computed in chunks by `fused_cross_entropy` where targets are labels and classes have
        no weights.
      targets: integer labels in [0, C) of shape (*batch,), or probabilities (*batch, C).
      label_smoothing: a, in [0, 1]; may be traced.
      class_weights: w, of shape (C,), at least 0: a row of label y has weight w_y in the mean, as
        with PyTorch's reduction="mean". The smoothing term is then sum_c w_c log softmax(z)_c over
        C w_y. Rows of probabilities p have weight sum_c w_c p_c, so that one-hot ones agree with
        labels; PyTorch divides by the number of rows.
      z_loss: b, keeps log sum exp z near 0; 1e-4 in PaLM. May be traced.
      ignore_index: a label whose rows have weight 0, in or outside of [0, C), such as -100.
      where: mask of the rows, (*batch,); True counts.

    Returns: float of shape (*batch,), at least 0, in nats, at least float32; a Weighted with
      `class_weights`, `ignore_index` or `where`. NaN for a label out of range.
    Raises: ValueError for inconsistent shapes, and for ignore_index with probabilities.
    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (smoothing); Chowdhery et al. 2022,
      arXiv:2204.02311, section 5 (z-loss).

    >>> f"{cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))[0]:.4f}"   # log 4
    '1.3863'
    >>> tokens = cross_entropy(jnp.zeros((2, 4)), jnp.array([2, -100]), ignore_index=-100)
    >>> tokens.weights.tolist(), f"{tokens.mean():.4f}"
    ([1.0, 0.0], '1.3863')
    """
    labels_only = class_weights is None and _is_labels(targets)
    if isinstance(logits, LazyLogits) and is_large(logits) and labels_only:
        return fused_cross_entropy(
            logits.x,
            logits.kernel,
            targets,
            bias=logits.bias,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            ignore_index=ignore_index,
            where=where,
        )
    z, targets, kept = _rows("cross_entropy", as_logits(logits), targets, ignore_index, where)
    _expect_class_weights("cross_entropy", class_weights, z)
    weights = _row_weights(class_weights, targets, z)
    if _is_labels(targets):
        loss = cost_at(z, targets)
    else:
        loss = _per_weight(
            weighted(_reweighted(targets, class_weights), costs(z)).sum(axis=-1), weights
        )
    if not is_zero(label_smoothing):
        smooth = weighted(_reweighted(_uniform(z), class_weights), costs(z)).sum(axis=-1)
        loss = smoothed(loss, _per_weight(smooth, weights), label_smoothing)
    if not is_zero(z_loss):
        loss = loss + jnp.asarray(z_loss, z.dtype) * jnp.square(log_total(z))
    return _weighted_rows(loss, weights, kept)


def _row_weights(class_weights: Array | None, targets: Array, z: Array) -> Array | None:
    """The weight of each row, from its target; None without class weights."""
    if class_weights is None:
        return None
    w = class_weights.astype(z.dtype)
    if _is_labels(targets):  # `logit_at` gives NaN for labels out of range
        return jnp.take(w, indices(targets), mode="clip")
    return _reweighted(targets, w).sum(axis=-1)


def _per_weight(loss: Array, weights: Array | None) -> Array:
    return loss if weights is None else per_weight(loss, weights)


def _weighted_rows(loss: Array, weights: Array | None, kept: Mask) -> Array | Weighted:
    if weights is None:
        return masked(loss, kept)
    return Weighted(shown(loss, kept), shown(weights, kept))


def _uniform(z: Array) -> Array:
    """The uniform distribution over the classes that are not at -inf."""
    possible = (~jnp.isneginf(z)).astype(z.dtype)
    return possible / jnp.maximum(possible.sum(axis=-1, keepdims=True), 1)


def _is_labels(targets: Array) -> bool:
    """Whether targets are integer labels; probabilities are floats."""
    return jnp.issubdtype(targets.dtype, jnp.integer)


def _rows(
    name: str, logits: Array, targets: Array, ignore_index: int | None, where: Mask
) -> tuple[Array, Array, Mask]:
    """Logits in at least float32 and targets, both 0 in masked rows, and the mask of the rows."""
    rows = logits.shape[:-1]
    expect_classes(name, logits.shape[-1])
    expect_mask(name, where, rows)
    z = logits.astype(at_least_float32(logits))
    if not _is_labels(targets):
        if ignore_index is not None:
            raise ValueError(
                f"{name}: expected integer labels with ignore_index, got {targets.dtype}; "
                "mask rows of probabilities with where="
            )
        if targets.shape == rows and targets.shape != logits.shape:
            raise ValueError(
                f"{name}: expected integer labels of shape {rows}, or probabilities of shape "
                f"{logits.shape}, got {spec(targets)}; cast labels: y.astype('int32')"
            )
        expect_same_shape(name, logits, targets)
        expect_real(f"{name}: targets", targets)
        hidden = None if where is None else where[..., None]
        return _shown_rows(z, where), shown(targets.astype(z.dtype), hidden), where
    if targets.shape != rows:
        raise ValueError(
            f"{name}: expected integer targets of shape {rows} for logits {logits.shape}, got "
            f"{targets.shape}; give one label for each row of logits"
        )
    labels = indices(targets)
    kept = kept_rows(labels, ignore_index, where)
    return _shown_rows(z, kept), shown(labels, kept), kept


def _shown_rows(z: Array, kept: Mask) -> Array:
    return z if kept is None else shown(z, kept[..., None])


def _expect_class_weights(name: str, class_weights: Array | None, z: Array) -> None:
    if class_weights is not None and class_weights.shape != z.shape[-1:]:
        raise ValueError(
            f"{name}: expected class_weights of shape {z.shape[-1:]} for logits {z.shape}, got "
            f"{class_weights.shape}; give one weight for each class"
        )


def _reweighted(q: Array, class_weights: Array | None) -> Array:
    """Probabilities times the weight of their class."""
    if class_weights is None:
        return q
    return q * jnp.expand_dims(class_weights.astype(q.dtype), tuple(range(q.ndim - 1)))


@within(label_smoothing="[0, 1]", positive_weight="[0, inf)")
def binary_cross_entropy(
    logits: Float[Array, "*batch"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    label_smoothing: Scalar = 0.0,
    positive_weight: Scalar = 1.0,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """Cross-entropy of a sigmoid, for one binary label per element.

        l = w q log(1 + exp(-z)) + (1 - q) log(1 + exp(z)),    q = (1 - a) y + a / 2

    Args:
      logits: z, the log-odds of the positive class.
      targets: y in [0, 1], of the same shape; bools and integers are cast.
      label_smoothing: a, in [0, 1]; may be traced.
      positive_weight: w, the weight of positive examples; may be traced.
      where: mask of the same shape; True counts.

    Returns: float of the same shape, at least 0, in nats; a Weighted with `where`.
    Raises: ValueError if the shapes differ.

    >>> f"{binary_cross_entropy(jnp.array([0.0]), jnp.array([1.0]))[0]:.4f}"   # log 2
    '0.6931'
    """
    z, y = aligned("binary_cross_entropy", logits, targets, where)
    a, w = jnp.asarray(label_smoothing, z.dtype), jnp.asarray(positive_weight, z.dtype)
    q = (1 - a) * y + 0.5 * a
    loss = weighted(w * q, jax.nn.softplus(-z)) + weighted(1 - q, jax.nn.softplus(z))
    return masked(loss, where)


@within(gamma="[0, inf)")
def focal(
    logits: Float[Array, "*batch classes"],
    targets: Num[Array, "..."],
    *,
    gamma: Scalar = 2.0,
    class_weights: Float[Array, "..."] | None = None,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """Focal loss: cross-entropy that down-weights well-classified examples.

        l = -sum_c y_c (1 - p_c)^gamma log p_c,    p = softmax(z)

    Args:
      logits, targets, class_weights, ignore_index, where: as in `cross_entropy`.
      gamma: at least 0; 0 is the cross-entropy. May be traced. All peers use 2.

    Returns, Raises: as in `cross_entropy`.
    Source: Lin et al. 2017, arXiv:1708.02002, equation 4, for many classes.

    >>> f"{focal(jnp.zeros((1, 2)), jnp.array([0]))[0]:.4f}"   # (1 - 1/2)^2 log 2
    '0.1733'
    """
    z, targets, kept = _rows("focal", logits, targets, ignore_index, where)
    _expect_class_weights("focal", class_weights, z)
    weights = _row_weights(class_weights, targets, z)
    if _is_labels(targets):
        cost = cost_at(z, targets)
        return _weighted_rows(_focus(cost, gamma) * cost, weights, kept)
    q, cost = _reweighted(targets, class_weights), costs(z)
    cost = jnp.where((q == 0) & jnp.isinf(cost), 0, cost)
    loss = (q * _focus(cost, gamma) * cost).sum(axis=-1)
    return _weighted_rows(_per_weight(loss, weights), weights, kept)


def _focus(cost: Array, gamma: Scalar) -> Array:
    """(1 - p)^gamma for cost = -log p, with derivative 0 at p = 0 and p = 1."""
    certain = (cost <= 0) | jnp.isinf(cost)  # where the derivative of the power is 0 * inf
    rest = -jnp.expm1(-jnp.where(certain, 1, cost))
    power = jnp.exp(jnp.asarray(gamma, cost.dtype) * jnp.log(rest))
    return jnp.where(certain, jnp.isinf(cost).astype(cost.dtype), power)


@within(gamma="[0, inf)", alpha="[0, 1]")
def binary_focal(
    logits: Float[Array, "*batch"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    gamma: Scalar = 2.0,
    alpha: Scalar | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """Binary focal loss: cross-entropy that down-weights well-classified examples.

        l = alpha y (1 - p)^gamma log(1 + exp(-z)) + (1 - alpha) (1 - y) p^gamma log(1 + exp(z))
        p = sigmoid(z)

    Args:
      logits, targets, where: as in `binary_cross_entropy`.
      gamma: at least 0; 0 is the cross-entropy. May be traced. All peers use 2.
      alpha: weight of the positive class, in [0, 1]; may be traced. None gives both classes weight
        1, as Keras and Optax do; the paper and torchvision use 0.25.

    Returns, Raises: as in `binary_cross_entropy`.
    Source: Lin et al. 2017, arXiv:1708.02002, equation 5.

    >>> f"{binary_focal(jnp.array([0.0]), jnp.array([1.0]))[0]:.4f}"   # (1 - 1/2)^2 log 2
    '0.1733'
    """
    z, y = aligned("binary_focal", logits, targets, where)
    gamma = jnp.asarray(gamma, z.dtype)
    positive, negative = jax.nn.softplus(-z), jax.nn.softplus(z)  # -log p, -log(1 - p)
    # From log p, which is accurate where p rounds to 0; finite, since 0 * inf would be NaN.
    focus, other_focus = (jnp.exp(-gamma * jnp.minimum(c, 1e30)) for c in (negative, positive))
    a = 1.0 if alpha is None else jnp.asarray(alpha, z.dtype)
    b = 1.0 if alpha is None else 1 - a
    loss = weighted(a * y, focus * positive) + weighted(b * (1 - y), other_focus * negative)
    return masked(loss, where)


def hinge(
    scores: Float[Array, "*batch"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """max(0, 1 - s y), for labels y of -1 and 1.

    Args:
      scores: s, positive for the positive class.
      targets: the same shape; positive above 0: bools, 0 and 1, or -1 and 1.
      where: mask of the same shape; True counts.

    Returns: float of the same shape, at least 0; a Weighted with `where`.
    Raises: ValueError if the shapes differ.
    Source: Cortes & Vapnik 1995, Support-vector networks.

    >>> hinge(jnp.array([0.25, -2.0, 3.0]), jnp.array([1, 0, 1])).tolist()
    [0.75, 0.0, 0.0]
    """
    return masked(_hinge("hinge", scores, targets, where), where)


def _hinge(name: str, scores: Array, targets: Array, where: Mask) -> Array:
    s, y = aligned(name, scores, targets, where)
    return jax.nn.relu(1 - jnp.where(y > 0, s, -s))


def squared_hinge(
    scores: Float[Array, "*batch"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """The square of `hinge`, which is differentiable.

    Args, Returns, Raises: as in `hinge`.

    >>> squared_hinge(jnp.array([0.5]), jnp.array([1])).tolist()
    [0.25]
    """
    return masked(jnp.square(_hinge("squared_hinge", scores, targets, where)), where)


def multiclass_hinge(
    scores: Float[Array, "*batch classes"],
    labels: Num[Array, "..."],
    *,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """max(0, 1 + max_{c != y} s_c - s_y): a margin of 1 between the label and other classes.

    Args:
      scores: s, one per class.
      labels: y, integers in [0, C) of shape (*batch,).
      ignore_index, where: as in `cross_entropy`.

    Returns: float of shape (*batch,), at least 0; a Weighted with `ignore_index` or `where`. NaN
      for a label out of range.
    Raises: ValueError for inconsistent shapes.
    Source: Crammer & Singer 2001, On the algorithmic implementation of multiclass kernel-based
      vector machines; as Keras and Optax. PyTorch's multi_margin_loss sums over the classes
      instead (Weston & Watkins 1999).

    >>> multiclass_hinge(jnp.array([[2.0, 1.5, -1.0]]), jnp.array([0])).tolist()
    [0.5]
    """
    if not _is_labels(labels):
        raise ValueError(
            f"multiclass_hinge: expected integer labels, got {labels.dtype}; "
            "take the argmax of probabilities"
        )
    s, labels, kept = _rows("multiclass_hinge", scores, labels, ignore_index, where)
    classes = jnp.arange(s.shape[-1], dtype=jnp.int32)
    other = jnp.expand_dims(classes, tuple(range(labels.ndim))) != labels[..., None]
    best_other = jnp.where(other, s, -jnp.inf).max(axis=-1)
    return masked(jax.nn.relu(1 + best_other - logit_at(s, labels)), kept)
