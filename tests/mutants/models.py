"""Small whole networks in plain JAX, and what goes wrong in them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.types import Model
from tests.mutants.family import Family

F32 = jnp.float32


def normal(*shape, seed=0):
    """Random numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), F32)


def network(shapes: Any, forward: Callable, state: Any = ()) -> Model:
    """A model of `forward(params, state, x, key, train) -> y, state`; vectors start at 0."""

    def init(key, x):
        leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda s: isinstance(s, tuple))
        keys = jax.random.split(key, len(leaves))
        drawn = [
            0.5 * jax.random.normal(k, shape, F32) if len(shape) > 1 else jnp.zeros(shape, F32)
            for k, shape in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn), jax.tree.map(jnp.array, state)

    def apply(params, state, x, *, key=None, train=False):
        return forward(params, state, x, key, train)

    return Model(init, apply)


def stateless(shapes: Any, forward: Callable) -> Model:
    """A model of `forward(params, x)`."""
    return network(shapes, lambda params, state, x, key, train: (forward(params, x), state))


def variants(make: Callable[[str], Model], *bugs: str) -> dict[str, Model]:
    """The broken copies of `make(bug)`."""
    return {bug: make(bug) for bug in bugs}


def wide(vector, x):
    """A vector of features as an array of the shape of x."""
    return jnp.broadcast_to(vector, x.shape)


def norm(x, scale, axis=-1):
    """Layer norm."""
    x = x - x.mean(axis=axis, keepdims=True)
    root = jnp.sqrt(jnp.square(x).mean(axis=axis, keepdims=True) + 1e-5)
    return x / root * wide(1 + scale, x)


def standardized(x, scale):
    """Layer norm of JAX, for references."""
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * wide(1 + scale, x)


# Sequences of tokens.

BLOCK = {"qkv": (4, 12), "out": (4, 4), "up": (4, 6), "down": (6, 4), "first": (4,), "second": (4,)}
GPT = {"table": (9, 4), "positions": (8, 4), "blocks": [BLOCK, BLOCK], "norm": (4,)}
TEXT = jnp.array([[1, 5, 0, 7, 2, 5], [3, 3, 8, 1, 0, 6], [7, 2, 5, 0, 4, 1]], jnp.int32)


def gpt(bug=None):
    """Two blocks of two heads with norms before, learned positions and a tied head."""

    def attend(p, x):
        batch, time, width = x.shape
        parts = jnp.split(x @ p["qkv"], 3, axis=-1)
        if bug == "heads are cut out of time":
            q, k, v = (a.reshape(batch, 2, time, -1).swapaxes(1, 2) for a in parts)
        else:
            q, k, v = (a.reshape(batch, time, 2, -1) for a in parts)
        size = width if bug == "scale of the whole width" else width // 2
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / size**0.5
        mask = jnp.tril(jnp.ones((time, time), bool), 1 if bug == "mask is off by one" else 0)
        if bug == "softmax in bfloat16":
            logits = logits.astype(jnp.bfloat16)
        weights = jax.nn.softmax(jnp.where(mask[None, None], logits, -1e9), axis=-1)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(x.dtype), v)
        return y.reshape(x.shape) @ p["out"]

    def block(p, x):
        axis = (1, 2) if bug == "norm over time and features" else -1
        h = norm(x, p["first"], axis)
        if bug == "attention over the batch":
            x = x + attend(p, h.swapaxes(0, 1)).swapaxes(0, 1)
        elif bug == "norm after the residual":
            x = norm(x + attend(p, x), p["first"])
        else:
            x = x + attend(p, h)
        return x + jax.nn.gelu(norm(x, p["second"]) @ p["up"]) @ p["down"]

    def forward(p, tokens):
        positions = p["positions"][: tokens.shape[1]]
        if bug == "positions counted from the end":
            positions = positions[::-1]
        x = p["table"][tokens]
        if bug == "embedding times the root of the width":
            x = 2 * x
        x = x + wide(positions, x)
        for i in range(2):
            x = block(p["blocks"][0 if bug == "first block twice" else i], x)
        if bug != "last norm is left out":
            x = norm(x, p["norm"])
        if bug == "head of its own":
            return x @ p["head"].T
        return x @ p["table"].T

    return stateless(GPT | ({"head": (9, 4)} if bug == "head of its own" else {}), forward)


def gpt_reference():
    def forward(p, tokens):
        x = jnp.take(p["table"], tokens, axis=0)
        x = x + wide(p["positions"][: tokens.shape[1]], x)
        for b in p["blocks"]:
            h = standardized(x, b["first"])
            q, k, v = ((h @ b["qkv"][:, i : i + 4]).reshape(*x.shape[:2], 2, 2) for i in (0, 4, 8))
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + y.reshape(x.shape) @ b["out"]
            x = x + jax.nn.gelu(standardized(x, b["second"]) @ b["up"]) @ b["down"]
        return jnp.einsum("btd,vd->btv", standardized(x, p["norm"]), p["table"])

    return stateless(GPT, forward)


ENCODER = {
    "table": (9, 4),
    "positions": (6, 4),
    "class": (1, 4),
    "layers": [{"q": (4, 4), "k": (4, 4), "v": (4, 4)}] * 2,
    "norm": (4,),
    "head": (4, 3),
}
PADDED = {
    "tokens": TEXT,
    "mask": jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]], bool),
}


