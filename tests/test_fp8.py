"""Products in 8 bits: values, gradients, forward mode, histories, whole trainings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules, tree
from fnn.layers.fp8 import BACKWARD, FORWARD, product
from fnn.recipe import Recipe
from fnn.train import make_init, make_step, microbatches, private_gradient

KEY = jax.random.key(0)
X = 3 * jax.random.normal(KEY, (6, 16))
KERNEL = jax.random.normal(jax.random.key(1), (16, 8)) / 4
GRAD = 1e-6 * jax.random.normal(jax.random.key(2), (6, 8))


def rounded(a, dtype, magnitude=None):
    """The twin of a quantized array, in float64 NumPy."""
    most = float(jnp.finfo(dtype).max)
    scale = 2.0 ** np.floor(np.log2(most / (np.abs(a).max() if magnitude is None else magnitude)))
    scaled = np.clip(np.asarray(a, np.float32) * np.float32(scale), -most, most)
    return np.asarray(jnp.asarray(scaled).astype(dtype), np.float64) / scale


def current(x, kernel):
    return product({"kernel": kernel, "fp8": {}}, x, kernel)


def test_a_product_is_that_of_the_rounded_arrays():
    wanted = rounded(X, FORWARD) @ rounded(KERNEL, FORWARD)
    np.testing.assert_allclose(current(X, KERNEL), wanted, rtol=1e-6, atol=1e-6)


def test_gradients_are_products_of_rounded_arrays():
    _, back = jax.vjp(current, X, KERNEL)
    x, kernel, g = rounded(X, FORWARD), rounded(KERNEL, FORWARD), rounded(GRAD, BACKWARD)
    for found, wanted in zip(back(GRAD), (g @ kernel.T, x.T @ g), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-12)


def test_forward_mode_is_the_tangent_at_the_rounded_arrays():
    moved = jax.jvp(current, (X, KERNEL), (X, KERNEL))[1]
    x, kernel = rounded(X, FORWARD), rounded(KERNEL, FORWARD)
    np.testing.assert_allclose(moved, X @ kernel + x @ KERNEL, rtol=1e-4, atol=1e-4)


def test_a_product_near_float32():
    exact = X @ KERNEL
    error = jnp.linalg.norm(current(X, KERNEL) - exact) / jnp.linalg.norm(exact)
    assert 1e-3 < error < 0.05  # 3 bits of mantissa


def test_a_history_sets_the_scale_and_saturates():
    history = jnp.zeros((3, 4)).at[:2, 1].set(1.0)
    found = product({"kernel": KERNEL, "fp8": history}, X, KERNEL)
    wanted = rounded(X, FORWARD, 1.0) @ rounded(KERNEL, FORWARD, 1.0)
    assert np.abs(rounded(X, FORWARD, 1.0)).max() <= 448 / 256
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_the_cotangent_of_a_history_holds_magnitudes_and_counts():
    def total(history):
        return (product({"kernel": KERNEL, "fp8": history}, X, KERNEL) * GRAD).sum()

    noted = jax.grad(total)(jnp.ones((3, 4)))
    wanted = [jnp.abs(a).max() for a in (X, KERNEL, GRAD)]
    np.testing.assert_allclose(noted[:, 0], wanted)
    assert noted[:, 1].tolist() == [1, 1, 1] and not noted[:, 2:].any()


def test_infinities_become_nan_rather_than_the_largest_value():
    y = current(X.at[0, 0].set(jnp.inf), KERNEL)
    assert jnp.isnan(y[0]).all() and jnp.isfinite(y[1:]).all()


def test_zeros_and_tiny_values_keep_their_precision():
    assert not current(jnp.zeros_like(X), KERNEL).any()
    np.testing.assert_allclose(2.0**100 * current(2.0**-100 * X, KERNEL), current(X, KERNEL))


def test_vmap_is_a_loop():
    x = jax.random.normal(KEY, (3, 6, 16))
    looped = jnp.stack([current(a, KERNEL) for a in x])
    np.testing.assert_array_equal(jax.vmap(lambda a: current(a, KERNEL))(x), looped)


TOKENS = jax.random.randint(KEY, (8, 17), 0, 16).at[:, ::2].set(7)
BATCH = TOKENS[:, :-1], TOKENS[:, 1:]
DIGITS = X[:, :4], jnp.arange(6) % 3


def gpt(layers=2):
    config = models.gpt.gpt2(
        vocab_size=16, max_length=16, features=16, num_layers=layers, num_heads=2, scan=True
    )
    return models.gpt.gpt(config)


def mlp():
    return nn.sequential(nn.linear(16), jnp.tanh, nn.linear(3))


def trained(model, change, batch=DIGITS, steps=1, **fields):
    def recipe(hyper):
        schedule = schedules.constant(hyper["lr"])
        return change(Recipe(model, losses.cross_entropy, optim.adam(), schedule, **fields))

    hyper = {"lr": jnp.float32(3e-3)}
    state = jax.jit(make_init(recipe))(KEY, hyper, batch[0])
    step = jax.jit(make_step(recipe))
    for _ in range(steps):
        state, metrics = step(state, batch, KEY, hyper)
    return state, float(metrics["loss"])


delayed = functools.partial(nn.fp8, scaling="delayed")


def test_a_training_follows_that_in_float32():
    _, wanted = trained(gpt(), lambda r: r, BATCH, 60)
    state, found = trained(gpt(), lambda r: delayed(nn.mixed_bfloat16(r), history=4), BATCH, 60)
    assert wanted < 2.0 and abs(found - wanted) < 0.1 * wanted
    # Each layer of a stack has its own.
    history = state.model_state["fp8"]["blocks/mlp/up"]
    assert history.shape == (2, 3, 4) and (history > 0).all()
    assert not jnp.array_equal(history[0], history[1])


@pytest.mark.parametrize("change", [nn.fp8, delayed])
def test_a_small_training_follows_that_in_float32(change):
    _, wanted = trained(mlp(), lambda r: r, steps=200)
    _, found = trained(mlp(), change, steps=200)
    assert wanted < 0.3 and abs(found - wanted) < 0.1 * wanted + 0.01


def test_parts_of_a_batch_average_their_magnitudes():
    whole, _ = trained(mlp(), delayed)
    parts, _ = trained(mlp(), delayed, gradient=microbatches(2))
    for a, b in zip(*(jax.tree.leaves(s.model_state) for s in (whole, parts)), strict=True):
        np.testing.assert_allclose(b[:2, 0], a[:2, 0], rtol=0.5)
        assert (b[:2, 0] <= a[:2, 0] + 1e-6).all() and not b[:, 1:].any()


def test_evaluation_keeps_the_histories():
    state, _ = trained(mlp(), delayed)
    model = delayed(plain(mlp())).model
    _, after = model.apply(state.params, state.model_state, DIGITS[0])
    assert jax.tree.all(jax.tree.map(jnp.array_equal, after, state.model_state))
    assert all((history[:, 0] > 0).all() for history in state.model_state["fp8"].values())


def test_current_scaling_keeps_the_state_of_the_model():
    state, _ = trained(mlp(), nn.fp8)
    assert state.model_state == nn.sequential(nn.linear(1)).init(KEY, DIGITS[0])[1] * 3


def test_a_mask_chooses_the_kernels():
    change = functools.partial(delayed, mask=tree.matching("0/kernel"))
    _, state = change(plain(mlp())).model.init(KEY, DIGITS[0])
    assert list(state["fp8"]) == ["0"]


def plain(model):
    return Recipe(model, losses.cross_entropy, optim.sgd(), schedules.constant(0.1))


def test_bad_arguments_say_what_to_do():
    linear = plain(nn.linear(2))
    with pytest.raises(ValueError, match="to be one of current, delayed, got 'delay'"):
        nn.fp8(linear, "delay")
    with pytest.raises(ValueError, match="expected a history of at least 2 steps, got 1"):
        nn.fp8(linear, "delayed", history=1)
    with pytest.raises(ValueError, match="private_gradient"):
        nn.fp8(linear._replace(gradient=private_gradient(1.0, 1.0)), "delayed")
    with pytest.raises(ValueError, match="expected a model with linear layers or attention"):
        nn.fp8(plain(nn.conv(2, (3, 3))), "delayed").model.init(KEY, jnp.zeros((1, 4, 4, 1)))
