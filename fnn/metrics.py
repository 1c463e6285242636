"""Metrics as monoids: weighted sums, which add over batches of any size.

Masks and weights are part of the targets: `mean(lambda z, y: hits(z, y['labels'],
where=y['mask']))`, or `mean(lambda z, y: Weighted(hits(z, y['labels']), y['weights']))`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, PyTree

from fnn import dtypes
from fnn._arguments import check_exports
from fnn.expect import expect_not_paired, expect_real, spec
from fnn.losses._elements import Mask, expect_mask, kept_rows, masked
from fnn.losses.lazy import LazyLogits, as_logits
from fnn.losses.terms import sums_of, total_of
from fnn.types import Loss, Metric, Scalar, Terms, Weighted
from fnn.weighted import per_weight


def mean(function: Callable[[Any, Any], Array | Weighted | Terms]) -> Metric:
    """The mean of a function of outputs and targets, such as a loss, over all elements.

    Args:
      function: (outputs, targets) to an array, whose elements have equal weight, or a `Weighted`.

    The mean is 0 if there are no elements or all weights are 0.

    Raises: ValueError, from `measure`, for weights of another shape, and for (n, n) values of n
      examples, which (n, 1) and (n,) broadcast to.

    >>> error = mean(lambda outputs, targets: jnp.abs(outputs - targets))
    >>> a = error.measure(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]))
    >>> b = error.measure(jnp.array([6.0]), jnp.array([0.0]))
    >>> error.value(merge(a, b)).item()   # not the mean of the means, 3.75
    3.0
    """

    def measure(outputs: Any, targets: Any) -> dict[str, Any]:
        expect_real("metrics", {"outputs": outputs, "targets": targets})
        found = function(outputs, targets)
        if isinstance(found, Terms):
            return {"terms": sums_of(found)}
        values, weights = found if isinstance(found, Weighted) else (found, jnp.ones_like(found))
        expect_not_paired("metrics.mean", values, outputs, targets)
        if weights.shape != values.shape:
            raise ValueError(
                f"metrics.mean: expected a weight for each value, {values.shape}, got weights "
                f"{weights.shape}; broadcast them"
            )
        weighted = Weighted(dtypes.wide(values), dtypes.wide(weights))
        return {"total": weighted.sum(), "weight": weighted.weights.sum()}

    return Metric(measure=measure, value=_ratio)


def _ratio(sums: dict[str, Any]) -> Float[Array, ""]:
    if "terms" in sums:
        return total_of(sums["terms"])
    return per_weight(sums["total"], sums["weight"])


def perplexity(loss: Loss) -> Metric:
    """exp of the mean loss over all tokens with weight.

    >>> metric = perplexity(lambda outputs, targets: outputs)
    >>> metric.value(metric.measure(jnp.log(jnp.array([2.0, 8.0])), None)).round(3).item()
    4.0
    """
    nats = mean(loss)
    return Metric(measure=nats.measure, value=lambda sums: jnp.exp(nats.value(sums)))


def accuracy(*, ignore_index: int | None = None) -> Metric:
    """The fraction of examples (or tokens) whose largest logit is at the label: mean `hits`.

    Args:
      ignore_index: a label to exclude, such as -100.

    Raises: ValueError, from `measure`, as `hits`; for a single logit use `binary_accuracy`.

    >>> metric = accuracy(ignore_index=-100)
    >>> logits = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    >>> metric.value(metric.measure(logits, jnp.array([1, 1, -100]))).item()
    0.5
    """
    return mean(lambda logits, targets: hits(logits, targets, ignore_index=ignore_index))


def top_k_accuracy(k: int, *, ignore_index: int | None = None) -> Metric:
    """The fraction of examples (or tokens) whose label is among the k largest logits: mean `hits`.

    Args:
      k: from 1 to the number of classes. Ties are broken in favor of the lower class.
      ignore_index: a label to exclude, such as -100.

    >>> metric = top_k_accuracy(2)
    >>> metric.value(metric.measure(jnp.zeros((3, 3)), jnp.array([0, 1, 2]))).round(3).item()
    0.667
    """
    return mean(lambda logits, targets: hits(logits, targets, k=k, ignore_index=ignore_index))


def binary_accuracy(threshold: Scalar = 0.0, *, ignore_index: int | None = None) -> Metric:
    """The fraction of correct binary predictions: mean `binary_hits`.

    Args:
      threshold: outputs above it are positive: 0 for logits, 0.5 for probabilities.
      ignore_index: a target to exclude, such as -1.

    >>> metric = binary_accuracy()
    >>> logits, targets = jnp.array([2.0, -1.0, 0.5, 3.0]), jnp.array([1, 0, 0, 1])
    >>> metric.value(metric.measure(logits, targets)).item()
    0.75
    """
    return mean(
        lambda outputs, targets: binary_hits(
            outputs, targets, threshold=threshold, ignore_index=ignore_index
        )
    )


def hits(
    logits: Float[Array, "*batch classes"] | LazyLogits,
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    k: int = 1,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """1 for each row whose label is among the k largest logits, else 0.

    Args:
      logits: (*batch, classes), or probabilities; at least two classes.
      targets: labels in [0, classes) of shape (*batch,), or probabilities (*batch, classes), whose
        argmax is the label.
      k: from 1 to classes. Ties are broken in favor of the lower class, as in `argmax`.
      ignore_index: a label to exclude, such as -100.
      where: mask of the rows, (*batch,); True counts.

    Returns: float32 of shape (*batch,); a `Weighted` with `ignore_index` or `where`. NaN for a
      label out of range and for probabilities that do not sum to 1.
    Raises: ValueError for inconsistent shapes, a single class, and a k out of range.

    >>> hits(jnp.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), jnp.array([2, 0])).tolist()
    [0.0, 1.0]
    >>> hits(jnp.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), jnp.array([2, 0]), k=2).tolist()
    [1.0, 1.0]
    """
    logits = as_logits(logits)
    labels, valid = _labels(logits, targets, ignore_index)
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(
            f"metrics.hits: expected k from 1 to {classes}, the classes, got {k}; use a smaller k"
        )
    in_range = jnp.clip(labels, 0, classes - 1)[..., None]
    own = jnp.take_along_axis(logits, in_range, axis=-1)
    index = jnp.arange(classes, dtype=jnp.int32)
    index = jnp.expand_dims(index, tuple(range(labels.ndim)))
    before = (logits > own) | ((logits == own) & (index < in_range))
    # NaN ranks before all other logits, as in argmax: a diverged model has no hits.
    before = before | (jnp.isnan(logits) & (index != in_range)) | jnp.isnan(own)
    right = (before.sum(axis=-1) < k).astype(jnp.float32)
    expect_mask("metrics.hits", where, labels.shape)
    return masked(jnp.where(valid, right, jnp.nan), kept_rows(labels, ignore_index, where))


def binary_hits(
    outputs: Float[Array, "*batch"],
    targets: Num[Array, "..."] | Bool[Array, "..."],
    *,
    threshold: Scalar = 0.0,
    ignore_index: int | None = None,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """1 for each element where output and target are both positive or both negative, else 0.

    Args:
      outputs: (n,), (n, 1), or (n, labels) for several binary labels per example.
      targets: the same shape; positive above 0.5: bools, 0 and 1, -1 and 1, or probabilities.
      threshold: outputs above it are positive: 0 for logits, 0.5 for probabilities. May be traced.
      ignore_index: an integer target to exclude, such as -1.
      where: mask of the same shape; True counts.

    Returns: float32 of the same shape; a `Weighted` with `ignore_index` or `where`. NaN for a
      target outside [-1, 1], such as a class label.
    Raises: ValueError if the shapes differ.

    >>> binary_hits(jnp.array([[2.0, -1.0], [0.5, 3.0]]), jnp.array([[1, 0], [0, 1]])).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"metrics.binary_hits: expected targets of the shape of the outputs, {outputs.shape}, "
            f"got {targets.shape}; reshape one of them, or use metrics.hits for one label in many "
            "classes"
        )
    if ignore_index is not None and not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(
            f"metrics.binary_hits: expected integer targets with ignore_index, got "
            f"{targets.dtype}; mask others with where="
        )
    y = targets.astype(jnp.float32)
    positive = outputs > jnp.asarray(threshold, outputs.dtype)
    right = (positive == (y > 0.5)) & ~jnp.isnan(outputs)
    hit = jnp.where(jnp.abs(y) <= 1, right.astype(jnp.float32), jnp.nan)
    expect_mask("metrics.binary_hits", where, targets.shape)
    return masked(hit, kept_rows(targets, ignore_index, where))