def encoder(bug=None):
    """Two layers of attention over a class token and the tokens that the mask keeps."""

    def forward(p, batch):
        tokens, mask = batch["tokens"], batch["mask"]
        if bug == "True stands for padding":
            mask = ~mask
        if bug == "padding is read off token 0":
            mask = tokens != 0
        x = p["table"][tokens]
        x = x + wide(p["positions"][: x.shape[1]], x)
        first = jnp.broadcast_to(p["class"][None], (len(x), 1, 4))
        if bug == "class token is not learned":
            first = jax.lax.stop_gradient(first)
        x = jnp.concatenate([first, x], axis=1)
        one = jnp.ones((len(x), 1), bool)
        valid = jnp.concatenate([one, mask], axis=1)
        if bug == "mask is extended at the wrong end":
            valid = jnp.concatenate([mask, one], axis=1)
        for i, layer in enumerate(p["layers"]):
            q, k, v = (x @ layer[name] for name in "qkv")
            logits = jnp.einsum("bqd,bkd->bqk", q, k) / 2
            keep = valid[:, None, :]
            if bug == "mask of the queries":
                keep = valid[:, :, None]
            if bug == "mask in the first layer only" and i == 1:
                keep = jnp.ones_like(keep)
            if bug == "mask is weak":
                weights = jax.nn.softmax(logits + 4.0 * (keep.astype(x.dtype) - 1), axis=-1)
            elif bug == "weights of the padding are zeroed at the end":
                weights = jax.nn.softmax(logits, axis=-1) * keep.astype(x.dtype)
            else:
                weights = jax.nn.softmax(jnp.where(keep, logits, -1e9), axis=-1)
            x = x + jnp.tanh(weights @ v)
        x = norm(x, p["norm"])
        if bug == "mean over all positions":
            return x.mean(axis=1) @ p["head"]
        if bug == "last position instead of the first":
            return x[:, -1] @ p["head"]
        return x[:, 0] @ p["head"]

    return stateless(ENCODER, forward)


def encoder_reference():
    """One example at a time, with weights as fractions of exponentials."""

    def one(p, tokens, mask):
        x = jnp.take(p["table"], tokens, axis=0) + p["positions"][: len(tokens)]
        x = jnp.concatenate([p["class"], x])
        keep = jnp.concatenate([jnp.ones(1, bool), mask]).astype(x.dtype)[None]
        for layer in p["layers"]:
            logits = (x @ layer["q"]) @ (x @ layer["k"]).T / jnp.sqrt(F32(4))
            power = jnp.exp(logits - logits.max(axis=-1, keepdims=True)) * keep
            x = x + jnp.tanh(power @ (x @ layer["v"]) / power.sum(axis=-1, keepdims=True))
        return standardized(x, p["norm"])[0] @ p["head"]

    def forward(p, batch):
        return jax.vmap(lambda t, m: one(p, t, m))(batch["tokens"], batch["mask"])

    return stateless(ENCODER, forward)


CELL = {"wx": (4, 8), "wh": (4, 8), "b": (8,), "nx": (4, 4), "nh": (4, 4), "c": (4,)}
GRU = {"table": (9, 4), "layers": [CELL, CELL], "head": (4, 9)}


def recurrent_lm(bug=None):
    """A language model of two GRU layers."""

    def cell(p, h, x):
        if bug == "state averaged over the batch":
            h = jnp.broadcast_to(h.mean(axis=0, keepdims=True), h.shape)
        if bug == "gradient is cut at every step":
            h = jax.lax.stop_gradient(h)
        if bug == "state in bfloat16":
            h = h.astype(jnp.bfloat16).astype(x.dtype)
        gates = x @ p["wx"] + h @ p["wh"]
        r, z = jnp.split(jax.nn.sigmoid(gates + wide(p["b"], gates)), 2, axis=-1)
        if bug == "reset and update swapped":
            r, z = z, r
        inside = (r * h) @ p["nh"] if bug == "reset before the product" else r * (h @ p["nh"])
        if bug == "reset is not used":
            inside = h @ p["nh"]
        new = jnp.tanh(x @ p["nx"] + inside + wide(p["c"], inside))
        if bug == "update gate inverted":
            z = 1 - z
        return (1 - z) * new + z * h

    def layer(p, x, first):
        def step(h, x):
            new = cell(p, h, x)
            return new, h if bug == "state before the step is given" else new

        if bug == "scan over the batch":
            return jax.lax.scan(step, jnp.zeros_like(x[0]), x)
        last, ys = jax.lax.scan(step, first, x.swapaxes(0, 1))
        return last, ys.swapaxes(0, 1)

    def forward(p, tokens):
        x = p["table"][tokens]
        first = jnp.zeros((len(tokens), 4), x.dtype)
        last, h = layer(p["layers"][0], x, first)
        if bug == "second layer starts at the end of the first":
            first = last
        if bug == "second layer reads the embedding":
            h = x
        _, y = layer(p["layers"][1], h, first)
        if bug == "backward pass is added":
            y = y + layer(p["layers"][1], h[:, ::-1], first)[1][:, ::-1]
        return y @ p["head"]

    return stateless(GRU, forward)


