"""The optimizers of `fnn.optim.contrib` in float64 NumPy, and a problem to run them on.

A twin maps (g, p, loss, t, memory, lr) to the new parameters; g and p are dicts of arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.types import Objective
from tests.optim_runs import adam_twin, mean

STEPS = 50
SHAPES = {"bias": (3,), "kernel": (4, 3), "square": (4, 4), "wide": (3, 5)}
RANDOM = np.random.default_rng(0)


def drawn(draw):
    return {name: np.float32(draw(shape)) for name, shape in SHAPES.items()}


START, TARGET = (drawn(lambda shape: RANDOM.normal(size=shape)) for _ in range(2))
CURVATURE = drawn(lambda shape: RANDOM.uniform(0.5, 2, size=shape))
NOISE = drawn(lambda shape: 0.3 * RANDOM.normal(size=(STEPS, *shape)))


def quadratic(p, shift):
    """The loss at p, at least 1, and its gradient plus a shift."""
    away = {n: p[n] - TARGET[n].astype(p[n].dtype) for n in p}
    curved = {n: CURVATURE[n].astype(p[n].dtype) * away[n] for n in p}
    return 1 + sum((curved[n] * away[n]).sum() for n in p) / 2, {n: curved[n] + shift[n] for n in p}


def run(update, init, start=START, noise=NOISE):
    """Parameters after every update, from one compiled scan; `update(g, state, p, objective)`."""

    def step(carry, shift):
        params, state = carry
        value, grads = quadratic(params, shift)
        objective = Objective(value, lambda p: quadratic(p, shift))
        updates, state = update(grads, state, params, objective)
        params = tree.add(params, updates)
        return (params, state), params

    params = jax.tree.map(jnp.asarray, start)
    scan = jax.jit(lambda carry, noise: jax.lax.scan(step, carry, noise))
    (_, state), path = scan((params, init(params)), jax.tree.map(jnp.asarray, noise))
    return jax.tree.map(np.asarray, path), state


def run_twin(twin, lr, start=START, noise=NOISE):
    p, memory, path = {n: np.float64(x) for n, x in start.items()}, {}, []
    for t in range(len(noise["bias"])):
        value, g = quadratic(p, {n: np.float64(x[t]) for n, x in noise.items()})
        p = twin(g, p, value, t + 1, memory, lr)
        path.append(p)
    return {n: np.stack([p[n] for p in path]) for n in start}


def apart(got, expected):
    """The largest difference, as a fraction of the largest parameter."""
    largest = max(np.abs(x).max() for x in expected.values())
    return max(np.abs(got[n] - expected[n]).max() for n in expected) / largest


# Helpers of the twins.


def leafwise(direction):
    """A twin from a direction of one leaf: p - lr direction(g, p, t, memory)."""

    def twin(g, p, loss, t, memory, lr):
        return {n: p[n] - lr * direction(g[n], p[n], t, memory.setdefault(n, {})) for n in p}

    return twin


def dot(a, b):
    return sum((a[n] * b[n]).sum() for n in a)


def norm(a):
    return np.sqrt(dot(a, a))


# The twins.


def acprop(b1=0.9, b2=0.999, eps=1e-16, decay=0.0, *, old_mean=False):
    def direction(g, p, t, memory):
        divisor = np.sqrt(memory["v"] / (1 - b2 ** (t - 1))) + eps if t > 1 else 1 + eps
        before = memory.get("m", 0)
        m = mean(memory, "m", b1, g)
        center = before if old_mean else m
        memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * (g - center) ** 2 + eps
        return g / divisor + decay * p

    return leafwise(direction)


def optimistic(direction, alpha, beta):
    def ahead(g, p, t, memory):
        u = direction(memory, g, t)
        previous, memory["previous"] = memory.get("previous", u), u
        return (alpha + beta) * u - beta * previous

    return leafwise(ahead)


def optimistic_gradient_descent(alpha=1.0, beta=1.0):
    return optimistic(lambda memory, g, t: g, alpha, beta)


def optimistic_adam(b1=0.9, b2=0.999, eps=1e-8, alpha=1.0, beta=1.0):
    return optimistic(lambda memory, g, t: adam_twin(g, None, t, memory, b1, b2, eps), alpha, beta)


def simplified_ademamix(b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, decay=0.0):
    def direction(g, p, t, memory):
        memory["m"] = b1 * memory.get("m", 0) + g
        v = mean(memory, "v", b2, g**2) / (1 - b2**t)
        return (memory["m"] + alpha * g) / (np.sqrt(v) + eps) + decay * p

    return leafwise(direction)


def novograd(b1=0.9, b2=0.25, eps=1e-6, decay=0.0):
    def direction(g, p, t, memory):
        square = (g**2).sum()
        memory["v"] = square if t == 1 else b2 * memory["v"] + (1 - b2) * square
        unit = g / (np.sqrt(memory["v"]) + eps) + decay * p
        memory["m"] = b1 * memory.get("m", 0) + unit
        return memory["m"]

    return leafwise(direction)


def fromage(min_norm=1e-6):
    def twin(g, p, loss, t, memory, lr):
        ratio = {n: max(norm({n: p[n]}), min_norm) / max(norm({n: g[n]}), min_norm) for n in p}
        return {n: (p[n] - lr * ratio[n] * g[n]) / np.sqrt(1 + lr**2) for n in p}

    return twin


def sm3(momentum=0.9, eps=1e-8):
    def direction(g, p, t, memory):
        v = np.zeros_like(g)
        bounds = memory.setdefault("bounds", [np.zeros(n) for n in g.shape])
        for index in np.ndindex(g.shape):
            v[index] = min(b[i] for b, i in zip(bounds, index, strict=True)) + g[index] ** 2
        for axis, bound in enumerate(bounds):
            for i in range(len(bound)):
                bound[i] = v.take(i, axis).max()
        return mean(memory, "m", momentum, g / np.sqrt(v + eps))

    return leafwise(direction)


def madgrad(momentum=0.9, eps=1e-6, *, eps_in_lr=False):
    def leaf(g, p, t, memory, lr):
        start = memory.setdefault("start", p)
        weight = (lr + eps * eps_in_lr) * np.sqrt(t)
        memory["s"] = memory.get("s", 0) + weight * g
        memory["v"] = memory.get("v", 0) + weight * g**2
        z = start - memory["s"] / (np.cbrt(memory["v"]) + eps)
        return momentum * p + (1 - momentum) * z

    return lambda g, p, loss, t, memory, lr: {
        n: leaf(g[n], p[n], t, memory.setdefault(n, {}), lr) for n in p
    }


def cocob(alpha=100.0, eps=1e-8):
    def leaf(g, p, memory, lr):
        c, start = lr * g, memory.setdefault("start", p)
        memory["L"] = np.maximum(memory.get("L", eps), abs(c))
        memory["G"] = memory.get("G", 0) + abs(c)
        memory["R"] = np.maximum(memory.get("R", 0) - c * (p - start), 0)
        memory["theta"] = memory.get("theta", 0) - c
        biggest = memory["L"] * np.maximum(memory["G"] + memory["L"], alpha * memory["L"])
        return start + memory["theta"] / biggest * (memory["L"] + memory["R"])

    return lambda g, p, loss, t, memory, lr: {
        n: leaf(g[n], p[n], memory.setdefault(n, {}), lr) for n in p
    }


def over_gradients(first, rate):
    def twin(g, p, loss, t, memory, lr):
        start = memory.setdefault("start", p)
        away = norm({n: p[n] - start[n] for n in p})
        memory["d"] = d = max(memory.get("d", first(start)), away)
        step = lr * rate(d, norm(g), memory)
        return {n: p[n] - step * g[n] for n in p}

    return twin


def dog(relative=1e-6, eps=1e-8):
    def rate(d, length, memory):
        memory["v"] = memory.get("v", 0) + length**2
        return d / np.sqrt(memory["v"] + eps)

    return over_gradients(lambda start: relative * (1 + norm(start)), rate)


def dowg(first=1e-2, eps=1e-4):
    def rate(d, length, memory):
        memory["v"] = memory.get("v", 0) + d**2 * length**2
        return d**2 / (np.sqrt(memory["v"]) + eps)

    return over_gradients(lambda start: first, rate)


def polyak_sgd(lower_bound=0.0, scale=1.0, eps=0.0):
    def twin(g, p, loss, t, memory, lr):
        step = min(scale * max(loss - lower_bound, 0) / (dot(g, g) + eps), lr)
        return {n: p[n] - step * g[n] for n in p}

    return twin


def momo(b1=0.9, bound=0.0, decay=0.0, *, adaptive=False, both_divided=True, adam=None):
    """MoMo, or MoMo-Adam with adam=(b2, eps)."""

    def twin(g, p, loss, t, memory, lr):
        b = 0 if adam is None and t == 1 else b1
        k = 1 if adam is None else 1 - b1**t
        f, c = mean(memory, "f", b, loss), mean(memory, "c", b, dot(g, p))
        m = {n: mean(memory.setdefault(n, {}), "m", b, g[n]) for n in p}
        d = {n: 1.0 for n in p}
        if adam is not None:
            b2, eps = adam
            v = {n: mean(memory[n], "v", b2, g[n] ** 2) / (1 - b2**t) for n in p}
            d = {n: np.sqrt(v[n]) + eps for n in p}
        square, s = sum((m[n] ** 2 / d[n]).sum() for n in p), 1 + lr * decay
        low = memory.get("low", bound)
        height = s * (f - c) + dot(m, p)
        if adaptive and height < s * k * low:
            low = max(height / (2 * s * k), bound)
        step = min(lr / k, max(height - s * k * low, 0) / square)
        if adaptive:
            memory["low"] = max((f - c + dot(m, p) - step * square / 2) / k, bound)
        last = s if both_divided else 1
        return {n: (p[n] * last / s - step * m[n] / d[n]) / last for n in p}

    return twin


def momo_adam(b1=0.9, b2=0.999, eps=1e-8, bound=0.0, decay=0.0, **given):
    return momo(b1, bound, decay, adam=(b2, eps), **given)


def mechanize(first=1e-6, decay=0.01, eps=1e-8, betas=6, *, momentum=0.0):
    """Around momentum; with the reference point p_0 and the offset from it, as in the paper."""
    beta = 1 - 0.1 ** np.arange(1, betas + 1)

    def twin(g, p, loss, t, memory, lr):
        start = memory.setdefault("start", p)
        s = memory.get("s", np.full(betas, first))
        offset = memory.get("offset", {n: np.zeros_like(p[n]) for n in p})
        pulled = decay * s.sum() * norm(g) / (norm(p) + eps)
        h = -dot(offset, {n: g[n] + pulled * p[n] for n in p})
        m = memory.get("m", np.zeros(betas))
        r = beta * memory.get("r", 0) + np.clip(h, -m, m) * s
        memory.update(r=r, m=np.maximum(beta * m, abs(h) + eps))
        memory["v"] = beta**2 * memory.get("v", 0) + h**2
        wealth = first / betas * memory["m"] + np.maximum(r, 0)
        memory["s"] = wealth / (np.sqrt(memory["v"]) + eps)
        velocity = {n: momentum * memory.get("u", g)[n] * (t > 1) + g[n] for n in p}
        memory.update(u=velocity, offset={n: offset[n] - lr * velocity[n] for n in p})
        return {n: start[n] + memory["s"].sum() * memory["offset"][n] for n in p}

    return twin


def galore(rank, every_steps, scale, b1=0.9, b2=0.999, eps=1e-8):
    """Around Adam. At b1 = 0 the signs of singular vectors, which are arbitrary, do not matter."""

    def direction(g, p, t, memory):
        if g.ndim != 2 or min(g.shape) <= rank:
            return adam_twin(g, None, t, memory, b1, b2, eps)
        tall = g.shape[0] > g.shape[1]
        matrix = g.T if tall else g
        if (t - 1) % every_steps == 0:
            memory["P"] = np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
        basis = memory["P"]
        step = scale * basis @ adam_twin(basis.T @ matrix, None, t, memory, b1, b2, eps)
        return step.T if tall else step

    return leafwise(direction)
