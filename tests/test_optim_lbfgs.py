"""L-BFGS and its line searches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from fnn.optim.line_search import Line
from fnn.types import Objective


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def minimize(optimizer, start, steps, loss=rosenbrock, lr=1.0):
    """Parameters before the first and after every update, and their losses."""
    at = jax.value_and_grad(lambda params: loss(params["x"]))

    def step(carry, _):
        params, state = carry
        value, grads = at(params)
        updates, state = optimizer.update(grads, state, params, lr, Objective(value, at))
        return (tree.add(params, updates), state), (params["x"], value)

    params = {"x": jnp.asarray(start)}
    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[1])
    path, values = scan((params, optimizer.init(params)))
    return np.asarray(path), np.asarray(values)


def lbfgs_twin(x, steps, memory, first=1.0):
    def value_and_slope(x):
        a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
        slope = np.zeros_like(x)
        slope[1:] += 200 * a
        slope[:-1] -= 400 * x[:-1] * a + 2 * b
        return np.sum(100 * a**2 + b**2), slope

    pairs, path = [], []
    for _ in range(steps):
        path.append(x)
        value, g = value_and_slope(x)
        q, scales = g, []
        for s, y in reversed(pairs):
            scales.append(s @ q / (s @ y))
            q = q - scales[-1] * y
        q = q * (
            pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1])
            if pairs
            else min(1, 1 / np.linalg.norm(g))
        )
        for s, y in pairs:
            q = q + (scales.pop() - y @ q / (s @ y)) * s
        t, low, high = first, 0.0, np.inf
        while True:
            new, slope = value_and_slope(x - t * q)
            if new > value - 1e-4 * t * (g @ q):
                high = t
            elif -slope @ q < -0.9 * (g @ q):
                low = t
            else:
                break
            t = 2 * low if np.isinf(high) else (low + high) / 2
        pairs = [*pairs, (-t * q, slope - g)][-memory:]
        x = x - t * q
    return np.stack(path)


def test_updates_of_lbfgs_are_those_of_the_paper():
    # In float64, since a search that takes another turn by rounding is another path.
    with jax.enable_x64(True):
        start = np.array([-1.2, 1.0, -0.7])
        path, _ = minimize(optim.lbfgs(memory=4), start, 25)
    np.testing.assert_allclose(path, lbfgs_twin(start, 25, 4), rtol=1e-6)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("search", [optim.wolfe(), optim.backtracking()])
@pytest.mark.parametrize("size", [2, 10])
def test_lbfgs_finds_the_minimum_of_rosenbrock_within_100_updates(search, size):
    start = np.full(size, -1.0, np.float32)
    path, values = minimize(optim.lbfgs(search=search), start, 100)
    assert values[-1] < 1e-9
    # Near the minimum the loss is flat: an error of 1e-4 costs 1e-9.
    np.testing.assert_allclose(path[-1], 1, atol=2e-4)


def test_lbfgs_stays_where_the_gradient_is_zero_and_comes_back_from_infinity():
    loss = lambda x: jnp.sum(x - jnp.log(x))  # noqa: E731
    _, values = minimize(optim.lbfgs(), np.float32([3.0, 0.02]), 60, loss, lr=1e3)
    np.testing.assert_allclose(values[-1], 2, rtol=1e-6)
    path, _ = minimize(optim.lbfgs(), np.float32([1.0, 1.0]), 3, loss)
    np.testing.assert_array_equal(path, 1)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("optimizer", [optim.lbfgs(), optim.contrib.sophia(key=jax.random.key(0))])
def test_without_an_objective_the_error_says_what_to_do(optimizer):
    params = {"w": jnp.ones(2)}
    with pytest.raises(
        ValueError, match="(lbfgs|sophia): expected an objective .* got None; train"
    ):
        optimizer.update(params, optimizer.init(params), params, 0.1)


def test_lbfgs_without_a_search_needs_no_objective():
    optimizer, params = optim.lbfgs(search=optim.full_step()), {"w": jnp.full(2, 3.0)}
    updates, _ = optimizer.update(params, optimizer.init(params), params, 0.5)
    np.testing.assert_allclose(updates["w"], -0.5 * np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("memory", [0, -1])
def test_lbfgs_wants_a_memory(memory):
    with pytest.raises(ValueError, match="lbfgs: expected memory to be a positive integer, got"):
        optim.lbfgs(memory=memory)


@pytest.mark.parametrize("first", [1e-4, 0.3, 50.0])
def test_a_wolfe_step_is_low_and_flat(first):
    at = jax.value_and_grad(lambda t: (t - 1) ** 2 + 0.1 * jnp.sin(8 * t))
    value, slope = at(jnp.float32(0))
    t = optim.wolfe(curvature=0.5)(Line(value, slope, at), jnp.float32(first))
    new, tilt = at(t)
    assert new <= value + 1e-4 * t * slope and tilt >= 0.5 * slope


def test_a_search_that_finds_nothing_gives_no_step():
    uphill = Line(jnp.float32(0), jnp.float32(-1), lambda t: (t, jnp.ones_like(t)))
    assert (
        optim.wolfe()(uphill, jnp.float32(1)) == optim.backtracking()(uphill, jnp.float32(1)) == 0
    )
