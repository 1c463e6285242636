"""Layers and small networks in plain JAX, and what goes wrong in them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnn.types import Model
from tests.mutants.family import Family

F32 = jnp.float32


def normal(*shape, seed=0):
    """Random numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), F32)


def integers(*shape, below, seed=0):
    """Random integers."""
    return jnp.asarray(np.random.default_rng(seed).integers(below, size=shape), jnp.int32)


def layer(shapes: Callable, forward: Callable, state: Callable = lambda x: ()) -> Model:
    """A model of `forward(params, state, x, key, train) -> y, state`, with drawn parameters."""

    def init(key, x):
        sizes = shapes(x)
        keys = jax.random.split(key, len(sizes))
        params = {
            name: 0.4 * jax.random.normal(k, shape, F32)
            for k, (name, shape) in zip(keys, sizes.items(), strict=True)
        }
        return params, state(x)

    def apply(params, state, x, *, key=None, train=False):
        return forward(params, state, x, key, train)

    return Model(init, apply)


def stateless(shapes: Callable, forward: Callable) -> Model:
    """A model of `forward(params, x)`."""
    return layer(shapes, lambda params, state, x, key, train: (forward(params, x), state))


def variants(make: Callable, *bugs: str) -> dict[str, Model]:
    """The broken copies of `make(bug)`."""
    return {bug: make(bug) for bug in bugs}


X = normal(4, 5)
SEQUENCES = normal(3, 6, 4)
IMAGES = normal(3, 6, 6, 2)
TOKENS = integers(3, 6, below=9)
LENGTHS = jnp.array([6, 3, 4], jnp.int32)


# Dense.


def dense(bug=None):
    def forward(p, x):
        y = x @ (jax.lax.stop_gradient(p["w"]) if bug == "no gradient of the kernel" else p["w"])
        if bug == "bias is not added":
            return y
        if bug == "bias of the first unit for all":
            return y + p["b"][0]
        if bug == "bias summed over the batch":
            return y + p["b"] + 1e-2 * x.sum()
        if bug == "output normalized over the batch":
            return (y + p["b"]) / (1 + jnp.abs(y).max())
        if bug == "rounded output":
            return jnp.round((y + p["b"]) * 16) / 16
        if bug == "product in 8 bits":
            return (x.astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16)).astype(x.dtype) + p["b"]
        if bug == "relu forgotten to be removed":
            return jax.nn.relu(y + p["b"])
        if bug == "mean instead of sum over inputs":
            return y / x.shape[-1] + p["b"]
        if bug == "transposed when square":
            square = p["w"].shape[0] == p["w"].shape[1]
            return x @ (p["w"].T if square else p["w"]) + p["b"]
        if bug == "bias is subtracted":
            return y - p["b"]
        if bug == "index of the example is added":
            return y + p["b"] + jnp.arange(len(x), dtype=F32)[:, None] * 0.01
        return y + p["b"]

    out = 5 if bug == "transposed when square" else 3
    return stateless(lambda x: {"w": (x.shape[-1], out), "b": (out,)}, forward)


def dense_init(bug):
    good = dense()

    def init(key, x):
        if bug == "one key for kernel and bias":
            return {"w": jax.random.normal(key, (5, 3)), "b": jax.random.normal(key, (3,))}, ()
        if bug == "the key is ignored":
            return good.init(jax.random.key(0), x)
        if bug == "kernel of the shape of the batch":
            return {
                "w": jax.random.normal(key, (x.shape[-1], x.shape[0]))[:, :3],
                "b": jnp.zeros(3),
            }, ()
        if bug == "scaled by the batch":
            return jax.tree.map(lambda p: p * x.std(), good.init(key, x)[0]), ()
        if bug == "an integer among the parameters":
            return {**good.init(key, x)[0], "units": jnp.int32(3)}, ()
        raise ValueError(bug)

    return Model(init, good.apply)


def two_layers(bug):
    def forward(p, x):
        h = jnp.tanh(x @ p["a"]) if bug != "no nonlinearity" else x @ p["a"]
        if bug == "second layer uses the first kernel":
            return jnp.tanh(h @ p["a"])
        if bug == "the same array twice":
            return h @ p["b"]
        return h @ p["b"]

    def init(key, x):
        first, second = jax.random.split(key)
        if bug == "both layers from one key":
            second = first
        a = jax.random.normal(first, (5, 5))
        b = a if bug == "the same array twice" else jax.random.normal(second, (5, 5))
        return {"a": a, "b": b}, ()

    return Model(init, lambda p, s, x, *, key=None, train=False: (forward(p, x), s))


def impure(bug):
    count = [0]
    good = dense()

    def apply(params, state, x, *, key=None, train=False):
        y, state = good.apply(params, state, x)
        if bug == "a counter outside of the function":
            count[0] += 1
            return y + 0.001 * count[0], state
        if bug == "other result when traced":
            return (y if isinstance(x, jax.core.Tracer) else 1.001 * y), state
        if bug == "parameters are changed in place":
            params["b"] = params["b"] + 1
            return y, state
        if bug == "NumPy noise":
            return y + float(np.random.default_rng().normal()), state
        if bug == "float64 constants from NumPy":
            return y * np.float64(1.0).astype(np.float32), {"a": 1}
        if bug == "only for one batch size":
            return y.reshape(4, 3), state
        if bug == "batch axis last":
            return y.T, state
        if bug == "choice by value":
            return (y if float(x.sum()) > -1e9 else -y), state
        raise ValueError(bug)

    return Model(good.init, apply)


# Attention.


def split_heads(x, heads):
    return x.reshape(*x.shape[:2], heads, -1)