def recurrent_reference():
    def forward(p, tokens):
        x = jnp.moveaxis(p["table"][tokens], 1, 0)
        for c in p["layers"]:
            h, ys = jnp.zeros_like(x[0]), []
            for frame in x:
                both = jnp.concatenate([frame, h], axis=1) @ jnp.concatenate([c["wx"], c["wh"]])
                gates = jax.nn.sigmoid(both + wide(c["b"], both))
                reset, update = gates[:, :4], gates[:, 4:]
                inside = frame @ c["nx"] + wide(c["c"], h) + reset * (h @ c["nh"])
                h = h + (1 - update) * (jnp.tanh(inside) - h)
                ys.append(h)
            x = jnp.stack(ys)
        return jnp.einsum("tbd,dv->btv", x, p["head"])

    return stateless(GRU, forward)


DIRECTIONS = {n: {"w": (3, 4), "u": (4, 4), "b": (4,)} for n in ("forward", "backward")}
FRAMES = {"x": normal(3, 6, 3), "lengths": jnp.array([6, 3, 4], jnp.int32)}


def bidirectional(bug=None):
    """Recurrent states of both directions, 0 at the padding."""

    def states(p, x):
        def step(h, x):
            h = x @ p["w"] + h @ p["u"]
            h = jnp.tanh(h + wide(p["b"], h))
            return h, h

        first = jnp.zeros((len(x), 4), x.dtype)
        return jax.lax.scan(step, first, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    def forward(p, batch):
        x, lengths = batch["x"], batch["lengths"]
        if bug == "length of the first example for all":
            lengths = jnp.broadcast_to(lengths[:1], lengths.shape)
        time = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
        valid = time < lengths[:, None]
        last = lengths[:, None] - (0 if bug == "reversal is off by one" else 1)
        index = jnp.where(valid, last - time, time)[..., None]

        def turn(x):
            if bug == "padding is reversed to the front":
                return x[:, ::-1]
            return jnp.take_along_axis(x, index, axis=1)

        there = states(p["forward"], x)
        kernel = "forward" if bug == "one kernel for both directions" else "backward"
        back = states(p[kernel], turn(x))
        if bug != "backward states are not turned back":
            back = turn(back)
        if bug == "states are centered over the padded time":
            back = back - back.mean(axis=1, keepdims=True)
        y = jnp.concatenate([there, back], axis=-1)
        return jnp.where(valid[..., None], y, 0)

    return stateless(DIRECTIONS, forward)


def bidirectional_reference():
    def run(p, x, valid, times):
        h, ys = jnp.zeros((len(x), 4), x.dtype), {}
        for t in times:
            new = jnp.tanh(x[:, t] @ p["w"] + h @ p["u"] + wide(p["b"], h))
            h = jnp.where(valid[:, t : t + 1], new, h)
            ys[t] = jnp.where(valid[:, t : t + 1], h, 0)
        return jnp.stack([ys[t] for t in sorted(ys)], axis=1)

    def forward(p, batch):
        x, time = batch["x"], batch["x"].shape[1]
        valid = jnp.arange(time, dtype=jnp.int32)[None] < batch["lengths"][:, None]
        there = run(p["forward"], x, valid, range(time))
        return jnp.concatenate([there, run(p["backward"], x, valid, range(time)[::-1])], axis=-1)

    return stateless(DIRECTIONS, forward)


# Images and signals.

IMAGES = normal(4, 5, 5, 2, seed=1)
RESNET = {
    "stem": (2, 3),
    "convs": [(3, 3, 3, 3), (3, 3, 3, 3)],
    "norms": [{"scale": (3,), "shift": (3,)}] * 2,
    "head": (3, 2),
}
STATISTICS = [{"mean": jnp.zeros(3, F32), "var": jnp.ones(3, F32)} for _ in range(2)]


def resnet(bug=None):
    """A residual block of two convolutions with batch norm, mean pooling and a head."""

    def batch_norm(p, state, x, train):
        axes = (1, 2) if bug == "statistics of each image" else (0, 1, 2)
        mean = x.mean(axis=axes, keepdims=True)
        spread = x if bug == "variance around zero" else x - mean
        var = jnp.square(spread).mean(axis=axes, keepdims=True)
        if bug == "unbiased variance in training":
            var = var * (x[..., 0].size / max(x[..., 0].size - 1, 1))
        if bug == "statistics have no gradient":
            mean, var = jax.lax.stop_gradient((mean, var))
        new = state
        if train:
            old = 0.1 if bug == "weights of old and new swapped" else 0.9
            now = {"mean": mean.mean(axis=(0, 1, 2)), "var": var.mean(axis=(0, 1, 2))}
            new = jax.tree.map(lambda a, b: old * a + (1 - old) * b, state, now)
            if bug == "state is changed in place":
                state.update(new)
                new = state
        if not train and bug != "batch statistics in evaluation":
            mean, var = (wide(state[n], x) for n in ("mean", "var"))
        if bug == "eps is not under the root":
            y = (x - mean) / (jnp.sqrt(var) + 1e-5)
        else:
            y = (x - mean) / jnp.sqrt(var + 1e-5)
        return y * wide(1 + p["scale"], x) + wide(p["shift"], x), new

    def conv(x, w):
        padding = [(2, 0), (2, 0)] if bug == "padding on one side" else "SAME"
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def forward(p, state, x, key, train):
        x = x @ p["stem"]
        h, first = batch_norm(p["norms"][0], state[0], conv(x, p["convs"][0]), train)
        h = jax.nn.silu(h)
        other = first if bug == "one state for both norms" else state[1]
        h, second = batch_norm(p["norms"][1], other, conv(h, p["convs"][1]), train)
        if bug == "state of the second norm is lost":
            second = state[1]
        if bug == "shortcut after the activation":
            h = x + jax.nn.silu(h)
        else:
            h = jax.nn.silu(h if bug == "shortcut is left out" else x + h)
        if bug == "sum instead of mean over the pixels":
            return h.sum(axis=(1, 2)) @ p["head"], [first, second]
        return h.mean(axis=(1, 2)) @ p["head"], [first, second]

    return network(RESNET, forward, STATISTICS)


def resnet_reference():
    """Convolution by shifted images, statistics with `jnp.var`."""

    def conv(x, w):
        high, across = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(x[:, i : i + high, j : j + across] @ w[i, j] for i in range(3) for j in range(3))

    def forward(p, state, x, key, train):
        x, new = x @ p["stem"], []
        h = x
        for i in range(2):
            h = conv(jax.nn.silu(h) if i else h, p["convs"][i])
            m, v = state[i]
            if train:
                m, v = h.mean(axis=(0, 1, 2)), h.var(axis=(0, 1, 2))
                new.append((0.9 * state[i][0] + 0.1 * m, 0.9 * state[i][1] + 0.1 * v))
            h = (h - wide(m, h)) * wide(jax.lax.rsqrt(v + 1e-5) * (1 + p["norms"][i]["scale"]), h)
            h = h + wide(p["norms"][i]["shift"], h)
        y = jnp.einsum("bhwc,ck->bk", jax.nn.silu(x + h), p["head"]) / (x.shape[1] * x.shape[2])
        return y, new if train else state

    return network(RESNET, forward, [(jnp.zeros(3, F32), jnp.ones(3, F32)) for _ in range(2)])


SQUARES = normal(3, 4, 4, 2, seed=2)
VIT = {
    "patch": (8, 4),
    "class": (1, 4),
    "positions": (5, 4),
    "qkv": (4, 12),
    "up": (4, 6),
    "down": (6, 4),
    "first": (4,),
    "second": (4,),
    "head": (4, 3),
}


def vit(bug=None):
    """A transformer block over a class token and four patches of an image."""

    def patches(x):
        b, channels = len(x), x.shape[-1]
        if bug == "patches are rows of pixels":
            return x.reshape(b, 4, 4 * channels)
        order = {
            "pixels of a patch transposed": (0, 1, 3, 4, 2, 5),
            "patches go down first": (0, 3, 1, 2, 4, 5),
        }.get(bug, (0, 1, 3, 2, 4, 5))
        return x.reshape(b, 2, 2, 2, 2, channels).transpose(order).reshape(b, 4, 4 * channels)

    def forward(p, x):
        x = patches(x) @ p["patch"]
        start = jnp.broadcast_to(p["class"][:, None], (len(x), 1, 4))
        parts = [x, start] if bug == "class token at the end, head at the front" else [start, x]
        x = jnp.concatenate(parts, axis=1)
        positions = p["positions"]
        if bug == "one position for all":
            positions = jnp.broadcast_to(positions[:1], positions.shape)
        if bug == "class token without a position":
            positions = positions.at[0].set(0)
        x = x + wide(positions, x)
        h = norm(x, p["first"], 1) if bug == "norm over the patches" else norm(x, p["first"])
        q, k, v = jnp.split(h @ p["qkv"], 3, axis=-1)
        logits = jnp.einsum("bqd,bkd->bqk", q, k) / 2
        axis = 1 if bug == "softmax over the queries" else 2
        x = x + jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(logits, axis=axis), v)
        x = x + jax.nn.gelu(norm(x, p["second"]) @ p["up"]) @ p["down"]
        if bug == "head reads the mean":
            return x.mean(axis=1) @ p["head"]
        return x[:, 0] @ p["head"]

    good = stateless(VIT, forward)
    if bug == "class token for each example of the batch":
        return Model(
            lambda key, x: stateless(VIT | {"class": (len(x), 4)}, forward).init(key, x), good[1]
        )
    return good


