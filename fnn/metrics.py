"""Metrics as monoids: sums and counts that add up over batches of any size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from fnn.tree import at_least_float32
from fnn.types import Loss, Metric


def _ratio(sums: dict[str, Array]) -> Float[Array, ""]:
    # The mean over nothing is 0, not NaN.
    return sums["total"] / jnp.maximum(sums["count"], 1)


def mean(per_example: Callable[[Any, Any], Array]) -> Metric:
    """The mean of a function of predictions and targets over all examples.

    >>> error = mean(lambda predictions, targets: jnp.abs(predictions - targets))
    >>> a = error.measure(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]))
    >>> b = error.measure(jnp.array([6.0]), jnp.array([0.0]))
    >>> error.value(merge(a, b)).item()   # not the mean of the means, 3.75
    3.0
    """

    def measure(predictions: Any, targets: Any) -> dict[str, Array]:
        values = per_example(predictions, targets)
        values = values.astype(at_least_float32(values))
        return {"total": values.sum(), "count": jnp.asarray(values.size, values.dtype)}

    return Metric(measure=measure, value=_ratio)


def mean_loss(loss: Loss) -> Metric:
    """The mean of a loss over all examples.

    >>> from fnn.losses import mean_squared_error
    >>> metric = mean_loss(mean_squared_error)
    >>> metric.value(metric.measure(jnp.array([1.0, 3.0]), jnp.zeros(2))).item()
    5.0
    """
    return mean(loss)


def accuracy() -> Metric:
    """Share of examples whose largest logit is at the label.

    Predictions are (*batch, classes); targets are integer labels (*batch,) or probabilities
    (*batch, classes), of which the largest counts as the label.

    >>> metric = accuracy()
    >>> metric.value(metric.measure(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([1, 1]))).item()
    0.5
    """
    return mean(_hits)


def _hits(logits: Float[Array, "*batch classes"], targets: Array) -> Int[Array, "*batch"]:
    soft = jnp.issubdtype(targets.dtype, jnp.floating)
    labels = targets.argmax(axis=-1) if soft else targets
    return (logits.argmax(axis=-1) == labels).astype(jnp.int32)


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Add the sums of two parts.

    >>> merge({'total': 1.0, 'count': 2.0}, {'total': 3.0, 'count': 1.0})
    {'count': 3.0, 'total': 4.0}
    """
    return jax.tree.map(lambda x, y: x + y, a, b)
