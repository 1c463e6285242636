"""The gradient of a run in little memory: `checkpointed_scan`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, nn, optim, schedules
from fnn.nn import sequential
from fnn.recipe import Recipe
from fnn.train import checkpointed_scan, make_run
from tests.tiny import BATCH, DATA, EVERY, KEY, STEPS, assert_same_bits


def rotate(angle):
    """A scan with a carry of two leaves and outputs."""

    def f(carry, x):
        a, (b,) = carry
        a, b = jnp.cos(angle) * a - jnp.sin(angle) * b + x["in"], jnp.sin(angle) * a + b
        return (a, (b,)), {"out": a * b}

    return f


def through(scan, n: int):
    def total(angle, xs):
        carry, ys = scan(rotate(angle), (jnp.float32(1), (jnp.float32(0),)), {"in": xs})
        return carry[0] * 0.1 + ys["out"].sum(), (carry, ys)

    xs = jnp.asarray(np.random.default_rng(0).normal(size=n), jnp.float32)
    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(jnp.float32(0.05), xs)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("n", [0, 1, 3, 4, 7, 12, 13, 36])
def test_a_checkpointed_scan_is_the_scan_of_any_length(n):
    expected, got = through(jax.lax.scan, n), through(checkpointed_scan, n)
    # The same operations in the same order, but compiled apart: a few roundings of 6e-8 each step.
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_a_checkpointed_scan_needs_no_xs_and_carries_keys():
    def draw(key, _):
        key, use = jax.random.split(key)
        return key, jax.random.normal(use)

    for n in (5, 16):
        plain = jax.lax.scan(draw, jax.random.key(0), None, length=n)
        kept = checkpointed_scan(draw, jax.random.key(0), None, length=n)
        assert bool(plain[0] == kept[0])
        np.testing.assert_array_equal(plain[1], kept[1])


def small(hyper):
    """Noise, a state of the optimizer, and few operations: the compiler is what takes time here."""
    return Recipe(
        model=sequential(nn.dropout(hyper["rate"]), nn.linear(2)),
        loss=losses.cross_entropy,
        optimizer=optim.sgd(momentum=hyper["momentum"]),
        schedule=schedules.constant(hyper["lr"]),
    )


SMALL = {"lr": 0.05, "momentum": 0.8, "rate": 0.2}


def runs(steps):
    """The plain and the checkpointed run, with an evaluation after each leg of five steps."""
    sizes = dict(steps=steps, batch_size=BATCH, eval_every=EVERY)
    return [make_run(small, scan=scan, **sizes) for scan in (jax.lax.scan, checkpointed_scan)]


@pytest.mark.slow
def test_a_checkpointed_run_is_bit_equal_to_the_plain_one():
    plain, kept = (jax.jit(run)(KEY, SMALL, DATA) for run in runs(STEPS))  # a short last leg
    assert_same_bits(plain, kept)


@pytest.mark.slow
def test_a_checkpointed_run_has_the_gradients_of_the_plain_one():
    def slopes(run):
        final = lambda hyper: run(KEY, hyper, DATA)[1].valid["loss"].sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(final))(SMALL)

    # The gradient makes its steps again, with the same noise: what the check of keys is against.
    with jax.debug_key_reuse(False):
        expected, got = map(slopes, runs(4 * EVERY))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert a != 0
        np.testing.assert_allclose(b, a, rtol=1e-4)  # 20 steps of roundings, compiled apart


def wide(hyper):
    """A state of some kilobytes, beside which the record of the steps (20 bytes each) is small."""
    return Recipe(
        model=nn.linear(256),
        loss=losses.cross_entropy,
        optimizer=optim.sgd(momentum=0.9),
        schedule=schedules.constant(hyper["lr"]),
    )


def memory(steps: int, eval_every: int | None = None) -> int:
    """Bytes that the compiled gradient of a run needs beside its arguments and results."""
    sizes = dict(steps=steps, batch_size=BATCH, eval_every=eval_every)
    run = make_run(wide, scan=checkpointed_scan, **sizes)
    final = lambda hyper: run(KEY, hyper, DATA)[1].valid["loss"][-1]  # noqa: E731
    with jax.debug_key_reuse(False):
        program = jax.jit(jax.grad(final)).lower({"lr": jnp.float32(0.1)}).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_the_memory_of_a_gradient_grows_with_the_root_of_the_steps_and_of_the_evaluations():
    few, many, evaluated = memory(72), memory(288), memory(288, eval_every=12)
    # The root of 4 is 2. The plain scan grows 3.8 times here, from a level 4 times as high.
    assert many < 2.2 * few
    assert evaluated < 2.2 * few


@pytest.mark.slow
def test_the_gradient_by_a_rate_for_each_step_agrees_with_finite_differences_in_float64():
    with jax.enable_x64(True):
        data = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, DATA)

        def tabled(hyper):
            model = sequential(nn.linear(4), jnp.tanh, nn.linear(2))

            def init(key, x):
                params, state = model.init(key, jax.ShapeDtypeStruct(x.shape, jnp.float32))
                return jax.tree.map(lambda p: p.astype(jnp.float64), params), state

            return Recipe(
                model=model._replace(init=init),
                loss=losses.cross_entropy,
                optimizer=optim.sgd(momentum=0.9),
                schedule=lambda step: jnp.exp(hyper["log_lr"][step]),
            )

        run = make_run(tabled, steps=9, batch_size=16, scan=checkpointed_scan)
        final = lambda table: run(KEY, {"log_lr": table}, data)[1].valid["loss"][-1]  # noqa: E731
        both = jax.jit(jax.value_and_grad(final))
        table = jnp.linspace(-2.0, -4.0, 9, dtype=jnp.float64)
        slopes, h = both(table)[1], 1e-5
        for i in (0, 4, 8):
            up, down = (both(table.at[i].add(sign * h))[0] for sign in (1, -1))
            # Central differences err by h^2 times a third derivative, and by 1e-16 / h.
            np.testing.assert_allclose(slopes[i], (up - down) / (2 * h), rtol=1e-6, atol=1e-10)
        assert (jnp.abs(slopes) > 1e-8).all()