def attention(bug=None, causal=True):
    heads = 2

    def forward(p, x):
        q, k, v = (split_heads(x @ p[name], heads) for name in ("q", "k", "v"))
        size = q.shape[-1]
        logits = jnp.einsum("bthd,bshd->bhts", q, k)
        if bug != "no scale":
            logits = logits / np.float32(np.sqrt(4 if bug == "scale of all heads" else size))
        if bug == "scale twice":
            logits = logits / np.float32(np.sqrt(size))
        time = x.shape[1]
        mask = jnp.tril(jnp.ones((time, time), bool), {"sees the next": 1}.get(bug, 0))
        if bug == "mask of the wrong side":
            mask = mask.T
        if bug == "does not see itself":
            mask = jnp.tril(jnp.ones((time, time), bool), -1).at[0, 0].set(True)
        if bug == "sees itself only":
            mask = jnp.eye(time, dtype=bool)
        if bug == "mask after softmax":
            weights = jax.nn.softmax(logits, axis=-1) * mask
        elif bug == "mask is added as 0 and 1":
            weights = jax.nn.softmax(logits + mask.astype(F32), axis=-1)
        elif bug == "softmax over queries":
            weights = jax.nn.softmax(jnp.where(mask, logits, -1e9), axis=-2)
        elif bug == "softmax over heads":
            weights = jax.nn.softmax(jnp.where(mask, logits, -1e9), axis=1)
        elif bug == "no softmax":
            weights = jnp.where(mask, logits, 0)
        elif bug == "mask of minus one":
            weights = jax.nn.softmax(jnp.where(mask, logits, -1.0), axis=-1)
        elif causal and bug != "no mask":
            weights = jax.nn.softmax(jnp.where(mask, logits, -1e9), axis=-1)
        else:
            weights = jax.nn.softmax(logits, axis=-1)
        if bug == "exp without maximum":
            e = jnp.exp(logits) * mask
            weights = e / e.sum(axis=-1, keepdims=True)
        values = k if bug == "keys as values" else v
        y = jnp.einsum("bhts,bshd->bthd", weights, values)
        if bug == "heads swapped with features":
            y = y.swapaxes(2, 3)
        if bug == "heads swapped with time":
            y = jnp.einsum("bhts,bshd->bhtd", weights, values).reshape(y.shape)
        y = y.reshape(*x.shape[:2], -1)
        return y if bug == "no projection" else y @ p["o"]

    return stateless(
        lambda x: {n: (x.shape[-1], x.shape[-1]) for n in ("q", "k", "v", "o")}, forward
    )


def reference_attention(p, x, mask=None):
    """Attention of two heads with loops, in the plainest way."""
    out = []
    size = x.shape[-1] // 2
    for h in range(2):
        part = slice(h * size, (h + 1) * size)
        q, k, v = (x @ p[name][:, part] for name in ("q", "k", "v"))
        logits = jnp.einsum("btd,bsd->bts", q, k) / jnp.sqrt(F32(size))
        if mask is not None:
            logits = jnp.where(mask, logits, -jnp.inf)
        out.append(jnp.einsum("bts,bsd->btd", jax.nn.softmax(logits, axis=-1), v))
    return jnp.concatenate(out, axis=-1) @ p["o"]


def causal_reference():
    shapes = {n: (4, 4) for n in ("q", "k", "v", "o")}
    return stateless(
        lambda x: shapes,
        lambda p, x: reference_attention(p, x, jnp.tril(jnp.ones((x.shape[1],) * 2, bool))),
    )


def full_reference():
    shapes = {n: (4, 4) for n in ("q", "k", "v", "o")}
    return stateless(lambda x: shapes, reference_attention)


def padded_attention(bug=None):
    def forward(p, batch):
        x, lengths = batch["x"], batch["lengths"]
        valid = jnp.arange(x.shape[1])[None] < lengths[:, None]
        if bug == "length off by one":
            valid = jnp.arange(x.shape[1])[None] <= lengths[:, None]
        mask = valid[:, None, :]
        if bug == "mask of queries and not of keys":
            mask = valid[:, :, None]
        if bug == "no mask":
            mask = jnp.ones_like(mask)
        if bug == "mask of the first example for all":
            mask = mask[:1]
        y = (
            reference_attention(p, x, mask)
            if bug != "mask of minus three"
            else masked_softly(p, x, mask)
        )
        weights = valid[..., None].astype(x.dtype)
        if bug == "mean over all positions":
            return y.mean(axis=1)
        if bug == "sum over valid divided by all":
            return (y * weights).sum(axis=1) / x.shape[1]
        if bug == "mean over all with padding zeroed twice":
            return (y * weights).mean(axis=1)
        if bug == "last position":
            return y[:, -1]
        if bug == "lengths not read in the mean":
            return y[:, 0]
        return (y * weights).sum(axis=1) / weights.sum(axis=1)

    return stateless(lambda x: {n: (4, 4) for n in ("q", "k", "v", "o")}, forward)


def masked_softly(p, x, mask):
    q, k, v = (x @ p[name] for name in ("q", "k", "v"))
    logits = jnp.where(mask, jnp.einsum("btd,bsd->bts", q, k), -3.0)
    return jnp.einsum("bts,bsd->btd", jax.nn.softmax(logits, axis=-1), v) @ p["o"]


def padded_reference():
    """One example at a time, cut at its length."""

    def forward(p, batch):
        x, lengths = batch["x"], batch["lengths"]

        def one(x, length):
            keep = jnp.arange(x.shape[0]) < length
            y = reference_attention(p, x[None], jnp.broadcast_to(keep, (1, 1, x.shape[0])))[0]
            return jnp.where(keep[:, None], y, 0).sum(axis=0) / length.astype(F32)

        return jax.vmap(one)(x, lengths)

    return stateless(lambda x: {n: (4, 4) for n in ("q", "k", "v", "o")}, forward)


