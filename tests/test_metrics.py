"""Metrics of parts add up to the metric of the whole."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from fnn.losses import cross_entropy
from fnn.metrics import accuracy, mean, merge, perplexity
from fnn.types import Weighted
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


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("sizes", [[1, 49], [16, 16, 16, 2]])
def test_batches_of_any_size_give_the_mean_of_the_whole(sizes):
    metric = mean(cross_entropy)
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
    assert metric.value({"total": jnp.float32(0), "weight": jnp.float32(0)}).item() == 0


def test_sums_are_in_float32_whatever_the_dtype_of_the_values():
    metric = mean(lambda predictions, targets: predictions)
    for dtype in (jnp.bfloat16, jnp.int32):
        sums = metric.measure(jnp.ones(1001, dtype), None)
        assert {leaf.dtype.name for leaf in sums.values()} == {"float32"}
        assert sums["total"] == sums["weight"] == 1001


MASKED = jnp.where(jnp.arange(50) % 3 == 0, -100, LABELS)


masked_loss = partial(cross_entropy, ignore_index=-100)
MASKABLE = {
    "accuracy": accuracy(ignore_index=-100),
    "mean": mean(masked_loss),
    "perplexity": perplexity(masked_loss),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", MASKABLE)
def test_masked_elements_do_not_count(name):
    metric = MASKABLE[name]
    kept = np.asarray(MASKED) != -100
    alone = metric.value(metric.measure(LOGITS[kept], LABELS[kept]))
    np.testing.assert_allclose(metric.value(metric.measure(LOGITS, MASKED)), alone, rtol=1e-6)
    assert metric.value(metric.measure(LOGITS, jnp.full(50, -100))) in (0, 1)  # exp(0)


def test_weights_below_one_are_no_counts():
    half = mean(lambda outputs, targets: Weighted(outputs, jnp.full_like(outputs, 0.25)))
    assert half.value(half.measure(jnp.array([2.0, 4.0]), None)) == 3


def test_perplexity_is_the_exponential_of_the_mean_over_all_batches():
    metric = perplexity(cross_entropy)
    parts = [metric.measure(LOGITS[cut], LABELS[cut]) for cut in (slice(7), slice(7, 50))]
    twin = np.exp(np.asarray(cross_entropy(LOGITS, LABELS), np.float64).mean())
    np.testing.assert_allclose(metric.value(merge(*parts)), twin, rtol=1e-6)