def vit_reference():
    def forward(p, x):
        h = jax.lax.conv_general_dilated(
            x,
            p["patch"].reshape(2, 2, 2, 4),
            (2, 2),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).reshape(len(x), 4, 4)
        x = jnp.concatenate([jnp.tile(p["class"][None], (len(x), 1, 1)), h], axis=1)
        x = x + wide(p["positions"], x)
        h = standardized(x, p["first"])
        q, k, v = ((h @ p["qkv"][:, i : i + 4])[:, :, None] for i in (0, 4, 8))
        x = x + jax.nn.dot_product_attention(q, k, v)[:, :, 0]
        x = x + jax.nn.gelu(standardized(x, p["second"]) @ p["up"]) @ p["down"]
        return jnp.einsum("bd,dk->bk", x[:, 0], p["head"])

    return stateless(VIT, forward)


SIGNALS = normal(3, 8, 2, seed=3)
UNET = {"down": (3, 2, 3), "bottom": (3, 3, 3), "up": (3, 6, 2)}


def unet(bug=None):
    """One level down and up over periodic signals, with a skip connection."""

    def conv(x, w):
        mode = "constant" if bug == "zeros at the border" else "wrap"
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), mode=mode)
        return sum(x[:, i : i + x.shape[1] - 2] @ w[i] for i in range(3))

    def forward(p, x):
        a = jnp.tanh(conv(x, p["down"]))
        half = x.shape[1] // 2
        if bug == "pairs of the far ends":
            h = a.reshape(len(x), 2, half, -1).mean(axis=1)
        elif bug == "every other step is dropped":
            h = a[:, ::2]
        else:
            h = a.reshape(len(x), half, 2, -1).mean(axis=2)
        h = jnp.tanh(conv(h, p["bottom"]))
        if bug == "tiled instead of repeated":
            h = jnp.tile(h, (1, 2, 1))
        else:
            h = jnp.repeat(h, 2, axis=1)
        if bug == "upsampled by one step too far":
            h = jnp.roll(h, 1, axis=1)
        if bug == "skip has no gradient":
            a = jax.lax.stop_gradient(a)
        if bug == "skip is left out":
            a = jnp.zeros_like(a)
        if bug == "skip is centered over the batch":
            a = a - a.mean(axis=0, keepdims=True)
        return conv(jnp.concatenate([a, h], axis=-1), p["up"])

    return stateless(UNET, forward)