def rotated(bug=None):
    """Logits of attention with rotary positions, for each pair of times."""

    def turn(x, positions):
        half = x.shape[-1] // 2
        rates = 1.0 / (100.0 ** (jnp.arange(half, dtype=F32) / half))
        if bug == "one rate for all":
            rates = jnp.ones(half, F32)
        angle = positions.astype(F32)[:, None] * rates[None]
        cos, sin = jnp.cos(angle)[None], jnp.sin(angle)[None]
        a, b = x[..., :half], x[..., half:]
        if bug == "sign of the sine":
            return jnp.concatenate([a * cos + b * sin, a * sin + b * cos], axis=-1)
        if bug == "only half is turned":
            return jnp.concatenate([a * cos - b * sin, b], axis=-1)
        if bug == "cosine twice":
            return jnp.concatenate([a * cos - b * cos, b * cos + a * sin], axis=-1)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def forward(p, x):
        positions = jnp.arange(x.shape[1])
        q = turn(x @ p["q"], positions)
        k = turn(x @ p["k"], positions[::-1] if bug == "keys in reverse" else positions)
        if bug == "keys are not turned":
            k = x @ p["k"]
        return jnp.einsum("btd,bsd->bts", q, k)

    return stateless(lambda x: {n: (4, 4) for n in ("q", "k")}, forward)


def shifted_rotation():
    """With positions from 10 on: the logits are the same."""

    def forward(p, x):
        half = 2
        rates = 1.0 / (100.0 ** (jnp.arange(half, dtype=F32) / half))
        angle = (10.0 + jnp.arange(x.shape[1], dtype=F32))[:, None] * rates[None]
        turn = jnp.exp(1j * angle)[None]

        def complexes(y):
            return (y[..., :half] + 1j * y[..., half:]) * turn

        q, k = complexes(x @ p["q"]), complexes(x @ p["k"])
        return jnp.real(jnp.einsum("btd,bsd->bts", q, jnp.conj(k)))

    return stateless(lambda x: {n: (4, 4) for n in ("q", "k")}, forward)


# Convolution and pooling.


def conv1d(bug=None):
    """Causal convolution of width 3."""

    def forward(p, x):
        pad = {"padded on the right": (0, 2), "padded on both sides": (1, 1)}.get(bug, (2, 0))
        mode = "edge" if bug == "edge is repeated" else "constant"
        x = jnp.pad(x, ((0, 0), pad, (0, 0)), mode=mode)
        time = x.shape[1] - 2
        taps = [0, 0, 2] if bug == "a tap twice" else range(3)
        y = sum(x[:, i : i + time] @ p["w"][j] for j, i in enumerate(taps))
        if bug == "a tap is left out":
            y = y - x[:, :time] @ p["w"][0]
        if bug == "kernel reversed":
            y = sum(x[:, i : i + time] @ p["w"][2 - i] for i in range(3))
        if bug == "wraps around":
            y = sum(jnp.roll(x, -i, axis=1)[:, 1 : time + 1] @ p["w"][i] for i in range(3))
        return y + p["b"]

    return stateless(lambda x: {"w": (3, x.shape[-1], 5), "b": (5,)}, forward)


