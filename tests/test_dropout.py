"""Dropout keeps the mean, drops its share, and has finite slopes by its rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import nn
from fnn.layers import dropout
from fnn.nn import sequential

ONES = jnp.ones(20_000)


def key(seed=0):
    return jax.random.key(seed)


def expect_share_and_mean(layer, rate):
    y = np.asarray(layer(key(), ONES, rate), np.float64)
    error = np.sqrt(rate * (1 - rate) / y.size)  # standard error of a binomial share
    assert abs((y == 0).mean() - rate) < 4 * error
    assert abs(y.mean() - 1) < 4 * error / (1 - rate)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate_and_the_mean_is_kept(rate):
    expect_share_and_mean(dropout, rate)


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_each_kept_number_is_scaled_by_itself(rate):
    x = np.arange(1.0, 1001.0, dtype=np.float32)
    y = np.asarray(dropout(key(), jnp.asarray(x), rate))
    np.testing.assert_allclose(y[y != 0], x[y != 0] / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("rate", [0, 0.0, jnp.float32(0)])
def test_a_rate_of_0_keeps_everything(rate):
    assert (dropout(key(), ONES, rate) == ONES).all()


@pytest.mark.parametrize("rate", [1, 1.0, jnp.float32(1)])
def test_a_rate_of_1_drops_everything_and_has_finite_slopes(rate):
    y, slope = jax.value_and_grad(lambda x: dropout(key(), x, rate).sum())(ONES)
    assert y.item() == 0
    assert (slope == 0).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_slope_by_a_traced_rate_is_that_of_the_scaling(rate):
    def total(rate):
        return dropout(key(), ONES, rate).sum()

    slope = jax.jit(jax.grad(total))(jnp.float32(rate))
    kept = np.count_nonzero(dropout(key(), ONES, rate))
    expected = kept / (1 - rate) ** 2 if rate < 1 else 0.0
    np.testing.assert_allclose(slope, expected, rtol=1e-4)  # a float32 sum of 20 000 numbers


def test_another_key_drops_others():
    one, other = (dropout(key(seed), ONES, 0.5) == 0 for seed in (0, 1))
    assert 0.4 < (one == other).mean() < 0.6


def expect_independent_masks(model):
    """Of two layers at rate 0.5, a quarter passes both."""
    params, state = model.init(key(), ONES[:, None])
    y, _ = model.apply(params, state, ONES[:, None], key=key(), train=True)
    assert abs((y != 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / ONES.size)


def test_two_dropout_layers_drop_independently():
    expect_independent_masks(sequential(nn.dropout(0.5), nn.dropout(0.5)))


def test_each_example_has_its_own_mask():
    y = dropout(key(), jnp.ones((2, 1000)), 0.5)
    assert 0.4 < (y[0] == y[1]).mean() < 0.6


def test_bfloat16_stays_bfloat16():
    assert dropout(key(), jnp.ones(8, jnp.bfloat16), jnp.float32(0.5)).dtype == jnp.bfloat16


def test_the_mask_is_the_same_in_float64():
    mask = dropout(key(), ONES, 0.3) == 0
    with jax.enable_x64(True):
        wide = dropout(key(), jnp.ones(ONES.shape, jnp.float64), 0.3)
        assert ((wide == 0) == mask).all()


@pytest.mark.parametrize("rate", [-0.1, 1.5, 2])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match=r"dropout: expected rate in \[0, 1\]"):
        dropout(key(), ONES, rate)


def test_training_without_a_key_is_refused_unless_nothing_is_dropped():
    x = jnp.ones((1, 2))
    with pytest.raises(ValueError, match="dropout: expected a key with train=True"):
        nn.dropout(0.5).apply({}, (), x, train=True)
    assert nn.dropout(0).apply({}, (), x, train=True)[0] is x
    assert nn.dropout(0.5).apply({}, (), x, train=False)[0] is x