def unet_reference():
    def conv(x, w):
        return sum(jnp.einsum("btc,cd->btd", jnp.roll(x, 1 - i, axis=1), w[i]) for i in range(3))

    def forward(p, x):
        a = jnp.tanh(conv(x, p["down"]))
        h = jnp.tanh(conv((a[:, ::2] + a[:, 1::2]) / 2, p["bottom"]))
        h = jnp.stack([h, h], axis=2).reshape(a.shape)
        return conv(a, jnp.split(p["up"], 2, axis=1)[0]) + conv(h, p["up"][:, 3:])

    return stateless(UNET, forward)


# Noise.

ROWS = normal(4, 6, seed=4)
VAE = {"encoder": (6, 5), "mean": (5, 2), "log_var": (5, 2), "decoder": (2, 6)}


def vae(bug=None):
    """A variational autoencoder with a linear decoder."""

    def forward(p, state, x, key, train):
        h = jnp.tanh(x @ p["encoder"])
        mean, log_var = h @ p["mean"], h @ p["log_var"]
        if bug == "mean and log variance swapped":
            mean, log_var = log_var, mean
        if bug == "noise in evaluation" and not train:
            train, key = True, jax.random.key(0)
        z = mean
        if train and bug != "no noise":
            shape = (1, 2) if bug == "one draw for the batch" else z.shape
            if bug == "the key is ignored":
                key = jax.random.key(0)
            if bug == "uniform noise that is not centered":
                noise = jax.random.uniform(key, shape, z.dtype)
            else:
                noise = jax.random.normal(key, shape, z.dtype)
            std = jnp.exp(log_var / (1 if bug == "variance as standard deviation" else 2))
            if bug == "noise as large for all":
                std = jnp.ones_like(std)
            z = mean + std * jnp.broadcast_to(noise, z.shape)
            if bug == "sample has no gradient":
                z = jax.lax.stop_gradient(z)
            if bug == "scale has no gradient":
                z = mean + jax.lax.stop_gradient(z - mean)
        return {"y": z @ p["decoder"], "mean": mean, "log_var": log_var}, state

    return network(VAE, forward)


def vae_reference():
    def forward(p, state, x, key, train):
        h = jnp.tanh(jnp.einsum("bi,ij->bj", x, p["encoder"]))
        mean, log_var = jnp.split(h @ jnp.concatenate([p["mean"], p["log_var"]], axis=1), 2, axis=1)
        z = mean
        if train:
            keys = jax.random.split(jax.random.fold_in(key, 5), len(x))
            noise = jax.vmap(lambda k: jax.random.normal(k, (2,), x.dtype))(keys)
            z = z + jnp.sqrt(jnp.exp(log_var)) * noise
        return {"y": z @ p["decoder"], "mean": mean, "log_var": log_var}, state

    return network(VAE, forward)


DENOISER = {"x": (5, 6), "time": (6, 6), "b": (6,), "out": (6, 5)}
NOISED = {"x": normal(4, 5, seed=5), "t": jnp.array([1, 7, 3, 12], jnp.int32)}