def conv1d_reference():
    def forward(p, x):
        y = jax.lax.conv_general_dilated(
            x, p["w"], (1,), [(2, 0)], dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y + p["b"]

    return stateless(lambda x: {"w": (3, x.shape[-1], 5), "b": (5,)}, forward)


def conv2d(bug=None):
    """Periodic convolution of width 3, relu-free, and mean pooling."""

    def forward(p, x):
        pad = ((0, 0), (1, 1), (1, 1), (0, 0))
        wrapped = jnp.pad(x, pad, mode="constant" if bug == "zeros at the border" else "wrap")
        if bug == "height and width of the kernel swapped":
            kernel = p["w"].swapaxes(0, 1)
        else:
            kernel = p["w"]
        y = jax.lax.conv_general_dilated(
            wrapped, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if bug == "stride of two in one axis":
            y = y[:, :, ::2]
        if bug == "a corner is lost":
            y = y.at[:, 0, 0].set(0)
        if bug == "mean over channels":
            return y.mean(axis=(1, 3), keepdims=False)
        if bug == "mean over the batch":
            return y.mean(axis=(0, 1, 2))[None] + jnp.zeros((len(x), 1), F32)
        if bug == "flattened and cut":
            return y.reshape(len(x), -1)[:, :4]
        if bug == "sum instead of mean":
            return y.sum(axis=(1, 2))
        if bug == "maximum":
            return y.max(axis=(1, 2))
        return jnp.tanh(y).mean(axis=(1, 2))

    return stateless(lambda x: {"w": (3, 3, x.shape[-1], 4)}, forward)


def conv2d_reference():
    def forward(p, x):
        y = sum(
            jnp.roll(x, (1 - i, 1 - j), axis=(1, 2)) @ p["w"][i, j]
            for i in range(3)
            for j in range(3)
        )
        return jnp.tanh(y).mean(axis=(1, 2))

    return stateless(lambda x: {"w": (3, 3, x.shape[-1], 4)}, forward)


# Normalization.


def layer_norm(bug=None):
    def forward(p, x):
        axes = {"over the batch": (0,), "over all": (0, 1), "over time": (1,)}.get(bug, (-1,))
        mean = x.mean(axis=axes, keepdims=True)
        ddof = 1 if bug == "unbiased variance" else 0
        var = x.var(axis=axes, keepdims=True, ddof=ddof)
        if bug == "variance without the mean":
            var = jnp.square(x).mean(axis=axes, keepdims=True)
        if bug == "mean of squares minus square of mean, in bfloat16":
            h = x.astype(jnp.bfloat16)
            var = (
                jnp.square(h).mean(axis=-1, keepdims=True)
                - jnp.square(h.mean(axis=-1, keepdims=True))
            ).astype(x.dtype)
        eps = {"eps outside the root": 0.0, "no eps": 0.0, "large eps": 0.5}.get(bug, 1e-5)
        root = jnp.sqrt(var + F32(eps))
        if bug == "divided by the variance":
            root = var + F32(eps)
        y = (x - mean) / root
        if bug == "mean is not subtracted":
            y = x / root
        if bug == "statistics have no gradient":
            y = (x - jax.lax.stop_gradient(mean)) / jax.lax.stop_gradient(root)
        if bug == "scale is not used":
            return y + p["b"]
        return y * (1 + p["s"]) + p["b"]

    good = stateless(lambda x: {"s": (x.shape[-1],), "b": (x.shape[-1],)}, forward)
    if bug == "no zeros at the start":
        return good
    return Model(
        lambda key, x: (jax.tree.map(jnp.zeros_like, good.init(key, x)[0]), ()), good.apply
    )


def torch_layer_norm():
    def forward(p, x):
        centered = x - x.mean(axis=-1, keepdims=True)
        var = jnp.square(centered).mean(axis=-1, keepdims=True)
        return centered * jax.lax.rsqrt(var + F32(1e-5)) * (1 + p["s"]) + p["b"]

    return stateless(lambda x: {"s": (x.shape[-1],), "b": (x.shape[-1],)}, forward)


def batch_norm(bug=None):
    def forward(p, state, x, key, train):
        axes = (0,)
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        if bug == "statistics of the features":
            mean = jnp.broadcast_to(x.mean(), mean.shape)
        if bug == "variance around zero":
            var = jnp.square(x).mean(axis=axes)
        use = train
        if bug == "batch statistics in evaluation":
            use = True
        if bug == "running statistics in training":
            use = False
        m, v = (mean, var) if use else (state["mean"], state["var"])
        if bug == "standard deviation kept as variance" and not train:
            v = jnp.square(v)
        y = (x - m) / jnp.sqrt(v + F32(1e-5)) * (1 + p["s"]) + p["b"]
        moving = train
        if bug == "moves in evaluation":
            moving = True
        if bug == "never moves" or not moving:
            return y, state
        d = F32(0.99 if bug != "decay swapped" else 0.01)
        new = {
            "mean": d * state["mean"] + (1 - d) * mean,
            "var": d * state["var"] + (1 - d) * var,
        }
        if bug == "weights of the average add to more":
            new = {n: state[n] + (1 - d) * v for n, v in {"mean": mean, "var": var}.items()}
        if bug == "only the mean moves":
            new = {**new, "var": state["var"]}
        if bug == "variance is updated by the mean":
            new["var"] = d * state["var"] + (1 - d) * mean
        if bug == "state in bfloat16":
            new = jax.tree.map(lambda a: a.astype(jnp.bfloat16), new)
        if bug == "state becomes a tuple":
            return y, (new["mean"], new["var"])
        return y, new

    def start(x):
        size = x.shape[-1]
        return {"mean": jnp.zeros(size, F32), "var": jnp.ones(size, F32)}

    good = layer(lambda x: {"s": (x.shape[-1],), "b": (x.shape[-1],)}, forward, start)
    return Model(
        lambda key, x: (jax.tree.map(jnp.zeros_like, good.init(key, x)[0]), start(x)), good.apply
    )


def batch_norm_reference():
    def forward(p, state, x, key, train):
        count, mean, var = state
        if train:
            m, v = x.mean(axis=0), jnp.mean((x - x.mean(axis=0)) ** 2, axis=0)
            d = F32(0.99)
            state = count + 1, d * mean + (1 - d) * m, d * var + (1 - d) * v
        else:
            m, v = mean, var
        return (x - m) * jax.lax.rsqrt(v + F32(1e-5)) * (1 + p["s"]) + p["b"], state

    def start(x):
        return jnp.int32(0), jnp.zeros(x.shape[-1], F32), jnp.ones(x.shape[-1], F32)

    return layer(lambda x: {"s": (x.shape[-1],), "b": (x.shape[-1],)}, forward, start)


def rms_norm(bug=None):
    def forward(p, x):
        square = jnp.square(x).mean(axis=-1, keepdims=True)
        if bug == "sum of squares":
            square = jnp.square(x).sum(axis=-1, keepdims=True)
        if bug == "over time":
            square = jnp.square(x).mean(axis=1, keepdims=True)
        if bug == "absolute values":
            square = jnp.square(jnp.abs(x).mean(axis=-1, keepdims=True))
        if bug == "maximum":
            square = jnp.square(x).max(axis=-1, keepdims=True)
        if bug == "norm without eps":
            return x / jnp.sqrt(square) * (1 + p["s"])
        return x * jax.lax.rsqrt(square + F32(1e-6)) * (1 + p["s"])

    good = stateless(lambda x: {"s": (x.shape[-1],)}, forward)
    return Model(
        lambda key, x: (jax.tree.map(jnp.zeros_like, good.init(key, x)[0]), ()), good.apply
    )


def rms_reference():
    def forward(p, x):
        norm = jnp.linalg.norm(x, axis=-1, keepdims=True) / jnp.sqrt(F32(x.shape[-1]))
        return x / jnp.sqrt(norm**2 + F32(1e-6)) * (1 + p["s"])

    return stateless(lambda x: {"s": (x.shape[-1],)}, forward)


# Dropout.


def dropout(key, x, rate, bug=None):
    keep = 1 - rate
    shape = x.shape
    if bug == "one mask for the batch":
        shape = (1, *x.shape[1:])
    if bug == "one mask for all features":
        shape = (x.shape[0], *(1,) * (x.ndim - 1))
    mask = jax.random.bernoulli(key, rate if bug == "keeps what it drops" else keep, shape)
    mask = jnp.broadcast_to(mask, x.shape)
    if bug == "not rescaled":
        return jnp.where(mask, x, 0)
    if bug == "rescaled by the rate":
        return jnp.where(mask, x / F32(max(rate, 1e-6)), 0)
    if bug == "rescaled by what was kept":
        return jnp.where(mask, x * F32(x.size) / mask.sum(), 0)
    if bug == "noise has no gradient":
        return jax.lax.stop_gradient(jnp.where(mask, x / F32(keep), 0))
    return jnp.where(mask, x / F32(keep), 0)


def one_dropout(bug=None):
    def forward(p, state, x, key, train):
        if bug == "drops in evaluation when it has a key":
            train = key is not None
        if bug == "does not drop":
            train = False
        if not train:
            return (x * F32(0.7) if bug == "rescales in evaluation" else x), state
        if key is None:
            raise ValueError("dropout: expected a key, got None")
        k = jax.random.key(1) if bug == "the key is ignored" else key
        return dropout(k, x, 0.3, bug), state

    return layer(lambda x: {}, forward)


def dropout_reference():
    def forward(p, state, x, key, train):
        if not train:
            return x, state
        u = jax.random.uniform(jax.random.fold_in(key, 3), x.shape)
        return x * (u >= 0.3).astype(x.dtype) / F32(0.7), state

    return layer(lambda x: {}, forward)


def two_dropouts(bug=None):
    def forward(p, state, x, key, train):
        if train and key is None:
            raise ValueError("two_dropouts: expected a key, got None")
        a, b = (None, None) if not train else jax.random.split(key)
        if bug == "one key for both":
            a = b
        if bug == "the whole key and a part of it" and train:
            a, b = key, jax.random.fold_in(key, 0)
            a = jax.random.fold_in(key, 0)
        h = jnp.tanh(x @ p["a"])
        h = dropout(a, h, 0.4) if train else h
        h = h @ p["b"]
        if bug == "residual is dropped too" and train:
            return dropout(b, h + x, 0.4), state
        if bug == "drops on the residual only" and train:
            return h + dropout(b, x, 0.4, "not rescaled"), state
        if bug == "same noise in every layer of a scan" and train:
            for _ in range(2):
                h = dropout(b, h, 0.4)
            return h + x, state
        return (dropout(b, h, 0.4) if train else h) + x, state

    return layer(lambda x: {"a": (5, 8), "b": (8, 5)}, forward)


# Recurrent.


def lstm(bug=None):
    def forward(p, x):
        size = p["u"].shape[0]

        def step(carry, x):
            h, c = carry
            gates = x @ p["w"] + h @ p["u"] + p["b"]
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            if bug == "gates in another order":
                i, f, o, g = i, f, g, o
            forget = jax.nn.sigmoid(f)
            if bug == "forget gate inverted":
                forget = 1 - forget
            new = jnp.tanh(g) if bug != "sigmoid of the candidate" else jax.nn.sigmoid(g)
            c = forget * c + jax.nn.sigmoid(i) * new
            if bug == "cell is not kept":
                c = jax.nn.sigmoid(i) * new
            h_new = jax.nn.sigmoid(o) * (c if bug == "no tanh of the cell" else jnp.tanh(c))
            if bug == "old output is given":
                return (h_new, c), h
            return (h if bug == "hidden state is not kept" else h_new, c), h_new

        zeros = jnp.zeros((x.shape[0], size), x.dtype)
        if bug == "carry shared by the batch":
            zeros = zeros + x[:, 0].sum() * 0.01
        xs = x.swapaxes(0, 1)
        if bug == "time and batch swapped" and x.shape[0] == x.shape[1]:
            xs = x
        if bug == "in reverse":
            xs = xs[::-1]
        _, ys = jax.lax.scan(step, (zeros, zeros), xs)
        if bug == "outputs in reverse":
            ys = ys[::-1]
        return ys.swapaxes(0, 1)

    size = 3
    return stateless(
        lambda x: {"w": (x.shape[-1], 4 * size), "u": (size, 4 * size), "b": (4 * size,)}, forward
    )


def lstm_reference():
    def forward(p, x):
        h = c = jnp.zeros((x.shape[0], 3), x.dtype)
        ys = []
        for t in range(x.shape[1]):
            gates = (
                jnp.concatenate([x[:, t], h], axis=-1) @ jnp.concatenate([p["w"], p["u"]]) + p["b"]
            )
            i, f, g, o = (gates[:, 3 * k : 3 * k + 3] for k in range(4))
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            ys.append(h)
        return jnp.stack(ys, axis=1)

    return stateless(lambda x: {"w": (4, 12), "u": (3, 12), "b": (12,)}, forward)


def last_state(bug=None):
    """The last state of a recurrent network over sequences of different lengths."""

    def forward(p, batch):
        x, lengths = batch
        valid = jnp.arange(x.shape[1])[None] < lengths[:, None]

        def step(h, inputs):
            x, valid = inputs
            new = jnp.tanh(x @ p["w"] + h @ p["u"])
            if bug == "padding moves the state":
                return new, new
            if bug == "padding resets the state":
                return jnp.where(valid[:, None], new, 0), new
            new = jnp.where(valid[:, None], new, h)
            return new, new

        h = jnp.zeros((x.shape[0], 3), x.dtype)
        last, ys = jax.lax.scan(step, h, (x.swapaxes(0, 1), valid.T))
        if bug == "one after the last":
            at = jnp.minimum(lengths, x.shape[1] - 1)
            _, free = jax.lax.scan(
                lambda h, x: (jnp.tanh(x @ p["w"] + h @ p["u"]),) * 2, h, x.swapaxes(0, 1)
            )
            return free[at, jnp.arange(x.shape[0])]
        if bug == "mean over all steps":
            return ys.mean(axis=0)
        if bug == "first length for all":
            return ys[lengths[0] - 1, jnp.arange(x.shape[0])]
        return last

    return stateless(lambda x: {"w": (4, 3), "u": (3, 3)}, forward)


def last_reference():
    def forward(p, batch):
        x, lengths = batch
        hs = [jnp.zeros((x.shape[0], 3), x.dtype)]
        for t in range(x.shape[1]):
            hs.append(jnp.tanh(x[:, t] @ p["w"] + hs[-1] @ p["u"]))
        return jnp.stack(hs)[lengths, jnp.arange(x.shape[0])]

    return stateless(lambda x: {"w": (4, 3), "u": (3, 3)}, forward)


# Networks.


def gpt(bug=None):
    """A block of attention and an MLP, with learned positions and a tied head."""

    def embed(p, tokens, first=0):
        time = tokens.shape[1]
        positions = p["positions"][first + jnp.arange(time)]
        if bug == "positions from one":
            positions = jnp.roll(p["positions"], 1, axis=0)[:time]
        if bug == "no positions":
            positions = jnp.zeros_like(positions)
        if bug == "one position for all":
            positions = jnp.broadcast_to(p["positions"][:1], positions.shape)
        table = p["table"]
        if bug == "embedding without gradient":
            table = jax.lax.stop_gradient(table)
        return table[tokens] + positions[None]

    def norm(x):
        x = x - x.mean(axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + F32(1e-5))

    def forward(p, tokens):
        x = embed(p, tokens)
        mask = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))
        h = norm(x)
        if bug == "norm over time":
            h = norm(x.swapaxes(1, 2)).swapaxes(1, 2)
        attended = reference_attention(p, h, None if bug == "no mask" else mask)
        if bug == "attention without residual":
            x = attended
        elif bug == "residual of the normalized":
            x = h + attended
        else:
            x = x + attended
        up = jax.nn.gelu(norm(x) @ p["up"])
        if bug == "MLP is left out":
            up = 0 * up
        x = x + up @ p["down"]
        if bug == "no last norm":
            return x @ p["table"].T
        if bug == "head of its own":
            return norm(x) @ p["head"]
        if bug == "head without gradient":
            return norm(x) @ jax.lax.stop_gradient(p["table"]).T
        if bug == "logits averaged over the batch":
            y = norm(x) @ p["table"].T
            return y - y.mean(axis=0, keepdims=True)
        if bug == "logits of the next position":
            return jnp.roll(norm(x) @ p["table"].T, -1, axis=1)
        return norm(x) @ p["table"].T

    sizes = {n: (4, 4) for n in ("q", "k", "v", "o")}
    sizes |= {"table": (9, 4), "positions": (8, 4), "up": (4, 8), "down": (8, 4)}
    if bug == "head of its own":
        sizes["head"] = (4, 9)
    return stateless(lambda x: sizes, forward)


