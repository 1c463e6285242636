"""Layer and batch normalization: where sums cancel, and where the derivative is written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import nn
from fnn.activations import gelu, gelu_tanh, mish, silu
from fnn.layers import batch_norm, batch_norm_init, layer_norm, layer_norm_init
from tests.registry.rows import normal


def layer_norm_twin(x, scale, bias, eps):
    x = np.asarray(x, np.float64)
    centered = x - x.mean(axis=-1, keepdims=True)
    normalized = centered / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return normalized * np.asarray(scale) + np.asarray(bias)


def batch_norm_twin(x, mean, var, scale, bias, eps):
    mean, var, scale, bias = (np.asarray(v, np.float64) for v in (mean, var, scale, bias))
    return (x - mean) / np.sqrt(var + eps) * scale + bias


def some_params(features):
    scale, bias = normal(features, seed=1), normal(features, seed=2)
    return {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}


def moments_twin(x):
    flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return flat.mean(axis=0), flat.var(axis=0)


def expect_layer_norm(norm, mean):
    # A variance of E[x^2] - E[x]^2 has an error of 3000 at mean 1e4.
    x = (normal(4, 32) + mean).astype(np.float32)
    params = some_params(32)
    twin = layer_norm_twin(x, params["scale"], params["bias"], 1e-6)
    np.testing.assert_allclose(norm(params, jnp.asarray(x)), twin, atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mean", [0.0, 1e4, -1e6])
def test_layer_norm_is_its_formula_also_where_the_mean_is_large(mean):
    expect_layer_norm(layer_norm, mean)


def test_layer_norm_makes_mean_0_and_variance_1():
    y = np.asarray(layer_norm(layer_norm_init(64), jnp.asarray(normal(5, 64))), np.float64)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=-1), 1, atol=1e-5)  # eps takes 1e-6 from it


def test_layer_norm_does_not_see_the_scale_and_shift_of_its_input():
    x = jnp.asarray(normal(3, 16))
    params = some_params(16)
    np.testing.assert_allclose(
        layer_norm(params, 3 * x + 5, eps=0.0), layer_norm(params, x, eps=0.0), atol=5e-6
    )


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("value", [0.0, 7.3, 1e4])
def test_a_constant_row_gives_the_bias_and_finite_slopes(value):
    params, x = some_params(7), jnp.full((2, 7), value)
    y, slopes = jax.value_and_grad(
        lambda params, x: jnp.square(layer_norm(params, x)).sum(), argnums=(0, 1)
    )(params, x)
    assert jnp.isclose(y, 2 * jnp.square(params["bias"]).sum(), rtol=1e-6)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))


def plain_layer_norm(x, eps):
    """The same maths, with the derivative left to JAX."""
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered / jnp.sqrt(jnp.square(centered).mean(axis=-1, keepdims=True) + eps)


def weighted(norm):
    """A function of x and eps whose derivatives are not zero by symmetry."""
    weights = np.random.default_rng(3).normal(size=(3, 6))

    def total(x, eps):
        return (jnp.asarray(weights, x.dtype) * jnp.sin(norm(x, eps))).sum()

    return total


def by_layer_norm(x, eps):
    return layer_norm({}, x, eps=eps)


# All in float64: the two differ by roundings of 1e-16, some of them multiplied.
@pytest.mark.slow
def test_the_derivative_by_hand_is_the_derivative():
    with jax.enable_x64(True):
        x, eps = jnp.asarray(normal(3, 6), jnp.float64), jnp.float64(0.1)
        by_hand = jax.grad(weighted(by_layer_norm), argnums=(0, 1))(x, eps)
        plain = jax.grad(weighted(plain_layer_norm), argnums=(0, 1))(x, eps)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), by_hand, plain)


@pytest.mark.slow
def test_the_second_derivative_is_right_too():
    with jax.enable_x64(True):
        x, v = (jnp.asarray(normal(3, 6, seed=seed), jnp.float64) for seed in (0, 1))

        def twice(norm):
            slope = jax.grad(weighted(norm))
            return jax.grad(lambda x: jnp.vdot(slope(x, jnp.float64(0.1)), v))(x)

        np.testing.assert_allclose(twice(by_layer_norm), twice(plain_layer_norm), rtol=1e-9)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 3)])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_batch_norm_is_its_formula_in_training(shape, mean):
    x = (normal(*shape) + mean).astype(np.float32)
    params, state = some_params(3), batch_norm_init(3)[1]
    y, state = batch_norm(params, state, jnp.asarray(x), train=True, decay=0.9)
    m, v = moments_twin(x)
    twin = batch_norm_twin(x, m, v, params["scale"], params["bias"], 1e-5)
    np.testing.assert_allclose(y, twin, atol=1e-5)
    np.testing.assert_allclose(state["mean"], 0.1 * m, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(state["var"], 0.9 + 0.1 * v, rtol=1e-6)


def test_batch_norm_is_its_formula_in_evaluation():
    x, params = normal(4, 3), some_params(3)
    state = {"mean": jnp.array([1.0, -2.0, 0.5]), "var": jnp.array([4.0, 0.25, 1.0])}
    y, after = batch_norm(params, state, jnp.asarray(x), train=False)
    twin = batch_norm_twin(x, state["mean"], state["var"], params["scale"], params["bias"], 1e-5)
    np.testing.assert_allclose(y, twin, rtol=1e-5, atol=1e-6)
    assert after is state


def test_training_and_evaluation_agree_where_the_running_statistics_are_the_batch():
    x, params = jnp.asarray(normal(8, 3)), some_params(3)
    trained, state = batch_norm(params, batch_norm_init(3)[1], x, train=True, decay=0.0)
    np.testing.assert_allclose(
        trained, batch_norm(params, state, x, train=False)[0], rtol=1e-5, atol=1e-6
    )


def test_running_statistics_come_to_those_of_a_repeated_batch():
    x = jnp.asarray(2 * normal(16, 3) + 5)
    params, state = batch_norm_init(3)
    step = jax.jit(lambda state: batch_norm(params, state, x, train=True, decay=0.8)[1])
    for _ in range(100):  # 0.8^100 is 2e-10
        state = step(state)
    for got, twin in zip((state["mean"], state["var"]), moments_twin(x), strict=True):
        np.testing.assert_allclose(got, twin, rtol=1e-5)


def test_a_constant_feature_gives_the_bias():
    params, state = some_params(2), batch_norm_init(2)[1]
    y, _ = batch_norm(params, state, jnp.full((4, 2), 1e4), train=True)
    np.testing.assert_allclose(y, np.tile(params["bias"], (4, 1)), atol=1e-6)


def test_the_permuted_batch_has_the_same_statistics():
    x = jnp.asarray(normal(7, 3))
    params, state = batch_norm_init(3)
    one, other = (batch_norm(params, state, b, train=True)[1] for b in (x, x[::-1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one, other)


def test_batch_norm_keeps_its_statistics_in_float32():
    params, state = batch_norm_init(2)
    y, state = batch_norm(params, state, jnp.ones((3, 2), jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in state.values()} == {"float32"}


def test_decay_and_eps_may_be_traced():
    x = jnp.asarray(normal(4, 3))
    params, state = batch_norm_init(3)

    def variance(decay, eps):
        y, new = batch_norm(params, state, x, train=True, decay=decay, eps=eps)
        return new["var"].sum() + jnp.square(y).sum()

    slopes = jax.jit(jax.grad(variance, argnums=(0, 1)))(jnp.float32(0.9), jnp.float32(1e-3))
    assert all(jnp.isfinite(slope) and slope != 0 for slope in slopes)


@pytest.mark.parametrize("shape", [(2, 4), (3,)])
def test_the_wrong_features_are_refused(shape):
    with pytest.raises(ValueError, match=r"layer_norm: expected x of shape \(batch, ..., 3\)"):
        layer_norm(layer_norm_init(3), jnp.zeros(shape))
    if len(shape) > 1:
        params, state = batch_norm_init(3)
        with pytest.raises(ValueError, match=r"batch_norm: expected x of shape \(batch, ..., 3\)"):
            batch_norm(params, state, jnp.zeros(shape), train=True)


@pytest.mark.parametrize("model", [nn.layer_norm(), nn.batch_norm(), nn.linear(2)])
def test_a_model_refuses_an_input_without_a_batch_axis(model):
    with pytest.raises(ValueError, match="put the batch first"):
        model.init(jax.random.key(0), jnp.zeros(3))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "batch_norm"])
def test_a_norm_of_16_bits_saves_no_array_of_32(name):
    x = jnp.ones((4, 6, 8), jnp.bfloat16)
    model = nn.group_norm(2) if name == "group_norm" else getattr(nn, name)()
    params, state = model.init(jax.random.key(0), x)

    def apply(params, x):
        return model.apply(params, state, x, train=True)[0]

    residuals = jax.tree.leaves(jax.eval_shape(lambda p, x: jax.vjp(apply, p, x)[1], params, x))
    large = [r for r in residuals if r.size >= x.size]
    assert large and all(r.dtype == jnp.bfloat16 for r in large)


def test_an_activation_saves_its_slope_alone():
    x = jnp.ones((4, 6))
    for activation in (gelu, gelu_tanh, silu, mish):
        _, back = jax.vjp(activation, x)
        assert sum(r.size >= x.size for r in jax.tree.leaves(back)) == 1
