"""Float64 twins, written from the papers, of the optimizers that see a leaf as a whole.

Each is `direction(g, p, t, memory)` for one leaf, with t from 1, and keeps its state in `memory`.
"""

import jax
import numpy as np

from fnn.keys import fold_name
from tests.optim_runs import adam_twin


def lamb_twin(g, p, t, memory, decay=0.0):
    u = adam_twin(g, p, t, memory, eps=1e-6) + decay * p
    return np.linalg.norm(p) / np.linalg.norm(u) * u


def lars_twin(g, p, t, memory, mu=0.9, decay=0.0, trust=1e-3):
    size = np.linalg.norm(p)
    ratio = trust * size / (np.linalg.norm(g) + decay * size)
    memory["v"] = mu * memory.get("v", 0) + ratio * (g + decay * p)
    return memory["v"]


def as_matrix(x):
    return x.reshape(-1, x.shape[-1])


def newton_schulz_twin(x, eps=1e-7):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (np.linalg.norm(x) + eps)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def muon_twin(g, p, t, memory, mu=0.95, decay=0.0):
    if g.ndim < 2:
        return g  # the companion
    m = memory["m"] = mu * memory.get("m", 0) + (1 - mu) * g
    x = as_matrix(mu * m + (1 - mu) * g)
    rows, columns = x.shape
    step = max(1, columns / rows) ** 0.5 * newton_schulz_twin(x)
    return step.reshape(g.shape) + decay * p


def adafactor_twin(g, p, t, memory, relative=True, eps=1e-30, d=1.0, least=1e-3, factored=True):
    b2 = 1 - t**-0.8
    square = g**2 + eps
    if g.ndim >= 2 and factored:
        r = memory["r"] = b2 * memory.get("r", 0) + (1 - b2) * square.mean(-1)
        c = memory["c"] = b2 * memory.get("c", 0) + (1 - b2) * square.mean(-2)
        v = r[..., :, None] * c[..., None, :] / r.mean(-1)[..., None, None]
    else:
        v = memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * square
    u = g / np.sqrt(v)
    u = u / max(1, rms(u) / d)
    return max(least, rms(p)) * u if relative else u


def rms(x):
    return np.sqrt(np.mean(x**2))


def root_twin(a, order, eps):
    a = a + eps * np.trace(a) / len(a) * np.eye(len(a))
    values, vectors = np.linalg.eigh(a)
    return vectors * values ** (-1 / order) @ vectors.T


def shampoo_twin(g, p, t, memory, b1=0.9, b2=0.99, block=99, max_size=99):
    """Blocks are named by the rows and columns at which they begin."""
    a = adam_twin(g, p, t, memory, b1, b2)
    if g.ndim < 2:
        return a
    x, m = as_matrix(g), as_matrix(memory["m"])
    if min(x.shape) > max_size:
        return a
    u = np.zeros_like(x)
    for rows in even_parts(x.shape[0], block, max_size):
        for columns in even_parts(x.shape[1], block, max_size):
            place = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            own = memory.setdefault((rows[0], columns[0]), {})
            u[place] = shampoo_block(x[place], m[place], t, own, b2, max_size)
    return (np.linalg.norm(a) / np.linalg.norm(u) * u).reshape(g.shape)


def even_parts(n, block, max_size):
    """The indices of each part."""
    count = 1 if n > max_size else int(np.ceil(n / block))
    return np.array_split(np.arange(n), count)


def shampoo_block(x, m, t, memory, b2, max_size, every=3, eps=1e-2):
    memory["L"] = b2 * memory.get("L", 0) + (1 - b2) * x @ x.T
    memory["R"] = b2 * memory.get("R", 0) + (1 - b2) * x.T @ x
    sides = [side for side in "LR" if len(memory[side]) <= max_size]
    if t % every == 1:
        for side in sides:
            memory["root" + side] = root_twin(memory[side], 2 * len(sides), eps)
    u = memory["rootL"] @ m if "L" in sides else m
    return u @ memory["rootR"] if "R" in sides else u


def soap_twin(g, p, t, memory, b=0.95, every=10, eps=1e-8, decay=0.0):
    x = as_matrix(g) if g.ndim >= 2 else g[None]
    rotates = g.ndim >= 2
    if t == 1:
        u = x / (np.abs(x) + eps)
    else:
        left, right = memory["bases"]
        memory["m"] = b * memory.get("m", 0) + (1 - b) * x
        memory["v"] = b * memory.get("v", 0) + (1 - b) * (left.T @ x @ right) ** 2
        c = 1 - b ** (t - 1)
        u = left.T @ memory["m"] @ right / c / (np.sqrt(memory["v"] / c) + eps)
        u = left @ u @ right.T
    grams = x @ x.T, x.T @ x
    means = memory.get("LR", (0, 0))
    memory["LR"] = [b * old + (1 - b) * new for old, new in zip(means, grams, strict=True)]
    if not rotates:
        memory["bases"] = [np.eye(n) for n in x.shape]
    elif t == 1:
        memory["bases"] = [np.linalg.eigh(a)[1][:, ::-1] for a in memory["LR"]]
    elif (t - 1) % every == 0:
        memory["bases"] = [
            np.linalg.qr(a @ q)[0] for a, q in zip(memory["LR"], memory["bases"], strict=True)
        ]
    return u.reshape(g.shape) + decay * p


def sophia_twin(g, p, t, memory, b1=0.96, b2=0.99, gamma=0.01, eps=1e-12, every=10, diagonal=0.0):
    if t % every == 1:
        memory["h"] = b2 * memory.get("h", 0) + (1 - b2) * diagonal
    memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
    return np.clip(memory["m"] / np.maximum(gamma * memory["h"], eps), -1, 1)


def kron_twin(g, p, t, memory, key, b1=0.9, rate=0.1, limit=1.1, every=2, max_size=99):
    x = as_matrix(g) if g.ndim >= 2 else g[None]
    m = memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * x
    m = m / (1 - b1**t)
    left, right = memory.get("q", [np.eye(n) for n in x.shape])
    if t % every == 1:
        looked = fold_name(jax.random.fold_in(key, t - 1), f"{x.shape}")
        v = np.float64(jax.random.normal(looked, x.shape))
        a = left @ m @ right.T
        b = np.linalg.inv(left).T @ v @ np.linalg.inv(right)
        left = kron_step(left, a @ a.T, b @ b.T, rate, max_size) if g.ndim >= 2 else left
        right = kron_step(right, a.T @ a, b.T @ b, rate, max_size if g.ndim >= 2 else 0)
        # In balance, as the product alone acts on the gradient.
        ratio = np.sqrt(np.abs(right).max() / np.abs(left).max()) if g.ndim >= 2 else 1
        memory["q"] = left, right = left * ratio, right / ratio
    u = left.T @ left @ m @ right.T @ right
    return (u / max(1, rms(u) / limit)).reshape(g.shape)


def kron_step(q, signal, noise, rate, max_size):
    total, difference = signal + noise, np.triu(signal - noise)
    if len(q) > max_size:
        return q - rate / np.diag(total).max() * np.diag(np.diag(difference)) @ q
    column = total[:, np.argmax((total**2).sum(0))]
    size = np.linalg.norm(total @ column) / np.linalg.norm(column)
    return q - rate / size * difference @ q