def denoiser(bug=None):
    """The noise in x at time t, from sines of the time at three rates."""

    def forward(p, batch):
        x, t = batch["x"], batch["t"].astype(batch["x"].dtype)
        if bug == "time of the first example for all":
            t = jnp.broadcast_to(t[:1], t.shape)
        if bug == "time relative to the largest of the batch":
            t = t / t.max()
        steps = jnp.arange(3, dtype=jnp.int32)
        powers = (steps // 3).astype(F32) if bug == "powers divided as integers" else steps / 3
        rates = jnp.power(10.0, powers if bug == "rates grow" else -powers).astype(x.dtype)
        angles = t[:, None] * rates[None]
        second = jnp.sin(angles) if bug == "sine twice" else jnp.cos(angles)
        time = jnp.concatenate([jnp.sin(angles), second], axis=-1) @ p["time"]
        if bug == "times of the neighbors":
            time = jnp.roll(time, 1, axis=0)
        if bug == "time is added after the nonlinearity":
            h = x @ p["x"]
            return (jnp.tanh(h + wide(p["b"], h)) + time) @ p["out"]
        h = x @ p["x"] + time
        return jnp.tanh(h + wide(p["b"], h)) @ p["out"]

    return stateless(DENOISER, forward)


def denoiser_reference():
    def one(p, x, t):
        angles = jnp.stack([t.astype(x.dtype) / 10.0 ** (i / 3) for i in range(3)])
        time = jnp.sin(angles) @ p["time"][:3] + jnp.cos(angles) @ p["time"][3:]
        return jnp.tanh(x @ p["x"] + time + p["b"]) @ p["out"]

    def forward(p, batch):
        return jax.vmap(lambda x, t: one(p, x, t))(batch["x"], batch["t"])

    return stateless(DENOISER, forward)


# Pairs, sets and graphs.

SIAMESE = {"w": (5, 6), "b": (6,), "u": (6, 4), "head": (4, 2)}
PAIRS = {"a": normal(4, 5, seed=6), "b": normal(4, 5, seed=7)}


def siamese(bug=None):
    """Scores of pairs from the squared differences of their encodings."""

    def encode(p, x, kernel="w"):
        h = x @ p[kernel]
        return jnp.tanh(h + wide(p["b"], h)) @ p["u"]

    def forward(p, pair):
        second = "a" if bug == "first branch twice" else "b"
        a = encode(p, pair["a"])
        b = encode(p, pair[second], "w2" if bug == "second branch has a kernel of its own" else "w")
        if bug == "second branch has no gradient":
            b = jax.lax.stop_gradient(b)
        if bug == "pairs of the neighbors":
            b = jnp.roll(b, 1, axis=0)
        if bug == "centered over the batch":
            a = a - a.mean(axis=0, keepdims=True)
            b = b - b.mean(axis=0, keepdims=True)
        if bug == "differences are not squared":
            return (a - b) @ p["head"]
        if bug == "products instead of differences":
            return (a * b) @ p["head"]
        if bug == "distance without eps":
            distance = jnp.sqrt(jnp.square(a - b).sum(axis=-1, keepdims=True))
            return distance * p["head"].sum(axis=0)[None]
        return jnp.square(a - b) @ p["head"]

    own = bug == "second branch has a kernel of its own"
    return stateless(SIAMESE | ({"w2": (5, 6)} if own else {}), forward)


def siamese_reference():
    def forward(p, pair):
        both = jnp.concatenate([pair["a"], pair["b"]]) @ p["w"]
        codes = jnp.split(jnp.tanh(both + wide(p["b"], both)) @ p["u"], 2)
        return (codes[0] ** 2 - 2 * codes[0] * codes[1] + codes[1] ** 2) @ p["head"]

    return stateless(SIAMESE, forward)


SET = normal(4, 5, 3, seed=8)
DEEP_SET = {"a": (3, 6), "b": (3, 6), "c": (6,), "d": (6, 2), "e": (6, 2)}


def deep_set(bug=None):
    """Two layers, each of an element and the mean of its set."""

    def context(x):
        count = x.shape[1]
        if bug == "mean over the batch":
            mean = x.mean(axis=0, keepdims=True)
        elif bug == "mean over the features":
            mean = x.mean(axis=2, keepdims=True)
        elif bug == "mean of those before":
            mean = jnp.cumsum(x, axis=1) / (1 + jnp.arange(count, dtype=x.dtype))[None, :, None]
        elif bug == "mean of the others":
            mean = (x.sum(axis=1, keepdims=True) - x) / max(count - 1, 1)
        elif bug == "neighbor instead of the mean":
            mean = jnp.roll(x, 1, axis=1)
        elif bug == "sum instead of the mean":
            mean = x.sum(axis=1, keepdims=True)
        else:
            mean = x.mean(axis=1, keepdims=True)
        return jnp.broadcast_to(mean, x.shape)

    def forward(p, x):
        h = x @ p["a"] + context(x) @ p["b"]
        h = jnp.tanh(h + wide(p["c"], h))
        if bug == "first element is the summary":
            return h @ p["d"] + jnp.broadcast_to(h[:, :1], h.shape) @ p["e"]
        return h @ p["d"] + context(h) @ p["e"]

    return stateless(DEEP_SET, forward)


def deep_set_reference():
    def forward(p, x):
        n = x.shape[1]
        h = jnp.einsum("bti,ij->btj", x, p["a"]) + jnp.einsum("bsi,ij->bj", x, p["b"])[:, None] / n
        h = jnp.tanh(h + p["c"][None, None])
        y = jnp.einsum("bti,ij->btj", h, p["d"])
        return y + jnp.einsum("bsi,ij->bj", h, p["e"])[:, None] / n

    return stateless(DEEP_SET, forward)


MESSAGES = {"own": (2, 5), "others": (2, 5), "own2": (5, 4), "others2": (5, 4), "head": (4, 2)}
GRAPHS = {
    "nodes": normal(3, 4, 2, seed=9),
    "edges": jnp.asarray(np.random.default_rng(3).integers(2, size=(3, 4, 4)), F32),
}
ORDER = np.array([2, 0, 3, 1])


def reordered(graph):
    """The same graphs with the nodes in another order."""
    return {"nodes": graph["nodes"][:, ORDER], "edges": graph["edges"][:, ORDER][:, :, ORDER]}


def graph_network(bug=None):
    """Two rounds of means over the senders (axis 2 of the edges) and the node itself."""

    def mean(edges, x):
        degree = edges.sum(axis=2, keepdims=True)
        if bug == "edges of the first graph for all":
            edges = jnp.broadcast_to(edges[:1], edges.shape)
        if bug == "degree of the senders":
            degree = edges.sum(axis=1)[..., None]
        if bug == "edges point the other way":
            return (x + jnp.einsum("bji,bjd->bid", edges, x)) / (1 + edges.sum(axis=1)[..., None])
        if bug == "half of the edges":
            edges = jnp.triu(edges)
        if bug == "without the node itself":
            return jnp.einsum("bij,bjd->bid", edges, x) / degree
        if bug == "degree of the whole batch":
            degree = jnp.broadcast_to(edges.mean(), degree.shape)
        return (x + jnp.einsum("bij,bjd->bid", edges, x)) / (1 + degree)

    def forward(p, graph):
        x, edges = graph["nodes"], graph["edges"]
        if bug == "messages after the nonlinearity":
            h = jnp.tanh(x @ p["own"]) + mean(edges, x) @ p["others"]
        else:
            h = jnp.tanh(x @ p["own"] + mean(edges, x) @ p["others"])
        h = jnp.tanh(h @ p["own2"] + mean(edges, h) @ p["others2"])
        if bug == "first node stands for the graph":
            return h[:, 0] @ p["head"]
        return h.mean(axis=1) @ p["head"]

    return stateless(MESSAGES, forward)


def graph_reference():
    def forward(p, graph):
        x = graph["nodes"]
        edges = graph["edges"] + jnp.eye(x.shape[1], dtype=x.dtype)[None]
        shares = edges / edges.sum(axis=-1, keepdims=True)
        for own, others in (("own", "others"), ("own2", "others2")):
            x = jnp.tanh(x @ p[own] + shares @ (x @ p[others]))
        return jnp.einsum("bnd,dk->bk", x, p["head"]) / x.shape[1]

    return stateless(MESSAGES, forward)


# Fine-tuning.

LORA = {
    "base": {"w": (5, 6), "b": (6,), "u": (6, 4)},
    "adapter": {"a": (5, 2), "b": (2, 6)},
    "head": (4, 3),
}


def adapted(bug=None):
    """A frozen encoder with an adapter of rank 2, and a trained head."""

    def forward(p, x):
        base, adapter = p["base"], p["adapter"]
        frozen = jax.lax.stop_gradient(base)
        if bug == "bias of the encoder is trained":
            frozen = {**frozen, "b": base["b"]}
        if bug == "last layer of the encoder is trained":
            frozen = {**frozen, "u": base["u"]}
        if bug == "nothing is frozen":
            frozen = base
        a, b = adapter["a"], adapter["b"]
        if bug == "only one factor is trained":
            a = jax.lax.stop_gradient(a)
        source = jax.lax.stop_gradient(x) if bug == "adapter reads a detached input" else x
        change = (source @ a) @ b * (2.0 if bug == "not divided by the rank" else 1.0)
        h = x @ frozen["w"]
        if bug == "adapter after the nonlinearity":
            h = jnp.tanh(h + wide(frozen["b"], h)) + change
        else:
            h = jnp.tanh(h + wide(frozen["b"], h) + change)
        h = h @ frozen["u"]
        if bug == "the output of the encoder is detached":
            h = jax.lax.stop_gradient(h)
        if bug == "head is frozen as well":
            return h @ jax.lax.stop_gradient(p["head"])
        return h @ p["head"]

    return stateless(LORA, forward)


def adapted_reference():
    def forward(p, x):
        base = jax.lax.stop_gradient(p["base"])
        w = base["w"] + jnp.einsum("ir,rj->ij", p["adapter"]["a"], p["adapter"]["b"])
        return jnp.tanh(x @ w + base["b"][None]) @ (base["u"] @ p["head"])

    return stateless(LORA, forward)


def shuffled(x):
    """The elements of each set in another order."""
    return x[:, np.array([3, 1, 4, 0, 2])]


FAMILIES = [
    Family(
        kind="model",
        name="GPT of two blocks with a tied head",
        base=gpt(),
        args=(TEXT,),
        declared={"causal": True, "tied": "table"},
        like={"like": gpt_reference()},
        bugs=variants(
            gpt,
            "mask is off by one",
            "heads are cut out of time",
            "scale of the whole width",
            "softmax in bfloat16",
            "norm over time and features",
            "attention over the batch",
            "norm after the residual",
            "positions counted from the end",
            "embedding times the root of the width",
            "first block twice",
            "last norm is left out",
            "head of its own",
        ),
    ),
    Family(
        kind="model",
        name="encoder with a class token and a padding mask",
        base=encoder(),
        args=(PADDED,),
        declared={"masked": "mask"},
        like={"like": encoder_reference()},
        bugs=variants(
            encoder,
            "True stands for padding",
            "padding is read off token 0",
            "class token is not learned",
            "mask is extended at the wrong end",
            "mask of the queries",
            "mask in the first layer only",
            "mask is weak",
            "weights of the padding are zeroed at the end",
            "mean over all positions",
            "last position instead of the first",
        ),
    ),
    Family(
        kind="model",
        name="language model of two GRU layers",
        base=recurrent_lm(),
        args=(TEXT,),
        declared={"causal": True},
        like={"like": recurrent_reference()},
        bugs=variants(
            recurrent_lm,
            "state averaged over the batch",
            "gradient is cut at every step",
            "state in bfloat16",
            "reset and update swapped",
            "reset before the product",
            "reset is not used",
            "update gate inverted",
            "state before the step is given",
            "scan over the batch",
            "second layer starts at the end of the first",
            "second layer reads the embedding",
            "backward pass is added",
        ),
    ),
    Family(
        kind="model",
        name="both directions over padded sequences",
        base=bidirectional(),
        args=(FRAMES,),
        declared={"lengths": "lengths"},
        like={"like": bidirectional_reference()},
        bugs=variants(
            bidirectional,
            "length of the first example for all",
            "reversal is off by one",
            "padding is reversed to the front",
            "one kernel for both directions",
            "states are centered over the padded time",
            "backward states are not turned back",
        ),
    ),
    Family(
        kind="model",
        name="residual network with batch norm",
        base=resnet(),
        args=(IMAGES,),
        declared={"statistics": True},
        like={"like": resnet_reference()},
        bugs=variants(
            resnet,
            "statistics of each image",
            "variance around zero",
            "unbiased variance in training",
            "statistics have no gradient",
            "weights of old and new swapped",
            "state is changed in place",
            "batch statistics in evaluation",
            "eps is not under the root",
            "padding on one side",
            "one state for both norms",
            "state of the second norm is lost",
            "shortcut after the activation",
            "shortcut is left out",
            "sum instead of mean over the pixels",
        ),
    ),
    Family(
        kind="model",
        name="vision transformer of four patches",
        base=vit(),
        args=(SQUARES,),
        like={"like": vit_reference()},
        bugs=variants(
            vit,
            "patches are rows of pixels",
            "pixels of a patch transposed",
            "patches go down first",
            "class token at the end, head at the front",
            "one position for all",
            "class token without a position",
            "norm over the patches",
            "softmax over the queries",
            "head reads the mean",
            "class token for each example of the batch",
        ),
    ),
    Family(
        kind="model",
        name="U-Net of one level over signals",
        base=unet(),
        args=(SIGNALS,),
        declared={
            "equivariant": [
                (
                    "a shift by two",
                    lambda x: jnp.roll(x, 2, axis=1),
                    lambda y: jnp.roll(y, 2, axis=1),
                )
            ]
        },
        like={"like": unet_reference()},
        bugs=variants(
            unet,
            "zeros at the border",
            "pairs of the far ends",
            "every other step is dropped",
            "tiled instead of repeated",
            "upsampled by one step too far",
            "skip has no gradient",
            "skip is left out",
            "skip is centered over the batch",
        ),
    ),
    Family(
        kind="model",
        name="variational autoencoder",
        base=vae(),
        args=(ROWS,),
        declared={"noisy": True, "unbiased_noise": True},
        like={"like": vae_reference()},
        bugs=variants(
            vae,
            "mean and log variance swapped",
            "noise in evaluation",
            "no noise",
            "one draw for the batch",
            "the key is ignored",
            "uniform noise that is not centered",
            "variance as standard deviation",
            "noise as large for all",
            "sample has no gradient",
            "scale has no gradient",
        ),
    ),
    Family(
        kind="model",
        name="denoiser with an embedding of time",
        base=denoiser(),
        args=(NOISED,),
        like={"like": denoiser_reference()},
        bugs=variants(
            denoiser,
            "time of the first example for all",
            "time relative to the largest of the batch",
            "powers divided as integers",
            "rates grow",
            "sine twice",
            "times of the neighbors",
            "time is added after the nonlinearity",
        ),
    ),
    Family(
        kind="model",
        name="Siamese network of squared differences",
        base=siamese(),
        args=(PAIRS,),
        declared={"invariant": [("an exchange of the two", lambda x: {"a": x["b"], "b": x["a"]})]},
        like={"like": siamese_reference()},
        bugs=variants(
            siamese,
            "first branch twice",
            "second branch has a kernel of its own",
            "second branch has no gradient",
            "pairs of the neighbors",
            "centered over the batch",
            "differences are not squared",
            "products instead of differences",
            "distance without eps",
        ),
    ),
    Family(
        kind="model",
        name="equivariant layers over sets",
        base=deep_set(),
        args=(SET,),
        declared={"equivariant": [("another order", shuffled, shuffled)]},
        like={"like": deep_set_reference()},
        bugs=variants(
            deep_set,
            "mean over the batch",
            "mean over the features",
            "mean of those before",
            "mean of the others",
            "neighbor instead of the mean",
            "sum instead of the mean",
            "first element is the summary",
        ),
    ),
    Family(
        kind="model",
        name="graph network of two rounds",
        base=graph_network(),
        args=(GRAPHS,),
        declared={"invariant": [("another order of the nodes", reordered)]},
        like={"like": graph_reference()},
        bugs=variants(
            graph_network,
            "edges of the first graph for all",
            "degree of the senders",
            "edges point the other way",
            "half of the edges",
            "without the node itself",
            "degree of the whole batch",
            "messages after the nonlinearity",
            "first node stands for the graph",
        ),
    ),
    Family(
        kind="model",
        name="adapter of low rank in a frozen encoder",
        base=adapted(),
        args=(normal(4, 5, seed=10),),
        needed={"frozen": "base/*", "smooth": False},  # frozen leaves have no gradient
        like={"like": adapted_reference()},
        bugs=variants(
            adapted,
            "bias of the encoder is trained",
            "last layer of the encoder is trained",
            "nothing is frozen",
            "only one factor is trained",
            "adapter reads a detached input",
            "not divided by the rank",
            "adapter after the nonlinearity",
            "the output of the encoder is detached",
            "head is frozen as well",
        ),
    ),
]
