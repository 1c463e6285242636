"""Schedule-free, Prodigy and D-Adaptation against float64 twins and Optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from tests.optim_runs import GRADS, LR, START, expect_path, run, run_weights

part = functools.partial
# The first rate is 0, and the last ones are lower than the largest.
WARMUP = np.float32(np.minimum(np.minimum(np.arange(50) / 10, 1), 2 - np.arange(50) / 30) * LR)
# A convex problem whose solution is at a distance, for what measures it. It starts at 0, since
# float32 resolves the first steps of a millionth there, and not where the parameters are 1.
TARGET, CURVATURE = START, np.float32([0.5, 1.0, 2.0, 0.1])
SHIFTS, ORIGIN = 0.1 * GRADS, np.zeros(4, np.float32)


def named(name):
    return getattr(optim, name, None) or getattr(optim.contrib, name)


def second_moment(b2=0.999, eps=1e-8):
    memory = {"v": 0, "t": 0}

    def direction(g):
        memory["t"] += 1
        memory["v"] = b2 * memory["v"] + (1 - b2) * g**2
        return g / (np.sqrt(memory["v"] / (1 - b2 ** memory["t"])) + eps)

    return direction


def schedule_free_twin(direction=None, beta=0.9, decay=0.0, power=2.0, rates=WARMUP):
    direction = direction() if direction else lambda g: g
    x = y = z = START.astype(np.float64)
    largest = total = 0.0
    for g, rate in zip(GRADS.astype(np.float64), rates.astype(np.float64), strict=True):
        z = z - rate * (direction(g) + decay * y)
        largest = max(largest, rate)
        total += largest**power
        c = largest**power / total if total else 0.0
        x = (1 - c) * x + c * z
        y = (1 - beta) * z + beta * x
        yield y, x


FREE = {
    "sgd": (optim.schedule_free_sgd(), schedule_free_twin),
    "sgd with decay": (
        optim.schedule_free_sgd(beta=0.6, weight_decay=0.3, lr_power=1.0),
        part(schedule_free_twin, beta=0.6, decay=0.3, power=1.0),
    ),
    "adamw": (
        optim.schedule_free_adamw(weight_decay=0.1),
        part(schedule_free_twin, second_moment, decay=0.1),
    ),
    "adamw 0.98": (
        optim.schedule_free_adamw(beta=0.98, b2=0.9, eps=0.1),
        part(schedule_free_twin, part(second_moment, 0.9, 0.1), beta=0.98),
    ),
}


@pytest.mark.parametrize(("optimizer", "twin"), FREE.values(), ids=FREE)
def test_fifty_updates_without_a_schedule_are_those_of_the_paper(optimizer, twin):
    expected = map(np.stack, zip(*twin(), strict=True))
    expect_path(run_weights(optimizer, lr=WARMUP)[:2], expected)


def pull(p):
    return CURVATURE * (p - TARGET)


def objective(params):
    away = params["w"] - TARGET
    return (CURVATURE * away**2).sum() / 2, {"w": pull(params["w"])}


def run_measured(optimizer, lr=1.0):
    path, _, state = run_weights(optimizer, grads=SHIFTS, start=ORIGIN, lr=lr, objective=objective)
    return path, getattr(state, "distance", state).d


def prodigy_twin(b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, decay=0.0, rates=None):
    p = start = ORIGIN.astype(np.float64)
    m = v = s = r = 0.0
    d, b3 = d0, np.sqrt(b2)
    for t, shift in enumerate(SHIFTS.astype(np.float64)):
        g = pull(p) + shift
        rate = 1.0 if rates is None else rates[t]
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        r = b3 * r + (1 - b3) * rate * d**2 * np.dot(g, start - p)
        s = b3 * s + (1 - b3) * rate * d**2 * g
        p = p - rate * d * (m / (np.sqrt(v) + d * eps) + decay * p)
        d = max(d, r / np.abs(s).sum())
        yield p, d


def dadapt_twin(b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, decay=0.0, rates=None, old_v=False):
    p = ORIGIN.astype(np.float64)
    m = v = s = np.zeros(4)
    r = 0.0
    d, b3 = d0, np.sqrt(b2)
    for t, shift in enumerate(SHIFTS.astype(np.float64)):
        g = pull(p) + shift
        rate = 1.0 if rates is None else rates[t]
        before = np.sqrt(v) + eps
        m = b1 * m + (1 - b1) * rate * d * g
        v = b2 * v + (1 - b2) * g**2
        root = np.sqrt(v) + eps
        p = p - m / root - rate * d * decay * p
        r = b3 * r + (1 - b3) * rate * d * np.dot(g, s / (before if old_v else root))
        s = b3 * s + (1 - b3) * rate * d * g
        d = max(d, r / ((1 - b3) * np.abs(s).sum()))
        yield p, d


MEASURED = {
    "prodigy": (optim.contrib.prodigy(), prodigy_twin),
    "prodigy, other": (
        optim.contrib.prodigy(b1=0.8, b2=0.99, eps=0.1, d0=1e-2, weight_decay=0.1),
        part(prodigy_twin, 0.8, 0.99, 0.1, 1e-2, 0.1),
    ),
    "dadapt": (optim.contrib.dadapt_adam(), dadapt_twin),
    "dadapt, other": (
        optim.contrib.dadapt_adam(b1=0.8, b2=0.99, eps=0.1, d0=1e-2, weight_decay=0.1),
        part(dadapt_twin, 0.8, 0.99, 0.1, 1e-2, 0.1),
    ),
}


@pytest.mark.parametrize(("optimizer", "twin"), MEASURED.values(), ids=MEASURED)
def test_fifty_updates_of_a_measured_size_are_those_of_the_paper(optimizer, twin):
    path, size = run_measured(optimizer)
    expected, sizes = map(np.stack, zip(*twin(), strict=True))
    expect_path([path], [expected])
    # The distance is a quotient of sums over all steps and is fed back into them.
    np.testing.assert_allclose(size, sizes[-1], rtol=2e-5)
    assert sizes[-1] > 10 * sizes[0]  # it has been measured


# Optax rounds 1 - b^t in float32, to which the growth of the distance adds; powers of these are
# exact for long enough.
BETAS = {"b1": 0.875, "b2": 0.75}


def correction():
    t = np.arange(1, 51)
    return np.sqrt(1 - BETAS["b2"] ** t) / (1 - BETAS["b1"] ** t)


def run_optax(transformation, grads, read=lambda state, params: params, start=START, gradient=None):
    import optax

    def step(carry, g):
        params, state = carry
        g = g if gradient is None else g + gradient(params)
        updates, state = transformation.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, read(state, params))

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = jnp.asarray(start)
        carry = (params, transformation.init(params))
        path = jax.jit(lambda c, g: jax.lax.scan(step, c, g)[1])(carry, grads)
    return [np.asarray(part) for part in path]


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_schedule_free_is_that_of_optax(name):
    contrib = pytest.importorskip("optax").contrib
    theirs = getattr(contrib, name)(LR, b1=0.8, weight_decay=0.1)
    expected = run_optax(theirs, GRADS, contrib.schedule_free_eval_params)
    ours = run_weights(getattr(optim, name)(beta=0.8, weight_decay=0.1))
    for one, other in zip(ours[:2], expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_prodigy_is_that_of_optax_at_a_corrected_rate():
    optax = pytest.importorskip("optax")
    theirs = optax.contrib.prodigy(1.0, tuple(BETAS.values()), weight_decay=0.1)
    expected, _ = run_optax(theirs, SHIFTS, start=ORIGIN, gradient=pull)
    ours = optim.contrib.prodigy(**BETAS, weight_decay=0.1)
    np.testing.assert_allclose(run_measured(ours, correction())[0], expected, atol=1e-5)
    assert np.abs(run_measured(ours)[0] - expected).max() > 1e-3


def test_d_adaptation_of_optax_divides_by_the_size_before_the_step():
    optax = pytest.importorskip("optax")
    theirs = optax.contrib.dadapt_adamw(1.0, tuple(BETAS.values()), weight_decay=0.1)
    expected, _ = run_optax(theirs, SHIFTS, start=ORIGIN, gradient=pull)
    with_old, with_new = (
        np.stack([p for p, _ in dadapt_twin(**BETAS, decay=0.1, rates=correction(), old_v=old)])
        for old in (True, False)
    )
    np.testing.assert_allclose(with_old, expected, atol=1e-5)
    path, _ = run_measured(optim.contrib.dadapt_adam(**BETAS, weight_decay=0.1), correction())
    np.testing.assert_allclose(path, with_new, atol=1e-5)
    assert np.abs(path - expected).max() > 1e-3


def test_the_weights_without_a_schedule_are_the_mean_of_the_steps():
    steps = run(optim.sgd())  # z does not depend on x, as these gradients are given
    _, weights, state = run_weights(optim.schedule_free_sgd())
    np.testing.assert_allclose(weights[-1], steps.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(state.z["w"], steps[-1], atol=2e-6)


def test_without_a_rate_nothing_moves_and_nothing_is_nan():
    for optimizer in (optim.schedule_free_sgd(), optim.schedule_free_adamw(weight_decay=0.1)):
        path, weights, _ = run_weights(optimizer, lr=0.0)
        np.testing.assert_array_equal(path, np.broadcast_to(START, path.shape))
        np.testing.assert_allclose(weights, path, rtol=1e-6)


@pytest.mark.parametrize("make", [optim.contrib.prodigy, optim.contrib.dadapt_adam])
def test_it_finds_the_size_of_the_problem_from_a_millionth(make):
    far = np.float32([30.0, -20.0, 10.0, 5.0])
    optimizer = make()

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(jnp.sign, params)  # of the sum of |p|
        updates, state = optimizer.update(grads, state, params, 1.0)
        return (tree.add(params, updates), state), tree.global_norm(params)

    params = {"w": jnp.asarray(far)}
    _, norms = jax.jit(lambda c: jax.lax.scan(step, c, None, length=400))(
        (params, optimizer.init(params))
    )
    assert norms.min() < norms[0] / 4


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adam", "schedule_free_adamw"])
def test_decay_falls_on_the_marked_leaves_alone(name):
    params = {"kernel": jnp.array([2.0]), "bias": jnp.array([5.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = named(name)(weight_decay=0.5, mask=tree.matching("kernel"))
    updates, _ = optimizer.update(zeros, optimizer.init(params), params, 1.0)
    assert updates["kernel"] < 0
    np.testing.assert_array_equal(updates["bias"], [0])


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["prodigy", "dadapt_adam", "schedule_free_adamw"])
def test_the_gradient_by_the_rate_through_twenty_updates_is_finite(name):
    optimizer = named(name)()

    def last(lr):
        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update({"w": g}, state, params, lr)
            return (tree.add(params, updates), state), None

        params = {"w": jnp.zeros(4)}  # the distance from the start is 0 as well
        grads = jnp.asarray(GRADS[:20]).at[:2].set(0)
        return jax.lax.scan(step, (params, optimizer.init(params)), grads)[0][0]["w"].sum()

    assert jnp.isfinite(jax.jit(jax.grad(last))(1.0))