def _labels(logits: Array, targets: Array, ignore_index: int | None) -> tuple[Array, Array]:
    """The label of each row, and whether it is valid."""
    if logits.ndim < 1 or logits.shape[-1] < 2:
        raise ValueError(
            f"metrics.hits: expected logits of at least 2 classes, got {spec(logits)}; for one "
            "logit use metrics.binary_accuracy, for a regression metrics.mean of a loss"
        )
    soft = jnp.issubdtype(targets.dtype, jnp.floating)
    if soft and ignore_index is not None:
        raise ValueError(
            f"metrics.hits: expected integer labels with ignore_index, got {targets.dtype}; "
            "mask rows of probabilities with where="
        )
    expected = logits.shape if soft else logits.shape[:-1]
    if targets.shape != expected or (soft and logits.ndim < 2):
        raise ValueError(
            f"metrics.hits: expected labels of shape {logits.shape[:-1]}, or probabilities "
            f"{logits.shape}, for logits {spec(logits)}, got {spec(targets)}; give one label for "
            "each row, or use metrics.binary_accuracy for several binary labels"
        )
    if soft:
        # The tolerance is for rounded probabilities: bfloat16 has 8 bits.
        valid = jnp.abs(dtypes.wide(targets).sum(axis=-1) - 1) < 0.05
        return targets.argmax(axis=-1).astype(jnp.int32), valid
    labels = dtypes.indices(targets)
    return labels, (labels >= 0) & (labels < logits.shape[-1])


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Adds the sums of two batches.

    >>> merge({'total': 1.0, 'weight': 2.0}, {'total': 3.0, 'weight': 1.0})
    {'total': 4.0, 'weight': 3.0}
    """
    return jax.tree.map(lambda x, y: x + y, a, b)


check_exports(__name__)