def deep_set(bug=None):
    def forward(p, x):
        h = jnp.tanh(x @ p["a"])
        if bug == "weights by position":
            h = h * (1 + jnp.arange(x.shape[1], dtype=F32) / 10)[None, :, None]
        if bug == "first element counts double":
            h = jnp.concatenate([h, h[:, :1]], axis=1)
        if bug == "last element is left out":
            h = h[:, :-1]
        if bug == "difference of neighbors":
            h = h - jnp.roll(h, 1, axis=1) * 0.1 + jnp.tanh(h * jnp.roll(h, 1, axis=1))
        if bug == "sum over the batch":
            return h.sum(axis=0).mean(axis=0)[None] @ p["b"] + jnp.zeros((len(x), 1), F32)
        pooled = h.mean(axis=1)
        if bug == "flattened":
            pooled = h.reshape(len(x), -1)[:, : h.shape[-1]]
        return pooled @ p["b"]

    return stateless(lambda x: {"a": (4, 6), "b": (6, 3)}, forward)


def set_reference():
    def forward(p, x):
        return jnp.einsum("bth,hk->bk", jnp.tanh(x @ p["a"]), p["b"]) / F32(x.shape[1])

    return stateless(lambda x: {"a": (4, 6), "b": (6, 3)}, forward)


