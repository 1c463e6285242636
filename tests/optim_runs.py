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


def mean(memory, name, decay, new):
    """A moving average that starts at 0, kept in `memory`."""
    memory[name] = decay * memory.get(name, 0) + (1 - decay) * new
    return memory[name]


def adam_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, g**2) / (1 - b2**t)
    return m / (np.sqrt(v) + eps) + (decay * p if decay else 0)


def apart(got, expected):
    """The largest difference, relative to the largest value."""
    return np.abs(got - expected).max() / np.abs(expected).max()


def expect_path(got, expected, rtol=2e-6):
    """Several paths agree."""
    for one, other in zip(got, expected, strict=True):
        # Fifty roundings of the parameters, each at most 6e-8 of the largest.
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * np.abs(other).max())


def expect_updates(optimizer, twin):
    """The updates of an optimizer are those of its twin."""
    expect_path([run(optimizer)], [run_twin(twin)])


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
