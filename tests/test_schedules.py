"""Schedules at worked steps, at their ends and joints, and where an argument is zero."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.schedules import constant, cosine, exponential_decay, step_decay, warmup_cosine


def warmup_cosine_twin(t, peak, w, total, start=0.0, end=0.0):
    if t < w:
        return start + (peak - start) * t / w
    share = min((t - w) / (total - w), 1)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("step", "lr"),
    # t/10 on the way up, then (1 + cos(pi (t - 10) / 90)) / 2.
    [(0, 0.0), (5, 0.5), (10, 1.0), (50, 0.586824), (99, 0.000305), (100, 0.0)],
)
def test_warm_up_and_cosine_at_worked_steps(step, lr):
    schedule = warmup_cosine(1.0, warmup_steps=10, total_steps=100)
    assert math.isclose(schedule(step), lr, abs_tol=1e-6)
    assert math.isclose(lr, warmup_cosine_twin(step, 1.0, 10, 100), abs_tol=1e-6)


@pytest.mark.parametrize(
    ("step", "lr"), [(0, 1.0), (10, 0.975528), (50, 0.5), (99, 0.000247), (100, 0.0)]
)
def test_a_cosine_at_worked_steps(step, lr):
    assert math.isclose(cosine(1.0, total_steps=100)(step), lr, abs_tol=1e-6)


def test_every_step_of_warm_up_and_cosine_is_the_formula():
    arguments = dict(start=0.1, end=0.05)
    got = jax.vmap(warmup_cosine(0.8, warmup_steps=7, total_steps=40, **arguments))(jnp.arange(45))
    twin = [warmup_cosine_twin(t, 0.8, 7, 40, **arguments) for t in range(45)]
    np.testing.assert_allclose(got, twin, atol=1e-6)


def test_the_ends_are_exact():
    schedule = warmup_cosine(0.3, warmup_steps=10, total_steps=100, start=0.1, end=0.2)
    ends = [schedule(step).item() for step in (0, 10, 100, 2**31 - 1)]
    assert ends == [np.float32(lr).item() for lr in (0.1, 0.3, 0.2, 0.2)]


def test_there_is_no_jump_where_the_warm_up_ends():
    lrs = jax.vmap(warmup_cosine(1.0, warmup_steps=10, total_steps=30))(jnp.arange(40))
    assert jnp.abs(jnp.diff(lrs)).max() < 0.11  # the slope of the warm-up is 0.1
    assert (jnp.diff(lrs[:11]) > 0).all()
    assert (jnp.diff(lrs[10:]) <= 0).all()


def test_a_staircase_stands_on_its_smooth_decay():
    arguments = dict(factor=0.5, every_steps=10)
    for step in (0, 10, 20, 30):
        stairs, slope = (f(1.0, **arguments)(step) for f in (step_decay, exponential_decay))
        assert stairs.item() == slope.item() == 0.5 ** (step // 10)
    assert step_decay(1.0, **arguments)(19) > exponential_decay(1.0, **arguments)(19)


def test_a_constant_does_not_change():
    assert constant(0.25)(0).item() == constant(0.25)(2**31 - 1).item() == 0.25


@pytest.mark.parametrize("warmup", [0.0, 10.0])
def test_lengths_of_zero_have_finite_values_and_slopes(warmup):
    def lr(warmup, total):
        return warmup_cosine(1.0, warmup_steps=warmup, total_steps=total)(10)

    value, slopes = jax.value_and_grad(lr, argnums=(0, 1))(warmup, 10.0)
    assert all(map(jnp.isfinite, (value, *slopes)))


def test_learning_rates_stay_float32_for_integer_arguments_and_steps():
    assert step_decay(1, factor=1, every_steps=1)(jnp.int32(3)).dtype == jnp.float32
