"""Schedules against formulas in NumPy and their peers, at ends and joints."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn.schedules import (
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    cyclic_exponential,
    cyclic_halving,
    exponential_decay,
    inverse_sqrt,
    join,
    linear,
    multi_step,
    one_cycle,
    one_cycle_momentum,
    piecewise_constant,
    piecewise_cosine,
    piecewise_linear,
    polynomial,
    step_decay,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
    warmup_stable_sqrt_decay,
    with_warmup,
)
from tests import registry
from tests.test_registry import public_functions

gallery = importlib.import_module("experiments.schedule_gallery")

STEPS = np.arange(130)


def lrs(schedule, steps=STEPS):
    """The learning rates of many steps, from one compiled program."""
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32)))


def warmup_cosine_twin(t, peak, w, total, start=0.0, end=0.0):
    if t < w:
        return start + (peak - start) * t / w
    share = min((t - w) / (total - w), 1)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


def restarts_twin(t, start, length, growth, end):
    begin = 0
    while t >= begin + length:
        begin, length = begin + length, length * growth
    return end + (start - end) * (1 + math.cos(math.pi * (t - begin) / length)) / 2


def trapezoid_twin(t, peak, w, total, down, start, end, power):
    if t < w:
        return start + (peak - start) * t / w
    share = min(max((t - (total - down)) / down, 0), 1)
    return peak + (end - peak) * share**power


def triangle_twin(t, low, high, half):
    return low + (high - low) * (1 - abs(t % (2 * half) / half - 1))


COOLDOWN = dict(warmup_steps=11, total_steps=100, cooldown_steps=30, start=0.05, end=0.02)
TWINS = {
    "linear": (linear(0.8, total_steps=90, end=0.1), lambda t: 0.8 - 0.7 * min(t / 90, 1)),
    "polynomial": (
        polynomial(0.8, total_steps=90, power=3, end=0.1),
        lambda t: 0.1 + 0.7 * (1 - min(t / 90, 1)) ** 3,
    ),
    "polynomial of a root": (
        polynomial(0.1, total_steps=90, power=0.5, end=0.8),
        lambda t: 0.8 - 0.7 * math.sqrt(1 - min(t / 90, 1)),
    ),
    "step_decay": (step_decay(0.8, factor=0.7, every_steps=41), lambda t: 0.8 * 0.7 ** (t // 41)),
    "multi_step": (
        multi_step(0.8, factor=0.7, boundaries=[50, 20]),
        lambda t: 0.8 * 0.7 ** ((t >= 20) + (t >= 50)),
    ),
    "exponential_decay": (
        exponential_decay(0.8, factor=0.7, every_steps=7),
        lambda t: 0.8 * 0.7 ** (t / 7),
    ),
    "inverse_sqrt": (
        inverse_sqrt(0.8, warmup_steps=13),
        lambda t: 0.8 * min(t / 13, math.sqrt(13 / max(t, 1))),
    ),
    "cosine": (cosine(0.8, total_steps=90), lambda t: warmup_cosine_twin(t, 0.8, 0, 90)),
    "cosine_restarts": (
        cosine_restarts(0.8, first_steps=9, growth=2, end=0.1),
        lambda t: restarts_twin(t, 0.8, 9, 2, 0.1),
    ),
    "cosine_restarts with a broken growth": (
        cosine_restarts(0.8, first_steps=9, growth=1.3),
        lambda t: restarts_twin(t, 0.8, 9, 1.3, 0),
    ),
    "warmup_cosine": (
        warmup_cosine(0.8, warmup_steps=7, total_steps=40, start=0.1, end=0.05),
        lambda t: warmup_cosine_twin(t, 0.8, 7, 40, 0.1, 0.05),
    ),
    "warmup_linear": (
        warmup_linear(0.8, warmup_steps=7, total_steps=40, start=0.1, end=0.05),
        lambda t: trapezoid_twin(t, 0.8, 7, 40, 33, 0.1, 0.05, 1),
    ),
    "warmup_stable_decay": (
        warmup_stable_decay(0.8, **COOLDOWN),
        lambda t: trapezoid_twin(t, 0.8, 11, 100, 30, 0.05, 0.02, 1),
    ),
    "warmup_stable_sqrt_decay": (
        warmup_stable_sqrt_decay(0.8, **COOLDOWN),
        lambda t: trapezoid_twin(t, 0.8, 11, 100, 30, 0.05, 0.02, 0.5),
    ),
    "one_cycle": (
        one_cycle(0.8, total_steps=100, warmup_fraction=0.25),
        lambda t: warmup_cosine_twin(25 - t, 0.8, 0, 25, end=0.032)
        if t < 25
        else warmup_cosine_twin(t, 0.8, 25, 100, start=0.8, end=3.2e-6),
    ),
    "one_cycle_momentum": (
        one_cycle_momentum(total_steps=100, warmup_fraction=0.25),
        lambda t: warmup_cosine_twin(25 - t, 0.85, 0, 25, end=0.95)
        if t < 25
        else warmup_cosine_twin(t, 0.85, 25, 100, start=0.85, end=0.95),
    ),
    "cyclic": (cyclic(0.2, high=0.8, half_steps=7), lambda t: triangle_twin(t, 0.2, 0.8, 7)),
    "cyclic_halving": (
        cyclic_halving(0.2, high=0.8, half_steps=7),
        lambda t: 0.2 + 0.5 ** (t // 14) * (triangle_twin(t, 0.2, 0.8, 7) - 0.2),
    ),
    "cyclic_exponential": (
        cyclic_exponential(0.2, high=0.8, half_steps=7, factor=0.97),
        lambda t: 0.2 + 0.97**t * (triangle_twin(t, 0.2, 0.8, 7) - 0.2),
    ),
    "piecewise_constant": (
        piecewise_constant([0.8, 0.1, 0.5], boundaries=[20, 50]),
        lambda t: [0.8, 0.1, 0.5][(t >= 20) + (t >= 50)],
    ),
    "piecewise_linear": (
        piecewise_linear([0.1, 0.8, 0.8, 0.3], steps=[5, 20, 41, 100]),
        lambda t: np.interp(t, [5, 20, 41, 100], [0.1, 0.8, 0.8, 0.3]),
    ),
    "piecewise_cosine": (
        piecewise_cosine([0.1, 0.8], steps=[10, 100]),
        lambda t: warmup_cosine_twin(max(t - 10, 0), 0.1, 0, 90, end=0.8),
    ),
    "join": (
        join([constant(0.5), linear(0.8, total_steps=30)], boundaries=[40]),
        lambda t: 0.5 if t < 40 else 0.8 * (1 - min((t - 40) / 30, 1)),
    ),
    "with_warmup": (
        with_warmup(inverse_sqrt(0.8, warmup_steps=0), warmup_steps=9, start=0.2),
        lambda t: 0.2 - 0.2 * t / 9 if t < 9 else 0.8 / math.sqrt(max(t - 9, 1)) * (t > 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_every_step_is_the_formula(name):
    schedule, twin = TWINS[name]
    # A few float32 roundings of at most 6e-8 each; the powers take up to ten.
    np.testing.assert_allclose(lrs(schedule), [twin(int(t)) for t in STEPS], rtol=0, atol=8e-7)


PEERS = {
    "linear": (linear(0.8, total_steps=90, end=0.1), optax.linear_schedule(0.8, 0.1, 90)),
    "polynomial": (
        polynomial(0.8, total_steps=90, power=3, end=0.1),
        optax.polynomial_schedule(0.8, 0.1, 3, 90),
    ),
    "step_decay": (
        step_decay(0.8, factor=0.7, every_steps=10),
        optax.exponential_decay(0.8, 10, 0.7, staircase=True),
    ),
    "exponential_decay": (
        exponential_decay(0.8, factor=0.7, every_steps=10),
        optax.exponential_decay(0.8, 10, 0.7),
    ),
    "multi_step": (
        multi_step(0.8, factor=0.7, boundaries=[20, 50]),
        optax.piecewise_constant_schedule(0.8, {20: 0.7, 50: 0.7}),
    ),
    "cosine": (
        cosine(0.8, total_steps=90, end=0.2),
        optax.cosine_decay_schedule(0.8, 90, alpha=0.25),
    ),
    "warmup_cosine": (
        warmup_cosine(0.8, warmup_steps=7, total_steps=90, start=0.1, end=0.2),
        optax.warmup_cosine_decay_schedule(0.1, 0.8, 7, 90, 0.2),
    ),
    "cosine_restarts": (
        cosine_restarts(0.8, first_steps=20, growth=2),
        optax.sgdr_schedule(
            [
                dict(init_value=0.8, peak_value=0.8, warmup_steps=0, decay_steps=20 * 2**i)
                for i in range(3)
            ]
        ),
    ),
    "one_cycle": (
        one_cycle(0.8, total_steps=100),
        optax.cosine_onecycle_schedule(100, 0.8),
    ),
    "piecewise_linear": (
        piecewise_linear([0.1, 0.8, 0.4], steps=[0, 20, 100]),
        optax.piecewise_interpolate_schedule("linear", 0.1, {20: 8.0, 100: 0.5}),
    ),
    "with_warmup": (
        with_warmup(constant(0.8), warmup_steps=30, start=0.2),
        optax.warmup_constant_schedule(0.2, 0.8, 30),
    ),
    "join": (
        join([cosine(0.8, total_steps=50), constant(0.3)], boundaries=[30]),
        optax.join_schedules(
            [optax.cosine_decay_schedule(0.8, 50), optax.constant_schedule(0.3)], [30]
        ),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_every_step_is_that_of_optax(name):
    ours, theirs = PEERS[name]
    with jax.numpy_dtype_promotion("standard"):
        expected = lrs(theirs)
    np.testing.assert_allclose(lrs(ours), expected, rtol=0, atol=1e-6)


LENGTHS = [1, 3, 41, 47, 100, 999]  # 41 (1 / 41) and 47 (1 / 47) are below 1 in float32
ENDS = {
    "linear": lambda n: linear(0.3, total_steps=n, end=0.1),
    "polynomial": lambda n: polynomial(0.3, total_steps=n, power=2, end=0.1),
    "cosine": lambda n: cosine(0.3, total_steps=n, end=0.1),
    "warmup_cosine": lambda n: warmup_cosine(0.3, warmup_steps=0, total_steps=n, end=0.1),
    "warmup_linear": lambda n: warmup_linear(0.3, warmup_steps=0, total_steps=n, end=0.1),
    "warmup_stable_decay": lambda n: warmup_stable_decay(
        0.3, warmup_steps=0, total_steps=n, cooldown_steps=n, end=0.1
    ),
    "piecewise_linear": lambda n: piecewise_linear([0.3, 0.1], steps=[0, n]),
    "piecewise_cosine": lambda n: piecewise_cosine([0.3, 0.1], steps=[0, n]),
    "piecewise_constant": lambda n: piecewise_constant([0.3, 0.1], boundaries=[n]),
    "with_warmup": lambda n: with_warmup(constant(0.1), warmup_steps=n, start=0.3),
    "join": lambda n: join([constant(0.3), constant(0.1)], boundaries=[n]),
}  # fmt: skip


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", ENDS)
def test_both_ends_are_exact_for_every_length(name):
    for n in LENGTHS[:3]:
        ends = lrs(ENDS[name](n), [0, n, n + 1, 2**31 - 1])
        np.testing.assert_array_equal(ends, np.float32([0.3, 0.1, 0.1, 0.1]))


def test_a_peak_between_is_exact():
    peaks = [
        lrs(make(0.3, warmup_steps=41, total_steps=90, start=0.1, end=0.2), [0, 41, 90])
        for make in (warmup_cosine, warmup_linear)
    ]
    np.testing.assert_array_equal(peaks, np.float32([[0.1, 0.3, 0.2]] * 2))


PERIODS = {
    "step_decay": lambda n: step_decay(1.0, factor=0.5, every_steps=n),
    "cyclic": lambda n: cyclic(1.0, high=0.25, half_steps=n / 2),
    "cosine_restarts": lambda n: cosine_restarts(1.0, first_steps=n),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PERIODS)
@pytest.mark.parametrize("length", [3, 41, 47, 82])
def test_a_period_begins_with_its_step_for_every_length(name, length):
    periods = np.array([1, 2, 3, 50])
    begins = lrs(PERIODS[name](length), length * periods)
    before = lrs(PERIODS[name](length), length * periods - 1)
    if name == "step_decay":
        np.testing.assert_array_equal(begins, np.float32(0.5) ** periods)
        np.testing.assert_array_equal(before, 2 * begins)
    else:
        np.testing.assert_array_equal(begins, 1)
        assert (before < 1).all()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("growth", [1, 2, 3])
@pytest.mark.parametrize("first", [1, 10, 41, 1000])
def test_warm_restarts_are_where_the_lengths_add_up(first, growth):
    borders = np.cumsum([0, *(first * growth**i for i in range(7))])  # up to a million
    schedule = cosine_restarts(1.0, first_steps=first, growth=growth)
    np.testing.assert_array_equal(lrs(schedule, borders), 1)
    if first > 1:
        assert (lrs(schedule, borders[1:] - 1) < 0.03).all()


FALLING = {
    "linear": linear(0.8, total_steps=90, end=0.1),
    "polynomial": polynomial(0.8, total_steps=90, power=0.7, end=0.1),
    "exponential_decay": exponential_decay(0.8, factor=0.5, every_steps=30),
    "step_decay": step_decay(0.8, factor=0.5, every_steps=30),
    "cosine": cosine(0.8, total_steps=90, end=0.1),
    "inverse_sqrt": inverse_sqrt(0.8, warmup_steps=1),
    "warmup_stable_decay": warmup_stable_decay(
        0.8, warmup_steps=0, total_steps=100, cooldown_steps=50
    ),
    "warmup_stable_sqrt_decay": warmup_stable_sqrt_decay(
        0.8, warmup_steps=0, total_steps=100, cooldown_steps=50
    ),
}


@pytest.mark.parametrize("name", FALLING)
def test_a_falling_schedule_never_rises(name):
    values = lrs(FALLING[name])[1:]
    assert (np.diff(values) <= 6e-8).all() and values[-1] < values[0]  # a rounding of 0.8


SMOOTH = {  # the steepest slope of each
    "linear": (linear(0.8, total_steps=90), 0.8 / 90),
    "cosine": (cosine(0.8, total_steps=90), 0.4 * math.pi / 90),
    "warmup_cosine": (warmup_cosine(1.0, warmup_steps=10, total_steps=30), 0.1),
    "warmup_linear": (warmup_linear(1.0, warmup_steps=10, total_steps=30), 0.1),
    "inverse_sqrt": (inverse_sqrt(1.0, warmup_steps=10), 0.1),
    "warmup_stable_decay": (
        warmup_stable_decay(1.0, warmup_steps=10, total_steps=100, cooldown_steps=20),
        0.1,
    ),
    "one_cycle": (one_cycle(1.0, total_steps=100), math.pi / 2 / 30),
    "cyclic": (cyclic(0.0, high=1.0, half_steps=7), 1 / 7),
    "cyclic_halving": (cyclic_halving(0.0, high=1.0, half_steps=7), 1 / 7),
    "piecewise_linear": (piecewise_linear([0.1, 0.8, 0.4], steps=[5, 20, 100]), 0.7 / 15),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_there_is_no_jump(name):
    schedule, slope = SMOOTH[name]
    assert np.abs(np.diff(lrs(schedule))).max() <= slope + 1e-6


def test_the_sides_of_a_triangle_are_mirrored():
    half = lrs(cyclic(0.1, high=0.9, half_steps=9), np.arange(19))
    np.testing.assert_allclose(half, half[::-1], atol=1e-7)


def test_momentum_and_rate_of_one_cycle_turn_at_the_same_step():
    rate = lrs(one_cycle(1.0, total_steps=100, warmup_fraction=0.4))
    momentum = lrs(one_cycle_momentum(total_steps=100, warmup_fraction=0.4))
    assert rate.argmax() == momentum.argmin() == 40
    assert (np.sign(np.diff(rate[:41])) == -np.sign(np.diff(momentum[:41]))).all()


def test_a_staircase_stands_on_its_smooth_decay():
    arguments = dict(factor=0.5, every_steps=10)
    for step in (0, 10, 20, 30):
        stairs, slope = (f(1.0, **arguments)(step) for f in (step_decay, exponential_decay))
        assert stairs.item() == slope.item() == 0.5 ** (step // 10)
    assert step_decay(1.0, **arguments)(19) > exponential_decay(1.0, **arguments)(19)


def test_a_constant_does_not_change():
    assert constant(0.25)(0).item() == constant(0.25)(2**31 - 1).item() == 0.25


@pytest.mark.sampled(2)
@pytest.mark.parametrize("warmup", [0.0, 10.0])
def test_lengths_of_zero_have_finite_values_and_slopes(warmup):
    def lr(warmup, total):
        return warmup_cosine(1.0, warmup_steps=warmup, total_steps=total)(10)

    value, slopes = jax.value_and_grad(lr, argnums=(0, 1))(warmup, 10.0)
    assert all(map(jnp.isfinite, (value, *slopes)))


@pytest.mark.slow
def test_slopes_are_finite_at_the_ends_and_joints():
    def total(x, step):
        parts = [
            polynomial(1.0, total_steps=20 * x, power=0.5 * x),
            inverse_sqrt(1.0, warmup_steps=10 * x),
            cosine_restarts(1.0, first_steps=10 * x, growth=x),
            cosine_restarts(1.0, first_steps=10 * x, growth=2 * x),
            warmup_stable_sqrt_decay(
                1.0, warmup_steps=10 * x, total_steps=40 * x, cooldown_steps=20 * x
            ),
            one_cycle(1.0, total_steps=40 * x),
            cyclic_exponential(0.0, high=1.0, half_steps=10 * x, factor=x),
            piecewise_linear([1.0, 2.0, 3.0], steps=[0, 10 * x, 20 * x]),
        ]
        return sum(schedule(step) for schedule in parts)

    # Backwards, a choice cuts off what is infinite on its other side; forwards, it comes first.
    for slope in (jax.grad(total), jax.jacfwd(total)):
        steps = jnp.float32([0, 9, 10, 20, 40])
        assert jnp.isfinite(jax.jit(jax.vmap(slope, (None, 0)))(1.0, steps)).all()


def test_learning_rates_stay_float32_for_integer_arguments_and_steps():
    assert step_decay(1, factor=1, every_steps=1)(jnp.int32(3)).dtype == jnp.float32
    assert constant(1)(jnp.int32(3)).dtype == constant(jnp.bfloat16(1))(3).dtype == jnp.float32


@pytest.mark.slow
def test_float64_arguments_give_float64():
    with jax.enable_x64(True):
        for row in registry.SCHEDULES:
            double = row.make(**{name: jnp.float64(v) for name, v in row.scalars.items()})
            lr = double(jnp.int32(min(row.values)))
            assert lr.dtype == jnp.float64, row.name
            # The values of the rows are written with at least nine digits.
            np.testing.assert_allclose(lr, row.values[min(row.values)], atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: piecewise_constant([1.0, 2.0], boundaries=[1, 2]),
            "piecewise_constant: expected one boundary less than values, got 2 for 2 values",
        ),
        (
            lambda: join([constant(1.0)], boundaries=[5]),
            "join: expected one boundary less than schedules, got 1 for 1 schedules",
        ),
        (
            lambda: piecewise_linear([1.0], steps=[]),
            "piecewise_linear: expected as many values as steps, .* got 1 values and 0 steps",
        ),
        (lambda: piecewise_cosine([], steps=[]), "piecewise_cosine: expected .* at least one"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_point_alone_is_a_constant():
    np.testing.assert_array_equal(lrs(piecewise_linear([0.5], steps=[10])), 0.5)


def test_a_joined_schedule_never_sees_a_negative_step():
    schedule = join([constant(1.0), lambda t: 1 / jnp.sqrt(t + 1)], boundaries=[50])
    value, slope = jax.value_and_grad(lambda t: schedule(t))(3.0)
    assert value == 1 and slope == 0


@pytest.mark.slow
def test_the_gallery_shows_every_schedule():
    shown = {axes.get_title(loc="left").strip() for axes in gallery.draw().axes}
    assert shown == public_functions("schedules")
