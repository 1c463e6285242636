"""Metrics of parts add up to the metric of the whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from fnn.losses import cross_entropy
from fnn.metrics import accuracy, mean, mean_loss, merge
from tests.registry.rows import integers, normal

LOGITS, LABELS = jnp.asarray(normal(50, 4)), jnp.asarray(integers(50, below=4))


def test_accuracy_is_the_share_of_hits():
    twin = np.mean(np.asarray(LOGITS).argmax(axis=1) == np.asarray(LABELS))
    metric = accuracy()
    assert np.isclose(metric.value(metric.measure(LOGITS, LABELS)), twin, rtol=1e-6)


def test_accuracy_counts_the_tokens_of_all_examples():
    metric = accuracy()
    tokens = metric.measure(LOGITS.reshape(10, 5, 4), LABELS.reshape(10, 5))
    assert metric.value(tokens) == metric.value(metric.measure(LOGITS, LABELS))


def test_probabilities_count_as_their_largest_class():
    metric = accuracy()
    soft = jnp.asarray(np.eye(4)[np.asarray(LABELS)] * 0.7 + 0.075, jnp.float32)
    labels = metric.measure(LOGITS, LABELS)
    assert metric.value(metric.measure(LOGITS, soft)) == metric.value(labels)


@pytest.mark.parametrize("sizes", [[1, 49], [16, 16, 16, 2]])
def test_batches_of_any_size_give_the_mean_of_the_whole(sizes):
    metric = mean_loss(cross_entropy)
    cuts = np.cumsum(sizes)[:-1]
    parts = zip(np.split(LOGITS, cuts), np.split(LABELS, cuts), strict=True)
    sums = None
    for z, y in parts:
        part = metric.measure(jnp.asarray(z), jnp.asarray(y))
        sums = part if sums is None else merge(sums, part)
    twin = np.asarray(cross_entropy(LOGITS, LABELS), np.float64).mean()
    np.testing.assert_allclose(metric.value(sums), twin, rtol=1e-6)


def test_the_mean_over_nothing_is_zero():
    metric = mean(lambda predictions, targets: predictions - targets)
    assert metric.value({"total": jnp.float32(0), "count": jnp.float32(0)}).item() == 0


def test_sums_are_in_float32_whatever_the_dtype_of_the_values():
    metric = mean(lambda predictions, targets: predictions)
    for dtype in (jnp.bfloat16, jnp.int32):
        sums = metric.measure(jnp.ones(1001, dtype), None)
        assert {leaf.dtype.name for leaf in sums.values()} == {"float32"}
        assert sums["total"] == sums["count"] == 1001
