"""Fifty updates on fixed random gradients, by an optimizer and by a float64 twin of its paper."""

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.types import Objective

STEPS, LR = 50, 0.1
GRADS = np.random.default_rng(0).normal(size=(STEPS, 4)).astype(np.float32)
START = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


def run(optimizer, grads=GRADS, start=START, lr=LR):
    """Parameters after every update, from one compiled scan; `lr` is a number or one a step."""

    def step(carry, inputs):
        (params, state), (g, rate) = carry, inputs
        updates, state = optimizer.update({"w": g}, state, params, rate)
        params = tree.add(params, updates)
        return (params, state), params["w"]

    rates = jnp.broadcast_to(jnp.asarray(lr, jnp.float32), len(grads))
    scan = jax.jit(lambda carry, inputs: jax.lax.scan(step, carry, inputs)[1])
    params = {"w": jnp.asarray(start)}
    return np.asarray(scan((params, optimizer.init(params)), (jnp.asarray(grads), rates)))


def run_twin(direction, grads=GRADS, start=START, lr=LR):
    """The same in float64; `direction(g, p, t, memory)` keeps its state in the dict `memory`."""
    p, memory, path = start.astype(np.float64), {}, []
    for t, g in enumerate(grads.astype(np.float64), start=1):
        p = p - lr * direction(g, p, t, memory)
        path.append(p)
    return np.stack(path)


def expect_updates(optimizer, twin):
    """An optimizer gives what its twin gives."""
    expected = run_twin(twin)
    # Fifty roundings of the parameters, each at most 6e-8 of the largest.
    np.testing.assert_allclose(run(optimizer), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def run_weights(optimizer, grads=GRADS, start=START, lr=LR, objective=None):
    """As `run`: the parameters, the `weights` after every update, and the last state.

    With `objective`, a function of parameters to (loss, gradients), the given gradients are added
    to those it has.
    """

    def step(carry, inputs):
        (params, state), (g, rate) = carry, inputs
        batch = None
        if objective is not None:
            batch = Objective(*_tilted(objective, {"w": g}, params))
            g = batch.at(params)[1]["w"]
        updates, state = optimizer.update({"w": g}, state, params, rate, batch)
        params = tree.add(params, updates)
        return (params, state), (params["w"], optimizer.weights(state, params)["w"])

    rates = jnp.broadcast_to(jnp.asarray(lr, jnp.float32), len(grads))
    params = {"w": jnp.asarray(start)}
    scan = jax.jit(lambda carry, inputs: jax.lax.scan(step, carry, inputs))
    (_, state), (path, weights) = scan(
        (params, optimizer.init(params)), (jnp.asarray(grads), rates)
    )
    return np.asarray(path), np.asarray(weights), state


def _tilted(objective, shift, params):
    def at(params):
        value, grads = objective(params)
        return value, jax.tree.map(jnp.add, grads, shift)

    return at(params)[0], at