def finetuned(bug=None):
    """A frozen encoder and a trained head."""

    def forward(p, x):
        h = jnp.tanh(x @ p["encoder"])
        if bug == "nothing is frozen":
            pass
        elif bug == "all is frozen":
            return jax.lax.stop_gradient(h @ p["head"])
        elif bug == "parameters frozen, not the bias":
            h = jnp.tanh(x @ jax.lax.stop_gradient(p["encoder"]) + p["encoder"].sum() * 1e-3)
        else:
            h = jax.lax.stop_gradient(h)
        if bug == "head frozen instead":
            h = jnp.tanh(x @ p["encoder"])
            return h @ jax.lax.stop_gradient(p["head"])
        return h @ p["head"]

    return stateless(lambda x: {"encoder": (5, 6), "head": (6, 2)}, forward)


def experts(bug=None):
    """A mixture of two experts with a soft gate."""

    def forward(p, x):
        gate = jax.nn.softmax(x @ p["gate"], axis=0 if bug == "gate over the batch" else -1)
        if bug == "hard gate without gradient":
            gate = jax.nn.one_hot(jnp.argmax(gate, axis=-1), 2, dtype=x.dtype)
        outputs = jnp.stack([jnp.tanh(x @ p["a"]), jnp.tanh(x @ p["b"])], axis=1)
        if bug == "one expert for both":
            outputs = jnp.stack([jnp.tanh(x @ p["a"])] * 2, axis=1)
        if bug == "gates swapped":
            gate = gate[:, ::-1]
        if bug == "gates do not add to one":
            gate = jax.nn.sigmoid(x @ p["gate"])
        return (gate[..., None] * outputs).sum(axis=1)

    return stateless(lambda x: {"gate": (5, 2), "a": (5, 3), "b": (5, 3)}, forward)


