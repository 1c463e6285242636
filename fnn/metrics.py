"""Metrics as monoids: weighted sums that add up over batches of any size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fnn import tree
from fnn.types import Loss, Metric, Weighted


def mean(function: Callable[[Any, Any], Array | Weighted]) -> Metric:
    """The mean of a function of outputs and targets over all elements; also of a loss.

    Args:
      function: (outputs, targets) to an array, whose elements all count alike, or to a `Weighted`.

    The mean over nothing, or where all weights are 0, is 0.

    >>> error = mean(lambda outputs, targets: jnp.abs(outputs - targets))
    >>> a = error.measure(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]))
    >>> b = error.measure(jnp.array([6.0]), jnp.array([0.0]))
    >>> error.value(merge(a, b)).item()   # not the mean of the means, 3.75
    3.0
    """

    def measure(outputs: Any, targets: Any) -> dict[str, Array]:
        found = function(outputs, targets)
        values, weights = found if isinstance(found, Weighted) else (found, jnp.ones_like(found))
        weighted = Weighted(tree.wide(values), tree.wide(weights))
        return {"total": weighted.sum(), "weight": weighted.weights.sum()}

    return Metric(measure=measure, value=_ratio)


def _ratio(sums: dict[str, Array]) -> Float[Array, ""]:
    return sums["total"] / jnp.where(sums["weight"] == 0, 1, sums["weight"])


def perplexity(loss: Loss) -> Metric:
    """exp of the mean loss over all tokens that count.

    >>> metric = perplexity(lambda outputs, targets: outputs)
    >>> metric.value(metric.measure(jnp.log(jnp.array([2.0, 8.0])), None)).round(3).item()
    4.0
    """
    nats = mean(loss)
    return Metric(measure=nats.measure, value=lambda sums: jnp.exp(nats.value(sums)))


def accuracy(*, ignore_index: int | None = None) -> Metric:
    """The fraction of examples (or tokens) whose largest logit is at the label.

    Outputs are (*batch, classes); targets are integer labels (*batch,), or probabilities
    (*batch, classes), of which the largest counts as the label.

    Args:
      ignore_index: a label that does not count, such as -100.

    >>> metric = accuracy(ignore_index=-100)
    >>> logits = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    >>> metric.value(metric.measure(logits, jnp.array([1, 1, -100]))).item()
    0.5
    """

    def hits(logits: Float[Array, "*batch classes"], targets: Array) -> Weighted:
        soft = jnp.issubdtype(targets.dtype, jnp.floating)
        labels = (targets.argmax(axis=-1) if soft else targets).astype(jnp.int32)
        right = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
        counted = jnp.ones_like(right) if ignore_index is None else labels != ignore_index
        return Weighted(right, counted.astype(right.dtype))

    return mean(hits)


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Add the sums of two parts.

    >>> merge({'total': 1.0, 'weight': 2.0}, {'total': 3.0, 'weight': 1.0})
    {'total': 4.0, 'weight': 3.0}
    """
    return jax.tree.map(lambda x, y: x + y, a, b)
