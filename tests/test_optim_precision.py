"""Parameters of 16 bits: they move as they should, and those of 32 bits are left alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import checkpoint, optim, schedules, tree
from fnn.keys import run_keys
from fnn.optim.mixed_precision import _round_randomly
from fnn.recipe import Recipe
from fnn.train import make_init, make_run, make_step
from fnn.types import Data, Model, Objective
from tests.optim_runs import START, run, run_weights
from tests.tiny import KEY, assert_same_bits

part = functools.partial
WRAPPERS = {
    "master weights": optim.master_weights,
    "stochastic rounding": lambda inner: optim.stochastic_rounding(inner, jax.random.key(3)),
}


def matrix(dtype):
    """x times a matrix of 10,000 parameters from 0.25 to 1, with either sign."""

    def init(key, x):
        size, sign = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        size = jax.random.uniform(size, (100, 100), minval=0.25, maxval=1.0)
        return {
            "kernel": (size * jax.random.rademacher(sign, size.shape, size.dtype)).astype(dtype)
        }, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return x.astype(dtype) @ params["kernel"], model_state

    return Model(init, apply)


DATA = Data(
    **{
        name: (
            np.random.default_rng(i).normal(size=(8, 100)).astype(np.float32),
            np.zeros((8, 100)),
        )
        for i, name in enumerate(["train", "valid"])
    }
)


def error(predictions, targets):
    return jnp.square(predictions.astype(jnp.float32) - targets.astype(jnp.float32)).mean(axis=1)


@functools.cache
def kernels(wrapper, dtype=jnp.bfloat16):
    """Before and after 100 steps at lr 3e-4."""

    def recipe(hyper):
        optimizer = WRAPPERS[wrapper](optim.adam()) if wrapper else optim.adam()
        return Recipe(matrix(dtype), error, optimizer, schedules.constant(hyper["lr"]))

    hyper = {"lr": 3e-4}
    first = jax.jit(make_init(recipe))(run_keys(KEY).init, hyper, DATA.train[0])
    last, _ = jax.jit(make_run(recipe, steps=100, batch_size=8))(KEY, hyper, DATA)
    return [np.float32(state.params["kernel"]) for state in (first, last)]


@pytest.mark.slow
def test_without_help_no_parameter_of_16_bits_moves_at_a_usual_rate():
    before, after = kernels(None)
    assert (before != after).sum() == 0


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_with_help_nearly_all_of_them_move_and_by_as_much_as_in_float32(wrapper):
    before, after = kernels(wrapper)
    assert (before != after).mean() > 0.9
    single_before, single_after = kernels(None, jnp.float32)
    # Adam's hundred steps of 3e-4; two roundings of the same 16 bits are 0.004 apart at most.
    moved, expected = after - before, single_after - single_before
    np.testing.assert_allclose(np.abs(moved).mean(), np.abs(expected).mean(), rtol=0.1)
    assert np.corrcoef(moved.ravel(), expected.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_parameters_of_32_bits_are_bitwise_unchanged(wrap):
    np.testing.assert_array_equal(run(wrap(optim.adam())), run(optim.adam()))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_parameters_are_bitwise_the_rounded_master(dtype):
    start = jnp.asarray(START, dtype)
    path, weights, state = run_weights(optim.master_weights(optim.adam()), start=start, lr=3e-4)
    single = run(optim.adam(), start=start.astype(jnp.float32), lr=3e-4)
    np.testing.assert_array_equal(path, single.astype(path.dtype))
    np.testing.assert_array_equal(weights, path)
    np.testing.assert_array_equal(state.master["w"], single[-1])


def test_wide_and_narrow_leaves_mix_and_fill_a_checkpoint(tmp_path):
    params = {"narrow": jnp.ones(3, jnp.bfloat16), "wide": jnp.ones(3)}
    optimizer = optim.master_weights(optim.ema(optim.adam(), decay=0.5))
    state = optimizer.init(params)
    assert state.master["wide"] is None
    updates, state = optimizer.update(params, state, params, 0.1)
    checkpoint.save(tmp_path / "a.safetensors", state)
    assert_same_bits(checkpoint.load(tmp_path / "a.safetensors", state)[0], state)
    weights = optimizer.weights(state, tree.add(params, updates))
    assert (weights["narrow"].dtype, weights["wide"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.float32(weights["narrow"]), 0.9, rtol=2**-8)
    np.testing.assert_allclose(weights["wide"], 0.9, rtol=1e-6)


def test_a_search_among_masters_sees_the_rounded_model():
    seen = []

    def at(params):
        seen.append(params["w"].dtype)
        return params["w"].astype(jnp.float32).sum(), jax.tree.map(jnp.ones_like, params)

    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = optim.master_weights(optim.sam(optim.sgd()))
    optimizer.update(params, optimizer.init(params), params, 0.1, Objective(jnp.ones(()), at))
    assert seen == [jnp.bfloat16]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("x", [1.001, -3.3e-3, 0.0, 2.5, 1e-6, -200.3])
def test_stochastic_rounding_takes_a_neighbor_and_is_unbiased(dtype, x):
    n = 4096
    chance = (jnp.arange(n, dtype=jnp.float32) + 0.5) / n  # every chance the same number of times
    rounded = np.asarray(_round_randomly(jnp.full(n, x, jnp.float32), dtype, chance), np.float64)
    np.testing.assert_array_equal(rounded, np.asarray(jnp.asarray(rounded, dtype), np.float64))
    exact = float(np.float32(x))
    gap = rounded.max() - rounded.min()
    assert gap <= max(abs(exact) * 2.0 ** -jnp.finfo(dtype).nmant, 2.0**-24)
    assert rounded.min() <= exact <= rounded.max()
    assert abs(rounded.mean() - exact) <= gap / n


def test_stochastic_rounding_keeps_non_finite_values_and_the_derivative():
    strange = jnp.array([jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(_round_randomly(strange, jnp.bfloat16, jnp.zeros(3)), strange)
    slope = jax.grad(lambda x: _round_randomly(x, jnp.bfloat16, jnp.float32(0.3)))(1.001)
    assert slope == 1


@pytest.mark.slow
def test_the_draws_differ_by_step_and_by_leaf():
    ones = jnp.ones(64, jnp.bfloat16)
    params = {"a": ones, "b": ones}
    optimizer = WRAPPERS["stochastic rounding"](optim.sgd())
    first, state = optimizer.update(params, optimizer.init(params), params, 2e-3)
    second, _ = optimizer.update(params, state, params, 2e-3)
    again, _ = optimizer.update(params, optimizer.init(params), params, 2e-3)
    assert_same_bits(first, again)
    assert (first["a"] != first["b"]).any()
    assert (first["a"] != second["a"]).any()


def test_narrow_training_may_be_swept_over_rates_and_draws():
    start = {"w": jnp.asarray(START, jnp.bfloat16)}
    grads = {"w": jnp.asarray(START)}

    def trained(lr, key):
        optimizer = optim.master_weights(optim.stochastic_rounding(optim.adam(), key))
        other = optim.stochastic_rounding(optim.adam(), key)
        return [
            tree.add(start, o.update(grads, o.init(start), start, lr)[0])
            for o in (optimizer, other)
        ]

    rates, keys = jnp.array([0.01, 0.02]), jax.random.split(jax.random.key(5), 2)
    swept = jax.jit(jax.vmap(trained))(rates, keys)
    for i in range(2):
        assert_same_bits(
            jax.tree.map(lambda leaf, i=i: leaf[i].astype(jnp.float32), swept),
            jax.tree.map(
                lambda leaf: leaf.astype(jnp.float32), jax.jit(trained)(rates[i], keys[i])
            ),
        )


@pytest.mark.slow
def test_the_gradient_through_narrow_training_is_that_of_wide_training():
    def last(lr, wrap, dtype):
        params = {"w": jnp.asarray(START, dtype)}
        optimizer = wrap(optim.sgd())
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update({"w": jnp.asarray(START)}, state, params, lr)
            params = tree.add(params, updates)
        return params["w"].astype(jnp.float32).sum()

    expected = jax.grad(last)(0.1, lambda inner: inner, jnp.float32)
    for wrap in WRAPPERS.values():
        np.testing.assert_allclose(jax.grad(last)(0.1, wrap, jnp.bfloat16), expected, rtol=1e-6)


# Loss scaling, in a step of training.

HALF = jnp.float16
TINY = 3e-4  # inputs of this size give gradients of 4e-9, where float16 ends at 6e-8


def half_recipe(make, dtype=HALF):
    def recipe(hyper):
        return Recipe(matrix(dtype), error, make(), schedules.constant(hyper["lr"]))

    return recipe


MEASURED = ("loss", "lr", "grad_norm", "update_norm", "param_norm")


def steps_of(recipe, n, lr):
    x = jnp.asarray(TINY * DATA.train[0])
    batch = (x, jnp.zeros((8, 100)))
    state, step = (
        jax.jit(make_init(recipe))(KEY, {"lr": lr}, x),
        jax.jit(make_step(recipe), donate_argnums=0),
    )
    path, rows = [np.asarray(state.params["kernel"], np.float64)], []
    for _ in range(n):
        state, metrics = step(state, batch, KEY, {"lr": lr})
        path.append(np.asarray(state.params["kernel"], np.float64))
        rows.append([metrics[name] for name in MEASURED])
    return path, np.array(rows), state


def scaled(make, **options):
    return lambda: optim.dynamic_loss_scale(make(), **options)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [optim.sgd, lambda: optim.sam(optim.sgd(), rho=1e-3)])
def test_a_scaled_loss_gives_float16_the_gradient_that_it_loses_without(make):
    single, expected, _ = steps_of(half_recipe(make, jnp.float32), 1, lr=1e7)
    plain, lost, _ = steps_of(half_recipe(make), 1, lr=1e7)
    found, metrics, _ = steps_of(half_recipe(scaled(make)), 1, lr=1e7)
    np.testing.assert_array_equal(plain[0], plain[1])
    assert lost[0, 2] == 0
    # Inputs and parameters are rounded to 11 bits, and the scaled gradient to 2^-24 of 1e-4.
    np.testing.assert_allclose(metrics[0, :3], expected[0, :3], rtol=2e-3)
    moved, wanted = found[1] - found[0], single[1] - single[0]
    assert np.corrcoef(moved.ravel(), wanted.ravel())[0, 1] > 0.99


def test_a_scale_that_overflows_skips_the_step_and_comes_down():
    make = scaled(lambda: optim.master_weights(optim.adam()), start=2.0**60)
    path, metrics, state = steps_of(half_recipe(make), 45, lr=1e-3)
    skipped = [t for t in range(45) if (path[t] == path[t + 1]).all()]
    assert 2 < len(skipped) < 45
    assert skipped == list(range(len(skipped)))
    assert np.isfinite(metrics[:, 0]).all()  # the loss is reported as it is
    assert not np.isfinite(metrics[skipped, 2]).any()
    assert np.isfinite(metrics[len(skipped) :]).all()
    assert np.isfinite(path[-1]).all()


def test_a_scale_changes_nothing_where_nothing_is_lost():
    path, metrics, _ = steps_of(half_recipe(optim.adam, jnp.float32), 3, lr=1e-3)
    other, same, _ = steps_of(half_recipe(scaled(optim.adam), jnp.float32), 3, lr=1e-3)
    np.testing.assert_allclose(other[-1], path[-1], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(same, metrics, rtol=1e-5)
