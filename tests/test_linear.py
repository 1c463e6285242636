"""The linear layer in worked numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import nn
from fnn.activations import sigmoid
from fnn.initializers import normal
from fnn.layers import linear, linear_init
from fnn.losses import binary_cross_entropy
from fnn.nn import sequential
from tests.registry.rows import normal as numbers

SPAM = {"kernel": jnp.array([[0.2], [0.5]]), "bias": jnp.array([-0.4])}
LINKS_AND_CAPITALS = jnp.array([[3.0, 1.0]])


def test_the_spam_neuron_gives_0_7_and_a_sigmoid_of_0_668():
    z = linear(SPAM, LINKS_AND_CAPITALS)
    np.testing.assert_allclose(z, [[0.7]], rtol=1e-6)
    np.testing.assert_allclose(sigmoid(z), [[0.668]], atol=5e-4)
    np.testing.assert_allclose(sigmoid(z), [[1 / (1 + np.exp(-0.7))]], rtol=1e-6)


def test_the_spam_neuron_learns_from_its_error():
    def loss(params):
        return binary_cross_entropy(linear(params, LINKS_AND_CAPITALS), jnp.ones((1, 1))).sum()

    slopes = jax.grad(loss)(SPAM)
    error = 1 / (1 + np.exp(-0.7)) - 1  # prediction minus target
    np.testing.assert_allclose(slopes["kernel"][:, 0], [3 * error, error], rtol=1e-6)
    np.testing.assert_allclose(slopes["bias"], [error], rtol=1e-6)


def test_ten_sigmoid_layers_shrink_a_gradient_at_least_by_a_quarter_each():
    unit = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}

    def deep(x):
        for _ in range(10):
            x = sigmoid(linear(unit, x))
        return x.sum()

    slope = jax.grad(deep)(jnp.zeros((1, 1))).item()
    assert 0 < slope <= 0.25**10


def test_it_is_its_formula_for_any_number_of_leading_axes():
    params = linear_init(jax.random.key(0), 4, 3, bias_init=normal())
    for shape in ((4,), (5, 4), (2, 3, 4)):
        x = numbers(*shape)
        kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
        twin = x @ kernel + bias
        np.testing.assert_allclose(linear(params, jnp.asarray(x)), twin, rtol=1e-5, atol=1e-6)


def test_without_a_bias_there_is_none():
    params = linear_init(jax.random.key(0), 4, 3, bias=False)
    assert set(params) == {"kernel"}
    assert (linear(params, jnp.zeros((1, 4))) == 0).all()


def test_a_fresh_layer_keeps_the_variance_of_its_input():
    model = nn.linear(400)
    x = jnp.asarray(numbers(50, 300))
    params, state = model.init(jax.random.key(0), x)
    y = model.apply(params, state, x)[0]
    assert 0.9 < y.var() < 1.1  # 20 000 outputs


@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 5)])
def test_the_wrong_features_are_refused(shape):
    params = linear_init(jax.random.key(0), 4, 3)
    with pytest.raises(ValueError, match="linear: expected x with 4 features in its last axis"):
        linear(params, jnp.zeros(shape))


def test_a_model_fed_with_other_features_than_at_init_is_refused():
    model = sequential(nn.flatten(), nn.linear(2))
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="linear: expected x with 6 features"):
        model.apply(params, state, jnp.zeros((1, 2, 4)))