def experts_reference():
    def forward(p, x):
        z = jax.nn.sigmoid((x @ p["gate"])[:, :1] - (x @ p["gate"])[:, 1:])
        return z * jnp.tanh(x @ p["a"]) + (1 - z) * jnp.tanh(x @ p["b"])

    return stateless(lambda x: {"gate": (5, 2), "a": (5, 3), "b": (5, 3)}, forward)


def custom_gradient(bug=None):
    """Softplus with a derivative by hand."""

    @jax.custom_vjp
    def softplus(x):
        return jnp.logaddexp(x, 0)

    def forward(x):
        return softplus(x), x

    def backward(x, g):
        slope = {
            "slope of tanh": 1 - jnp.square(jnp.tanh(x)),
            "sign": -jax.nn.sigmoid(x),
            "cotangent is not used": jax.nn.sigmoid(x) / jnp.where(g == 0, 1, g),
            "slope is constant": jnp.ones_like(x) / 2,
        }.get(bug, jax.nn.sigmoid(x))
        return (g * slope,)

    softplus.defvjp(forward, backward)
    return stateless(lambda x: {"w": (5, 3)}, lambda p, x: softplus(x @ p["w"]))


ROLL = partial(jnp.roll, shift=1, axis=1)

FAMILIES = [
    Family(
        kind="model",
        name="dense by hand",
        base=dense(),
        args=(X,),
        bugs=variants(
            dense,
            "no gradient of the kernel",
            "bias is not added",
            "bias of the first unit for all",
            "bias summed over the batch",
            "output normalized over the batch",
            "rounded output",
            "product in 8 bits",
            "relu forgotten to be removed",
            "mean instead of sum over inputs",
            "bias is subtracted",
            "index of the example is added",
        )
        | variants(
            dense_init,
            "one key for kernel and bias",
            "the key is ignored",
            "kernel of the shape of the batch",
            "scaled by the batch",
            "an integer among the parameters",
        )
        | variants(
            two_layers,
            "both layers from one key",
            "the same array twice",
            "second layer uses the first kernel",
        )
        | variants(
            impure,
            "a counter outside of the function",
            "other result when traced",
            "parameters are changed in place",
            "NumPy noise",
            "only for one batch size",
            "batch axis last",
            "choice by value",
        ),
        like={
            "like": stateless(
                lambda x: {"w": (5, 3), "b": (3,)},
                lambda p, x: jnp.einsum("bi,ij->bj", x, p["w"]) + p["b"][None],
            )
        },
    ),
    Family(
        kind="model",
        name="causal attention by hand",
        base=attention(),
        args=(SEQUENCES,),
        declared={"causal": True},
        like={"like": causal_reference()},
        bugs=variants(
            attention,
            "no scale",
            "scale of all heads",
            "scale twice",
            "sees the next",
            "mask of the wrong side",
            "does not see itself",
            "sees itself only",
            "mask after softmax",
            "mask is added as 0 and 1",
            "softmax over queries",
            "softmax over heads",
            "no softmax",
            "mask of minus one",
            "no mask",
            "exp without maximum",
            "keys as values",
            "heads swapped with features",
            "heads swapped with time",
            "no projection",
        ),
    ),
    Family(
        kind="model",
        name="attention over sets by hand",
        base=attention(causal=False),
        args=(SEQUENCES,),
        declared={"equivariant": [("a shift of time", ROLL, ROLL)]},
        like={"like": full_reference()},
        bugs=variants(
            partial(attention, causal=False),
            "no scale",
            "softmax over queries",
            "mask after softmax",
            "keys as values",
            "heads swapped with time",
            "softmax over heads",
        ),
    ),
    Family(
        kind="model",
        name="mean over attended sequences with lengths",
        base=padded_attention(),
        args=({"x": SEQUENCES, "lengths": LENGTHS},),
        declared={"lengths": "lengths"},
        like={"like": padded_reference()},
        bugs=variants(
            padded_attention,
            "length off by one",
            "mask of queries and not of keys",
            "no mask",
            "mask of the first example for all",
            "mask of minus three",
            "mean over all positions",
            "sum over valid divided by all",
            "last position",
            "lengths not read in the mean",
        ),
    ),
    Family(
        kind="model",
        name="rotary positions by hand",
        base=rotated(),
        args=(SEQUENCES,),
        like={"like": shifted_rotation()},
        bugs=variants(
            rotated,
            "sign of the sine",
            "only half is turned",
            "cosine twice",
            "keys in reverse",
            "keys are not turned",
            "one rate for all",
        ),
    ),
    Family(
        kind="model",
        name="causal convolution by hand",
        base=conv1d(),
        args=(SEQUENCES,),
        declared={"causal": True},
        like={"like": conv1d_reference()},
        bugs=variants(
            conv1d,
            "padded on the right",
            "padded on both sides",
            "edge is repeated",
            "a tap twice",
            "a tap is left out",
            "kernel reversed",
            "wraps around",
        ),
    ),
    Family(
        kind="model",
        name="periodic convolution and mean by hand",
        base=conv2d(),
        args=(IMAGES,),
        declared={"invariant": [("a shift", lambda x: jnp.roll(x, (1, 2), axis=(1, 2)))]},
        like={"like": conv2d_reference()},
        bugs=variants(
            conv2d,
            "zeros at the border",
            "height and width of the kernel swapped",
            "stride of two in one axis",
            "a corner is lost",
            "mean over channels",
            "mean over the batch",
            "flattened and cut",
            "sum instead of mean",
        ),
    ),
    Family(
        kind="model",
        name="layer norm by hand",
        base=layer_norm(),
        args=(SEQUENCES,),
        declared={"normalized_axes": (-1,)},
        like={"like": torch_layer_norm()},
        bugs=variants(
            layer_norm,
            "over the batch",
            "over all",
            "over time",
            "unbiased variance",
            "variance without the mean",
            "no eps",
            "large eps",
            "divided by the variance",
            "mean is not subtracted",
            "statistics have no gradient",
            "scale is not used",
            "mean of squares minus square of mean, in bfloat16",
        ),
    ),
    Family(
        kind="model",
        name="batch norm by hand",
        base=batch_norm(),
        args=(normal(6, 4),),
        declared={"statistics": True, "normalized_axes": (0,)},
        like={"like": batch_norm_reference()},
        bugs=variants(
            batch_norm,
            "statistics of the features",
            "variance around zero",
            "batch statistics in evaluation",
            "running statistics in training",
            "moves in evaluation",
            "never moves",
            "decay swapped",
            "weights of the average add to more",
            "only the mean moves",
            "variance is updated by the mean",
            "state in bfloat16",
            "state becomes a tuple",
            "standard deviation kept as variance",
        ),
    ),
    Family(
        kind="model",
        name="RMS norm by hand",
        base=rms_norm(),
        args=(SEQUENCES,),
        declared={"normalized_axes": (-1,), "centered": False},
        like={"like": rms_reference()},
        bugs=variants(
            rms_norm,
            "sum of squares",
            "over time",
            "absolute values",
            "maximum",
            "norm without eps",
        ),
    ),
    Family(
        kind="model",
        name="dropout by hand",
        base=one_dropout(),
        args=(normal(4, 12),),
        declared={"noisy": True, "unbiased_noise": True},
        like={"like": dropout_reference()},
        bugs=variants(
            one_dropout,
            "one mask for the batch",
            "one mask for all features",
            "keeps what it drops",
            "not rescaled",
            "rescaled by the rate",
            "noise has no gradient",
            "drops in evaluation when it has a key",
            "does not drop",
            "rescales in evaluation",
            "the key is ignored",
        ),
    ),
    Family(
        kind="model",
        name="residual block with two dropouts",
        base=two_dropouts(),
        args=(X,),
        declared={"noisy": True, "unbiased_noise": True},
        bugs=variants(
            two_dropouts,
            "one key for both",
            "the whole key and a part of it",
            "same noise in every layer of a scan",
            "drops on the residual only",
        ),
    ),
    Family(
        kind="model",
        name="LSTM by hand",
        base=lstm(),
        args=(SEQUENCES,),
        declared={"causal": True},
        like={"like": lstm_reference()},
        bugs=variants(
            lstm,
            "gates in another order",
            "forget gate inverted",
            "sigmoid of the candidate",
            "cell is not kept",
            "no tanh of the cell",
            "old output is given",
            "hidden state is not kept",
            "carry shared by the batch",
            "in reverse",
            "outputs in reverse",
        ),
    ),
    Family(
        kind="model",
        name="last state of sequences with lengths",
        base=last_state(),
        args=((SEQUENCES, LENGTHS),),
        declared={"lengths": 1},
        like={"like": last_reference()},
        bugs=variants(
            last_state,
            "padding moves the state",
            "padding resets the state",
            "one after the last",
            "mean over all steps",
            "first length for all",
        ),
    ),
    Family(
        kind="model",
        name="GPT of one block by hand",
        base=gpt(),
        args=(TOKENS,),
        declared={"causal": True, "tied": "table"},
        bugs=variants(
            gpt,
            "positions from one",
            "no positions",
            "one position for all",
            "embedding without gradient",
            "norm over time",
            "no mask",
            "attention without residual",
            "residual of the normalized",
            "MLP is left out",
            "head of its own",
            "head without gradient",
            "logits averaged over the batch",
            "logits of the next position",
        ),
        like={"like": gpt("")},
    ),
    Family(
        kind="model",
        name="deep set by hand",
        base=deep_set(),
        args=(SEQUENCES,),
        declared={"invariant": [("a shift of the set", ROLL)]},
        like={"like": set_reference()},
        bugs=variants(
            deep_set,
            "weights by position",
            "first element counts double",
            "last element is left out",
            "difference of neighbors",
            "sum over the batch",
            "flattened",
        ),
    ),
    Family(
        kind="model",
        name="frozen encoder and head",
        base=finetuned(),
        args=(X,),
        # A frozen encoder has no gradient: without the declaration this is a broken law.
        needed={"frozen": "encoder", "smooth": False},
        bugs=variants(
            finetuned,
            "nothing is frozen",
            "all is frozen",
            "parameters frozen, not the bias",
            "head frozen instead",
        ),
    ),
    Family(
        kind="model",
        name="two experts by hand",
        base=experts(),
        args=(X,),
        like={"like": experts_reference()},
        bugs=variants(
            experts,
            "gate over the batch",
            "hard gate without gradient",
            "one expert for both",
            "gates swapped",
            "gates do not add to one",
        ),
    ),
    Family(
        kind="model",
        name="softplus with a derivative by hand",
        base=custom_gradient(),
        args=(X,),
        bugs=variants(custom_gradient, "slope of tanh", "sign", "slope is constant"),
    ),
]
