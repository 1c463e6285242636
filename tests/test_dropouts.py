"""Dropout and its relatives: their statistics, and what they do at the ends of the rate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import layers, nn
from tests.registry.rows import normal

N, RATE = 40_000, 0.3
DROPS = {
    "dropout": layers.dropout,
    "spatial_dropout": layers.spatial_dropout,
    "drop_path": layers.drop_path,
    "alpha_dropout": layers.alpha_dropout,
    "gaussian_dropout": layers.gaussian_dropout,
}
drops = pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS.keys())


def expect_moments(y, mean, variance):
    """Both within four of their own standard errors: one honest draw in 10,000 fails."""
    y = np.asarray(y, np.float64).ravel()
    centered = y - mean
    assert abs(centered.mean()) <= 4 * np.sqrt(variance / y.size)
    fourth = np.mean(centered**4)
    error = np.sqrt((fourth - variance**2) / y.size)
    assert abs(np.mean(centered**2) - variance) <= 4 * error


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "drop, shape, units",
    [
        (layers.dropout, (N,), N),
        (layers.spatial_dropout, (N // 8, 5, 8), N),
        (layers.drop_path, (N, 3), N),
    ],
)
def test_the_share_that_is_dropped_is_the_rate_and_the_rest_keeps_the_mean(drop, shape, units):
    y = np.asarray(drop(jax.random.key(0), jnp.ones(shape), RATE))
    np.testing.assert_allclose(y[y != 0], 1 / (1 - RATE), rtol=1e-6)
    # Standard deviation of a share of `units` independent draws.
    assert abs((y == 0).mean() - RATE) <= 4 * np.sqrt(RATE * (1 - RATE) / units)


def test_spatial_dropout_drops_whole_maps_of_single_examples():
    y = np.asarray(layers.spatial_dropout(jax.random.key(0), jnp.ones((20, 3, 4, 30)), RATE))
    kept = y[:, 0, 0] != 0
    assert ((y != 0) == kept[:, None, None]).all()
    assert not (kept == kept[:1]).all() and not (kept == kept[:, :1]).all()


def test_drop_path_drops_whole_examples():
    y = np.asarray(layers.drop_path(jax.random.key(0), jnp.ones((50, 3, 4)), RATE))
    kept = y[:, 0, 0] != 0
    assert ((y != 0) == kept[:, None, None]).all()
    assert 0 < kept.sum() < 50


def test_alpha_dropout_keeps_the_mean_and_the_variance():
    x = jax.random.normal(jax.random.key(1), (N,))
    expect_moments(layers.alpha_dropout(jax.random.key(0), x, RATE), 0, 1)


def test_alpha_dropout_leaves_what_it_drops_at_one_value():
    x = jax.random.normal(jax.random.key(1), (N,))
    values, counts = np.unique(layers.alpha_dropout(jax.random.key(0), x, RATE), return_counts=True)
    assert abs(counts.max() / N - RATE) <= 4 * np.sqrt(RATE * (1 - RATE) / N)
    a = ((1 - RATE) * (1 + RATE * 1.7580993**2)) ** -0.5
    np.testing.assert_allclose(values[counts.argmax()], -a * 1.7580993 * (1 - RATE), rtol=1e-5)


def test_gaussian_dropout_has_the_moments_of_dropout():
    y = layers.gaussian_dropout(jax.random.key(0), jnp.full((N,), 2.0), RATE)
    expect_moments(y, 2.0, 4.0 * RATE / (1 - RATE))


def test_gaussian_noise_has_the_deviation_that_is_asked_for():
    y = layers.gaussian_noise(jax.random.key(0), jnp.full((N,), 2.0), 0.5)
    expect_moments(y, 2.0, 0.25)


@pytest.mark.sampled(4)
@drops
def test_rate_0_changes_nothing_and_rate_1_leaves_nothing(drop):
    x = jnp.asarray(normal(4, 3, 2))
    one, other = jax.random.key(0), jax.random.key(1)
    np.testing.assert_allclose(drop(one, x, 0.0), x, rtol=1e-6)  # alpha's scale rounds
    assert (drop(other, x, 1.0) == 0).all()


@pytest.mark.slow
def test_a_traced_rate_does_what_a_plain_one_does_with_finite_derivatives_also_at_its_ends():
    x = jnp.asarray(normal(4, 3, 2))

    def total(rate, x, drop):
        y = drop(jax.random.key(0), x, rate)
        return jnp.square(y).sum(), y

    @jax.jit
    def results(rate, x):
        slopes = jax.grad(total, argnums=(0, 1), has_aux=True)
        return {name: slopes(rate, x, drop) for name, drop in DROPS.items()}

    for dtype in (jnp.float32, jnp.bfloat16):
        for rate in (0.0, RATE, 1.0):
            for name, (grads, y) in results(jnp.asarray(rate, dtype), x.astype(dtype)).items():
                assert y.dtype == dtype, name
                assert all(jnp.isfinite(leaf).all() for leaf in (y, *grads)), (name, rate)
                if dtype == jnp.float32:  # XLA may fuse the scaling: a rounding or two
                    plain = DROPS[name](jax.random.key(0), x, rate)
                    np.testing.assert_allclose(y, plain, rtol=1e-6, atol=1e-7)


@drops
def test_float64_stays_float64(drop):
    with jax.enable_x64(True):
        x = jax.ShapeDtypeStruct((4, 3, 2), jnp.float64)
        y = jax.eval_shape(lambda key, x: drop(key, x, RATE), jax.random.key(0), x)
        assert y.dtype == jnp.float64


def test_stochastic_depth_adds_the_branch_to_some_examples_and_to_all_in_evaluation():
    model = nn.stochastic_depth(nn.linear(3), RATE)
    x = jnp.asarray(normal(200, 3))
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    branch = nn.linear(3).apply(params["branch"], (), x)[0]
    evaluated, _ = model.apply(params, state, x)
    np.testing.assert_allclose(evaluated, x + branch, rtol=1e-6)
    trained, _ = model.apply(params, state, x, key=jax.random.key(1), train=True)
    passed = np.isclose(trained, x).all(axis=1)
    np.testing.assert_allclose(trained[~passed], (x + branch / (1 - RATE))[~passed], rtol=1e-5)
    assert abs(passed.mean() - RATE) <= 4 * np.sqrt(RATE * (1 - RATE) / 200)


@drops
def test_a_rate_that_is_no_probability_is_refused(drop):
    for rate in (-0.1, 1.5):
        with pytest.raises(ValueError, match="expected rate in"):
            drop(jax.random.key(0), jnp.ones((2, 2)), rate)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="spatial_dropout: expected x of shape"):
        layers.spatial_dropout(jax.random.key(0), jnp.ones(3), 0.5)
    with pytest.raises(ValueError, match="gaussian_noise: expected std"):
        layers.gaussian_noise(jax.random.key(0), jnp.ones(3), -1.0)
    x = jnp.ones((2, 2))
    for branch, train, words in (
        (jnp.sin, True, "drop_path: expected a key"),
        (nn.linear(3), False, "residual: expected the layer to keep the shape"),
    ):
        model = nn.stochastic_depth(branch, 0.5)
        params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(partial(model.apply, train=train), params, state, x)
