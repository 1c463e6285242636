"""The first losses against float64 twins of their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from tests.registry.rows import integers, normal

# A few float32 roundings (6e-8) of numbers of size 10.
CLOSE = dict(rtol=1e-6, atol=2e-6)

LOGITS, LABELS = 3 * normal(6, 5), integers(6, below=5)
smoothed = jax.jit(lambda z, y, a: cross_entropy(z, y, label_smoothing=a))


def softmax_twin(z):
    p = np.exp(z.astype(np.float64))
    return p / p.sum(axis=-1, keepdims=True)


def onehot(labels):
    return np.eye(5)[labels]


@pytest.mark.parametrize("a", [0.0, 0.1, 1.0])
def test_cross_entropy_of_labels_and_of_probabilities_is_its_formula(a):
    p = softmax_twin(normal(6, 5, seed=1))
    for targets, q in ((LABELS, onehot(LABELS)), (p.astype(np.float32), p)):
        q = (1 - a) * q + a / 5
        twin = -(q * np.log(softmax_twin(LOGITS))).sum(axis=-1)
        np.testing.assert_allclose(smoothed(LOGITS, targets, a), twin, **CLOSE)


def test_a_plain_smoothing_is_the_traced_one():
    plain = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), label_smoothing=0.3)
    np.testing.assert_allclose(plain, smoothed(LOGITS, LABELS, 0.3), rtol=1e-6)


def test_the_gradient_is_the_softmax_minus_the_target():
    slope = jax.grad(lambda z: cross_entropy(z, jnp.asarray(LABELS)).sum())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(slope, softmax_twin(LOGITS) - onehot(LABELS), atol=1e-6)


@pytest.mark.parametrize("a", [0.0, 0.1])
def test_a_class_at_minus_infinity_is_as_if_it_were_not_there(a):
    z, labels = LOGITS.copy(), np.array([0, 1, 3, 4, 0, 1], np.int32)
    z[:, 2] = -np.inf
    renumbered = np.where(labels > 2, labels - 1, labels)
    without = smoothed(np.delete(LOGITS, 2, axis=1), renumbered, a)
    np.testing.assert_allclose(smoothed(z, labels, a), without, **CLOSE)


@pytest.mark.parametrize("a", [0.0, 0.1, 1.0])
def test_a_target_at_minus_infinity_costs_infinity_however_smoothed(a):
    z = np.array([[0.0, -np.inf, 1.0]], np.float32)
    assert smoothed(z, np.array([1], np.int32), a).tolist() == [np.inf]


def test_a_confident_right_answer_costs_nothing_and_a_wrong_one_its_margin():
    z = np.array([[1e4, 0.0], [1e4, 0.0]], np.float32)
    assert smoothed(z, np.array([0, 1], np.int32), 0.0).tolist() == [0.0, 1e4]


def test_binary_cross_entropy_is_its_formula():
    z, y = 3 * normal(20), np.random.default_rng(1).uniform(size=20)
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    twin = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    loss = binary_cross_entropy(jnp.asarray(z), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(loss, twin, **CLOSE)


@pytest.mark.parametrize("dtype", [jnp.bool, jnp.int32, jnp.float32])
def test_binary_cross_entropy_at_large_logits_is_exact_for_targets_of_any_dtype(dtype):
    z, y = jnp.array([1e4, 1e4, -1e4, jnp.inf]), jnp.array([1, 0, 0, 1]).astype(dtype)
    assert binary_cross_entropy(z, y).tolist() == [0.0, 1e4, 0.0, 0.0]


def test_the_mean_squared_error_is_its_formula():
    y, t = normal(4, 3, 2), normal(4, 3, 2, seed=1)
    twin = ((y.astype(np.float64) - t) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(mean_squared_error(jnp.asarray(y), jnp.asarray(t)), twin, rtol=1e-6)


def test_the_mean_squared_error_of_bfloat16_is_summed_in_float32():
    loss = mean_squared_error(jnp.ones((1, 1000), jnp.bfloat16), jnp.zeros((1, 1000)))
    assert loss.dtype == jnp.float32
    assert loss.tolist() == [1.0]


@pytest.mark.parametrize("loss", [binary_cross_entropy, mean_squared_error])
def test_targets_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=f"{loss.__name__}: expected .*broadcasting would mix"):
        loss(jnp.zeros((3, 1)), jnp.zeros(3))
