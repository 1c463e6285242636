"""Laws of metrics, monoids of sums: `measure(predictions, targets)` and `value(sums)`."""

from typing import Any

import jax
import jax.numpy as jnp

from fnn.testing._compare import expect_same, rows
from fnn.testing.laws import jit_equals_eager
from fnn.types import Metric

# Reordered sums of a few float32 values: a few roundings of 6e-8.
RTOL = 1e-6


def check_metric(metric: Metric, predictions: Any, targets: Any) -> None:
    """All laws of a metric.

    Args:
      predictions, targets: a batch of at least 3.

    >>> from fnn.metrics import accuracy
    >>> check_metric(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    predictions, targets = jax.tree.map(jnp.asarray, (predictions, targets))
    jit_equals_eager(metric.measure, predictions, targets)
    value_is_a_scalar(metric, predictions, targets)
    parts_equal_the_whole(metric, predictions, targets)


def value_is_a_scalar(metric: Metric, predictions: Any, targets: Any) -> None:
    """The value is a finite float32 scalar, also for sums of 0.

    >>> from fnn.metrics import accuracy
    >>> value_is_a_scalar(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    sums = metric.measure(predictions, targets)
    for what, given in {"the sums": sums, "no sums": jax.tree.map(jnp.zeros_like, sums)}.items():
        value = metric.value(given)
        if value.shape != () or value.dtype != jnp.float32 or not jnp.isfinite(value):
            raise AssertionError(
                f"value_is_a_scalar: {what} give {value}, {value.dtype}{list(value.shape)}, and "
                "must give a finite float32 scalar; mind a count of zero"
            )


def parts_equal_the_whole(metric: Metric, predictions: Any, targets: Any) -> None:
    """The value does not depend on how a batch is cut into parts, nor on the order of the sums.

    >>> from fnn.metrics import accuracy
    >>> parts_equal_the_whole(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    whole = metric.value(metric.measure(predictions, targets))
    batch = len(jax.tree.leaves(predictions)[0])
    for first, second in {(1, 2), (1, batch - 1), (batch // 2, batch - 1)}:
        cuts = (0, first), (first, second), (second, batch)
        a, b, c = (metric.measure(*_part((predictions, targets), *cut)) for cut in cuts)
        for grouping in (_merge(_merge(a, b), c), _merge(a, _merge(b, c))):
            expect_same(
                f"parts_equal_the_whole, cut after {first} and {second}",
                whole,
                metric.value(grouping),
                names=("the whole", "the parts"),
                rtol=RTOL,
                hint="keep sums and counts apart, and divide in value: no mean of means",
            )


def _part(examples: Any, start: int, stop: int) -> Any:
    return jax.tree.map(jnp.asarray, rows(examples, slice(start, stop)))


def _merge(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
