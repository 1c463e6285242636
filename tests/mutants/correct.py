"""Correct things of other libraries, which every law must accept: a failure is a false alarm.

`thing` makes the thing: `testing.check_<kind>(one.thing(), *one.args, **one.options)`, with JAX's
promotion of dtypes and ranks as it is by default: optax and plain code rely on it.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from fnn.interop import from_equinox, from_haiku, from_linen, from_nnx, from_optax
from fnn.types import Metric, Model


@dataclass(frozen=True)
class Correct:
    """A correct thing, made when called, and the arguments of its check."""

    name: str
    kind: str  # the check is `fnn.testing.check_<kind>`
    thing: Callable[[], Any]
    args: tuple = ()  # after the thing
    options: Mapping[str, Any] = field(default_factory=dict)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(high, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int32)


X = normal(4, 6)
IMAGES = normal(4, 6, 6, 2)
SERIES = normal(3, 5, 4)
TOKENS = integers(11, 3, 6)


# Flax Linen.


class LinenMLP(linen.Module):
    rate: float = 0.0
    norm: str = ""

    @linen.compact
    def __call__(self, x, train: bool = False):
        x = linen.Dense(8)(x)
        if self.norm == "batch":
            x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        elif self.norm == "layer":
            x = linen.LayerNorm()(x)
        elif self.norm == "rms":
            x = linen.RMSNorm()(x)
        x = linen.gelu(x)
        x = linen.Dropout(self.rate)(x, deterministic=not train)
        return linen.Dense(3)(x)


class LinenCNN(linen.Module):
    norm: bool = False

    @linen.compact
    def __call__(self, x, training=False):
        x = linen.Conv(4, (3, 3), use_bias=not self.norm)(x)
        if self.norm:
            x = linen.BatchNorm(use_running_average=not training)(x)
        x = linen.avg_pool(linen.silu(x), (2, 2), strides=(2, 2))
        return linen.Dense(3)(x.reshape(x.shape[0], -1))


class LinenResNet(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.Conv(4, (3, 3))(x)
        h = linen.GroupNorm(num_groups=2)(x)
        x = x + linen.Conv(4, (3, 3), kernel_init=linen.initializers.he_normal())(linen.silu(h))
        return linen.Dense(3)(x.mean(axis=(1, 2)))


class LinenBlock(linen.Module):
    """A pre-norm block of a decoder."""

    rate: float = 0.1

    @linen.compact
    def __call__(self, x, *, deterministic=True):
        mask = linen.make_causal_mask(x[..., 0])
        h = linen.LayerNorm()(x)
        h = linen.MultiHeadDotProductAttention(
            num_heads=2, dropout_rate=self.rate, deterministic=deterministic
        )(h, mask=mask)
        x = x + linen.Dropout(self.rate)(h, deterministic=deterministic)
        h = linen.Dense(4)(linen.gelu(linen.Dense(16)(linen.LayerNorm()(x))))
        return x + linen.Dropout(self.rate)(h, deterministic=deterministic)


class LinenLM(linen.Module):
    """An embedding that is tied to the head, positions, and a block."""

    @linen.compact
    def __call__(self, tokens, deterministic=True):
        embed = linen.Embed(11, 4)
        positions = self.param("positions", linen.initializers.normal(0.02), (6, 4))
        h = LinenBlock(0.0)(embed(tokens) + positions, deterministic=deterministic)
        return embed.attend(linen.LayerNorm()(h))


class LinenSeries(linen.Module):
    cell: Any

    @linen.compact
    def __call__(self, x):
        return linen.RNN(self.cell)(x)


class LinenBidirectional(linen.Module):
    @linen.compact
    def __call__(self, x):
        both = linen.Bidirectional(linen.RNN(linen.GRUCell(3)), linen.RNN(linen.GRUCell(3)))
        return linen.Dense(2)(both(x))


class LinenLengths(linen.Module):
    """The mean of the outputs of an LSTM up to the length."""

    @linen.compact
    def __call__(self, inputs):
        x, lengths = inputs["x"], inputs["lengths"]
        h = linen.RNN(linen.LSTMCell(4))(x, seq_lengths=lengths)
        valid = jnp.arange(x.shape[1]) < lengths[:, None]
        return jnp.sum(h * valid[..., None], axis=1) / lengths[:, None]


class LinenNoise(linen.Module):
    """A variational bottleneck."""

    @linen.compact
    def __call__(self, x, train=False):
        mean, log_std = jnp.split(linen.Dense(6)(x), 2, axis=-1)
        if train:
            mean = mean + jnp.exp(log_std) * jax.random.normal(self.make_rng("noise"), mean.shape)
        return linen.Dense(6)(mean), log_std


class LinenAutoencoder(linen.Module):
    def setup(self):
        self.encode = linen.Sequential([linen.Dense(5), linen.tanh, linen.Dense(2)])
        self.decode = linen.Sequential([linen.Dense(5), linen.tanh, linen.Dense(6)])

    def __call__(self, x):
        return self.decode(self.encode(x))


class LinenPair(linen.Module):
    @linen.compact
    def __call__(self, pair):
        a, b = pair
        return jnp.sum(linen.Dense(3)(a) * linen.Dense(3)(b), axis=-1)


class LinenScan(linen.Module):
    """Layers by nn.scan, with parameters stacked."""

    @linen.compact
    def __call__(self, x):
        def body(layer, h, _):
            return linen.tanh(layer(h)), None

        layers = linen.scan(
            body, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return layers(linen.Dense(6), x, None)[0]


LINEN = {
    "Dense": (lambda: linen.Dense(3), X),
    "Dense without bias": (lambda: linen.Dense(3, use_bias=False), X),
    "Dense in float32": (lambda: linen.Dense(3, dtype=jnp.float32), X),
    "DenseGeneral": (lambda: linen.DenseGeneral((2, 3), axis=(-2, -1)), SERIES),
    "Einsum": (lambda: linen.Einsum((4, 2, 3), "bti,ihd->bthd"), SERIES),
    "MLP": (lambda: LinenMLP(), X),
    "MLP with Dropout": (lambda: LinenMLP(rate=0.5), X),
    "MLP with BatchNorm": (lambda: LinenMLP(norm="batch"), X),
    "MLP with LayerNorm": (lambda: LinenMLP(norm="layer"), X),
    "MLP with RMSNorm and Dropout": (lambda: LinenMLP(0.3, "rms"), X),
    "Sequential": (lambda: linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)]), X),
    "Conv": (lambda: linen.Conv(3, (3, 3)), IMAGES),
    "Conv, strided": (lambda: linen.Conv(3, (3, 3), strides=2, padding="VALID"), IMAGES),
    "Conv, depthwise": (lambda: linen.Conv(4, (3, 3), feature_group_count=2), IMAGES),
    "ConvTranspose": (lambda: linen.ConvTranspose(3, (3, 3), strides=(2, 2)), IMAGES),
    "CNN": (lambda: LinenCNN(), IMAGES),
    "CNN with BatchNorm": (lambda: LinenCNN(norm=True), IMAGES),
    "ResNet with GroupNorm": (lambda: LinenResNet(), IMAGES),
    "LayerNorm": (lambda: linen.LayerNorm(), X),
    "GroupNorm": (lambda: linen.GroupNorm(num_groups=2), normal(4, 5, 6)),
    "InstanceNorm": (lambda: linen.InstanceNorm(), IMAGES),
    "BatchNorm": (lambda: linen.BatchNorm(), X),
    "BatchNorm of images": (lambda: linen.BatchNorm(momentum=0.9), IMAGES),
    "Dropout": (lambda: linen.Dropout(0.5), X),
    "Dropout of channels": (lambda: linen.Dropout(0.5, broadcast_dims=(1, 2)), IMAGES),
    "Embed": (lambda: linen.Embed(11, 4), TOKENS),
    "attention": (lambda: linen.MultiHeadDotProductAttention(num_heads=2), SERIES),
    "block of a transformer": (lambda: LinenBlock(), SERIES),
    "language model": (lambda: LinenLM(), TOKENS),
    "LSTM": (lambda: LinenSeries(linen.LSTMCell(4)), SERIES),
    "OptimizedLSTM": (lambda: LinenSeries(linen.OptimizedLSTMCell(4)), SERIES),
    "GRU": (lambda: LinenSeries(linen.GRUCell(4)), SERIES),
    "simple RNN": (lambda: LinenSeries(linen.SimpleCell(4)), SERIES),
    "bidirectional GRU": (lambda: LinenBidirectional(), SERIES),
    "LSTM with lengths": (
        lambda: LinenLengths(),
        {"x": SERIES, "lengths": np.array([5, 2, 3], np.int32)},
    ),
    "autoencoder": (lambda: LinenAutoencoder(), X),
    "two inputs": (lambda: LinenPair(), (X, normal(4, 5, seed=1))),
    "scanned layers": (lambda: LinenScan(), X),
    "rematerialized layers": (
        lambda: linen.Sequential([linen.remat(linen.Dense)(5), linen.tanh, linen.Dense(2)]),
        X,
    ),
    "WeightNorm": (lambda: linen.WeightNorm(linen.Dense(3)), X),
    "PReLU": (lambda: linen.Sequential([linen.Dense(5), linen.PReLU(), linen.Dense(2)]), X),
}


def of_linen(make, **options):
    return lambda: from_linen(make(), **options)


# Flax NNX.


class NnxMLP(nnx.Module):
    def __init__(self, rate, norm, rngs):
        self.first = nnx.Linear(6, 8, rngs=rngs)
        self.norm = norm(8, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        x = self.norm(x) if self.norm else x
        return self.last(self.dropout(nnx.gelu(x)))


class NnxCNN(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.silu(self.norm(self.conv(x))).mean(axis=(1, 2)))


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.norms = nnx.List([nnx.LayerNorm(4, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, dropout_rate=0.1, rngs=rngs)
        self.up, self.down = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        first, second = self.norms
        x = x + self.attention(first(x), mask=nnx.make_causal_mask(x[..., 0]))
        return x + self.down(nnx.gelu(self.up(second(x))))


BROADCAST = {"skip": {"noise_differs_between_examples": "that of attention is one for the batch"}}
NNX = {
    "Linear": (lambda rngs: nnx.Linear(6, 3, rngs=rngs), X),
    "MLP with Dropout": (lambda rngs: NnxMLP(0.5, None, rngs), X),
    "MLP with BatchNorm": (lambda rngs: NnxMLP(0.0, nnx.BatchNorm, rngs), X),
    "MLP with RMSNorm": (lambda rngs: NnxMLP(0.0, nnx.RMSNorm, rngs), X),
    "CNN with BatchNorm": (NnxCNN, IMAGES),
    "Embed": (lambda rngs: nnx.Embed(11, 4, rngs=rngs), TOKENS),
    "attention": (lambda rngs: nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs), SERIES),
    "block of a transformer": (NnxBlock, SERIES, BROADCAST),
    "LSTM": (lambda rngs: nnx.RNN(nnx.LSTMCell(4, 3, rngs=rngs)), SERIES),
    "GRU": (lambda rngs: nnx.RNN(nnx.GRUCell(4, 3, rngs=rngs)), SERIES),
    "LoRA": (lambda rngs: nnx.LoRALinear(6, 3, lora_rank=2, rngs=rngs), X),
}


# Equinox.


class EquinoxNorm(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.first = eqx.nn.Linear(6, 8, key=a)
        self.norm = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch", momentum=0.9)
        self.last = eqx.nn.Linear(8, 3, key=b)

    def __call__(self, x, state):
        h, state = self.norm(self.first(x), state)
        return self.last(jax.nn.silu(h)), state


class EquinoxRNN(eqx.Module):
    cell: eqx.Module
    head: eqx.nn.Linear

    def __init__(self, cell, key):
        a, b = jax.random.split(key)
        self.cell = cell(4, 5, key=a)
        self.head = eqx.nn.Linear(5, 2, key=b)

    def __call__(self, x):
        zeros = jnp.zeros(5)
        start = (zeros, zeros) if isinstance(self.cell, eqx.nn.LSTMCell) else zeros
        last, _ = jax.lax.scan(lambda carry, one: (self.cell(one, carry), None), start, x)
        return self.head(last[0] if isinstance(last, tuple) else last)


class EquinoxAttention(eqx.Module):
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(4)
        self.attention = eqx.nn.MultiheadAttention(2, 4, dropout_p=0.1, key=a)
        self.mlp = eqx.nn.MLP(4, 4, 8, depth=1, activation=jax.nn.gelu, key=b)

    def __call__(self, x, *, key=None):
        h = jax.vmap(self.norm)(x)
        x = x + self.attention(h, h, h, mask=jnp.tril(jnp.ones((5, 5), bool)), key=key)
        return x + jax.vmap(self.mlp)(x)


def equinox_dropout(key):
    a, b = jax.random.split(key)
    return eqx.nn.Sequential(
        [eqx.nn.Linear(6, 8, key=a), eqx.nn.Lambda(jax.nn.tanh), eqx.nn.Dropout(0.5)]
        + [eqx.nn.Linear(8, 3, key=b)]
    )


def equinox_cnn(key):
    a, b = jax.random.split(key)
    return eqx.nn.Sequential(
        [eqx.nn.Conv2d(2, 3, 3, key=a), eqx.nn.Lambda(jax.nn.silu), eqx.nn.AvgPool2d(2, 2)]
        + [eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(12, 2, key=b)]
    )


CHANNELS_FIRST = normal(4, 2, 6, 6)
EQUINOX = {
    "Linear": (lambda key: eqx.nn.Linear(6, 3, key=key), X),
    "MLP": (lambda key: eqx.nn.MLP(6, 3, 8, depth=2, activation=jax.nn.gelu, key=key), X),
    "MLP with Dropout": (equinox_dropout, X),
    "MLP with BatchNorm": (lambda key: eqx.nn.make_with_state(EquinoxNorm)(key), X),
    "CNN": (equinox_cnn, CHANNELS_FIRST),
    "LayerNorm": (lambda key: eqx.nn.LayerNorm(6), X),
    "GroupNorm": (lambda key: eqx.nn.GroupNorm(2, 4), normal(3, 4, 5)),
    "LSTM": (lambda key: EquinoxRNN(eqx.nn.LSTMCell, key), SERIES),
    "GRU": (lambda key: EquinoxRNN(eqx.nn.GRUCell, key), SERIES),
    "block of a transformer": (EquinoxAttention, SERIES),
    "Embedding": (lambda key: eqx.nn.Embedding(11, 4, key=key), integers(11, 5)),
}


# Haiku.


def haiku_mlp(x, is_training):
    import haiku as hk

    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training)
    x = jax.nn.gelu(x)
    return hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x)


def haiku_lstm(x):
    import haiku as hk

    core = hk.LSTM(4)
    return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)[0]


HAIKU = {"MLP with BatchNorm and dropout": (haiku_mlp, X), "LSTM": (haiku_lstm, SERIES)}


# Models in plain JAX.


def dense(key, n, m):
    return {"w": jax.random.normal(key, (n, m)) / n**0.5, "b": jnp.zeros(m)}


def forward(p, x):
    return x @ p["w"] + p["b"]


def plain_mlp():
    def init(key, x):
        keys = jax.random.split(key, 3)
        sizes = (x.shape[-1], 8, 8, 2)
        layers = [dense(k, n, m) for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        return layers, ()

    def apply(params, state, x, *, key=None, train=False):
        *hidden, last = params
        for p in hidden:
            x = jnp.tanh(forward(p, x))
        return forward(last, x), state

    return Model(init, apply)


def plain_dropout():
    def init(key, x):
        a, b = jax.random.split(key)
        return {"in": dense(a, x.shape[-1], 8), "out": dense(b, 8, 2)}, ()

    def apply(params, state, x, *, key=None, train=False):
        h = jnp.tanh(forward(params["in"], x))
        if train:
            h = jnp.where(jax.random.bernoulli(key, 0.8, h.shape), h / 0.8, 0.0)
        return forward(params["out"], h), state

    return Model(init, apply)


def plain_batch_norm():
    def init(key, x):
        n = x.shape[-1]
        return {"scale": jnp.ones(n), "bias": jnp.zeros(n)}, (jnp.zeros(n), jnp.ones(n))

    def apply(params, state, x, *, key=None, train=False):
        mean, var = (x.mean(0), x.var(0)) if train else state
        if train:
            state = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state, (mean, var))
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * params["scale"] + params["bias"], state

    return Model(init, apply)


def plain_attention():
    def init(key, x):
        d = x.shape[-1]
        return {n: jax.random.normal(k, (d, d)) / d**0.5 for n, k in
                zip("qkvo", jax.random.split(key, 4), strict=True)}, ()  # fmt: skip

    def apply(params, state, x, *, key=None, train=False):
        q, k, v = (x @ params[name] for name in "qkv")
        scores = jnp.einsum("bqd,bkd->bqk", q, k) / q.shape[-1] ** 0.5
        causal = jnp.tril(jnp.ones(scores.shape[1:], bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
        return jnp.einsum("bqk,bkd->bqd", weights, v) @ params["o"], state

    return Model(init, apply)


def plain_rnn():
    def init(key, x):
        a, b = jax.random.split(key)
        return {"x": dense(a, x.shape[-1], 5), "h": jax.random.orthogonal(b, 5)}, ()

    def apply(params, state, x, *, key=None, train=False):
        def step(h, one):
            h = jnp.tanh(forward(params["x"], one) + h @ params["h"])
            return h, h

        h = jnp.zeros((x.shape[0], 5), x.dtype)
        return jnp.swapaxes(jax.lax.scan(step, h, jnp.swapaxes(x, 0, 1))[1], 0, 1), state

    return Model(init, apply)


def plain_convolution():
    def init(key, x):
        return {"kernel": 0.2 * jax.random.normal(key, (3, 3, x.shape[-1], 4))}, ()

    def apply(params, state, x, *, key=None, train=False):
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.softplus(y).mean((1, 2)), state

    return Model(init, apply)


def plain_bag_of_words():
    """The mean of the embeddings of valid tokens."""

    def init(key, x):
        return {"table": jax.random.normal(key, (11, 4))}, ()

    def apply(params, state, x, *, key=None, train=False):
        valid = x["mask"][..., None].astype(jnp.float32)
        embedded = jnp.sum(params["table"][x["tokens"]] * valid, axis=1)
        return embedded / jnp.maximum(valid.sum(axis=1), 1.0), state

    return Model(init, apply)


PLAIN = {
    "MLP": (plain_mlp, X, {}),
    "dropout": (plain_dropout, X, {}),
    "batch norm": (plain_batch_norm, X, {}),
    "causal attention": (plain_attention, SERIES, {"causal": True}),
    "recurrent": (plain_rnn, SERIES, {"causal": True}),
    "convolution": (plain_convolution, IMAGES, {}),
    "mean of valid embeddings": (
        plain_bag_of_words,
        {"tokens": TOKENS, "mask": np.arange(6) < np.array([[6], [2], [4]])},
        {"masked": "mask"},
    ),
}


# Optimizers of optax, with the learning rate of the check.

DECAYS = {"decays": True}
WHOLE = {"leafwise": False}
OPTIMIZERS = {
    "sgd": (lambda: optax.sgd(1.0), {}),
    "momentum": (lambda: optax.sgd(1.0, momentum=0.9), {}),
    "nesterov": (lambda: optax.sgd(1.0, momentum=0.9, nesterov=True), {}),
    "adam": (lambda: optax.adam(1.0), {}),
    "adamw": (lambda: optax.adamw(1.0, weight_decay=0.1), DECAYS),
    "adamw with a mask": (
        lambda: optax.adamw(1.0, mask=lambda p: jax.tree.map(_is_matrix, p)),
        DECAYS,
    ),
    "nadam": (lambda: optax.nadam(1.0), {}),
    "amsgrad": (lambda: optax.amsgrad(1.0), {}),
    "adamax": (lambda: optax.adamax(1.0), {}),
    "radam": (
        lambda: optax.radam(1.0),
        {"skip": {"scalars_have_gradients": "it takes a root below zero, and drops it by a where"}},
    ),
    "adabelief": (lambda: optax.adabelief(1.0), {}),
    "yogi": (lambda: optax.yogi(1.0), DECAYS),
    "rmsprop": (lambda: optax.rmsprop(1.0), {}),
    "rmsprop, centered": (lambda: optax.rmsprop(1.0, centered=True, momentum=0.9), {}),
    "adagrad": (lambda: optax.adagrad(1.0), {}),
    "adadelta": (lambda: optax.adadelta(1.0), {}),
    "lion": (lambda: optax.lion(1.0, weight_decay=0.0), {}),
    "sign_sgd": (lambda: optax.sign_sgd(1.0), {}),
    "lamb": (lambda: optax.lamb(1.0), {}),
    "lars": (lambda: optax.lars(1.0), {}),
    "adafactor": (lambda: optax.adafactor(1.0, multiply_by_parameter_scale=False), {}),
    "adan": (lambda: optax.adan(1.0), {}),
    "clip and adam": (
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1.0)),
        WHOLE,
    ),
    "clip values and sgd": (lambda: optax.chain(optax.clip(0.5), optax.sgd(1.0)), {}),
    "decay and momentum": (
        lambda: optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(1.0, momentum=0.9)),
        DECAYS,
    ),
    "MultiSteps": (
        lambda: optax.MultiSteps(optax.adam(1.0), every_k_schedule=2),
        {"accumulates": 2, "skip": {"scalars_have_gradients": "it accumulates in float32"}},
    ),
    "schedule of its own": (lambda: optax.adam(optax.cosine_decay_schedule(1.0, 100)), {}),
    "centralized gradients": (lambda: optax.chain(optax.centralize(), optax.sgd(1.0)), {}),
}


def _is_matrix(leaf):
    return leaf.ndim > 1


def of_optax(make):
    return lambda: from_optax(make())


# Losses.

LOGITS, LABELS = normal(5, 4), integers(4, 5)
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
Y = normal(5, 3, seed=1)
BITS = integers(2, 5, 3).astype(np.float32)
PROBABILITIES = np.random.default_rng(2).dirichlet(np.ones(4), 5).astype(np.float32)
OF_LABELS = {"best": "labels", "symmetries": ("shift", "classes")}
OF_TARGETS = {"best": "targets"}


def smoothed(logits, labels):
    return optax.softmax_cross_entropy(
        logits, optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)
    )


def plain_cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def mean_squared_error(outputs, targets):
    return jnp.mean((outputs - targets) ** 2)


def divergence(logits, probabilities):
    return optax.kl_divergence(jax.nn.log_softmax(logits), probabilities)


def gaussian(outputs, targets):
    var = jax.nn.softplus(outputs["scale"]) + 1e-3
    return 0.5 * (jnp.log(var) + (targets - outputs["mean"]) ** 2 / var).mean(axis=-1)


def quantile(outputs, targets, q=0.9):
    error = targets - outputs
    return jnp.maximum(q * error, (q - 1) * error).mean(axis=-1)


LOSSES = {
    "softmax_cross_entropy_with_integer_labels": (
        lambda: optax.softmax_cross_entropy_with_integer_labels, LOGITS, LABELS, OF_LABELS,
    ),
    "softmax_cross_entropy": (lambda: optax.softmax_cross_entropy, LOGITS, ONE_HOT, {}),
    "sigmoid_binary_cross_entropy": (
        lambda: optax.sigmoid_binary_cross_entropy, normal(5, 3), BITS, {},
    ),
    "sigmoid_focal_loss": (lambda: optax.sigmoid_focal_loss, normal(5, 3), BITS, {}),
    "poly_loss_cross_entropy": (lambda: optax.losses.poly_loss_cross_entropy, LOGITS, ONE_HOT, {}),
    "smoothed cross-entropy": (lambda: smoothed, LOGITS, LABELS, {}),
    "l2_loss": (lambda: optax.l2_loss, normal(5, 3), Y, OF_TARGETS),
    "squared_error": (lambda: optax.squared_error, normal(5, 3), Y, OF_TARGETS),
    "huber_loss": (lambda: optax.huber_loss, 2 * normal(5, 3), Y, OF_TARGETS),
    "log_cosh": (lambda: optax.log_cosh, normal(5, 3), Y, OF_TARGETS),
    "cosine_distance": (
        lambda: partial(optax.cosine_distance, epsilon=1e-6), normal(5, 3), Y,
        {"symmetries": ("scale",)},
    ),
    "hinge_loss": (lambda: optax.hinge_loss, normal(5), 2 * BITS[:, 0] - 1, {"smooth": False}),
    "kl_divergence": (lambda: divergence, LOGITS, PROBABILITIES, {}),
    "plain cross-entropy": (lambda: plain_cross_entropy, LOGITS, LABELS, OF_LABELS),
    "mean squared error, a scalar": (lambda: mean_squared_error, normal(5, 3), Y, {}),
    "mean absolute error": (
        lambda: lambda p, t: jnp.abs(p - t).mean(axis=-1), normal(5, 3), Y,
        {"best": "targets", "smooth": False},
    ),
    "Gaussian likelihood": (
        lambda: gaussian, {"mean": normal(5, 3), "scale": normal(5, 3, seed=3)}, Y,
        {"at_least_zero": False},
    ),
    "quantile": (lambda: quantile, normal(5, 3), Y, {"best": "targets", "smooth": False}),
}  # fmt: skip


# Initializers and schedules.

INITIALIZERS = {
    "normal": (lambda: jax.nn.initializers.normal(0.02), {"std": 0.02}),
    "truncated_normal": (lambda: jax.nn.initializers.truncated_normal(0.02), {}),
    "uniform": (lambda: jax.nn.initializers.uniform(0.1), {}),
    "lecun_normal": (lambda: jax.nn.initializers.lecun_normal(), {}),
    "he_normal": (lambda: jax.nn.initializers.he_normal(), {}),
    "he_uniform": (lambda: jax.nn.initializers.he_uniform(), {"distribution": "uniform"}),
    "glorot_uniform": (lambda: jax.nn.initializers.glorot_uniform(), {}),
    "orthogonal": (lambda: jax.nn.initializers.orthogonal(), {"orthogonal": True}),
    "zeros": (lambda: jax.nn.initializers.zeros, {"random": False}),
    "constant": (lambda: jax.nn.initializers.constant(0.5), {"random": False}),
}


def plain_cosine(step):
    return 0.05 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step, 100) / 100.0))


SCHEDULES = {
    "constant": (lambda: optax.constant_schedule(0.1), {}),
    "cosine": (
        lambda: optax.cosine_decay_schedule(0.1, 100),
        {"start": 0.1, "end": 0.0, "total_steps": 100, "monotone": "falling"},
    ),
    "warmup and cosine": (
        lambda: optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100),
        {"peak": 0.1, "warmup_steps": 10, "total_steps": 100, "end": 0.0},
    ),
    "linear": (
        lambda: optax.linear_schedule(0.1, 0.0, 50),
        {"start": 0.1, "end": 0.0, "total_steps": 50, "monotone": "falling"},
    ),
    "exponential": (
        lambda: optax.exponential_decay(0.1, 10, 0.5),
        {"start": 0.1, "monotone": "falling"},
    ),
    "steps": (lambda: optax.piecewise_constant_schedule(0.1, {30: 0.1, 60: 0.1}), {}),
    "polynomial": (lambda: optax.polynomial_schedule(0.1, 0.01, 2, 50), {}),
    "one cycle": (lambda: optax.cosine_onecycle_schedule(100, 0.1), {}),
    "join": (
        lambda: optax.join_schedules(
            [optax.linear_schedule(0.0, 0.1, 5), optax.constant_schedule(0.1)], [5]
        ),
        {"peak": 0.1, "warmup_steps": 5},
    ),
    "plain cosine": (lambda: plain_cosine, {"start": 0.1, "end": 0.0, "total_steps": 100}),
}


# Metrics.


def accuracy(logits, labels):
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))


def root_mean_squared_error(outputs, targets):
    return jnp.sqrt(jnp.mean(jnp.square(outputs - targets)))


def r_squared(outputs, targets):
    total = jnp.sum(jnp.square(targets - targets.mean()))
    return 1.0 - jnp.sum(jnp.square(targets - outputs)) / total


def f1(logits, targets):
    predicted, true = (logits > 0).astype(jnp.float32), targets.astype(jnp.float32)
    hits = jnp.sum(predicted * true)
    return 2.0 * hits / jnp.maximum(predicted.sum() + true.sum(), 1.0)


def sums_of_top_2():
    def measure(logits, labels):
        _, best = jax.lax.top_k(logits, 2)
        hit = jnp.any(best == labels[:, None], axis=-1)
        return {"hits": hit.sum().astype(jnp.float32), "n": jnp.float32(labels.shape[0])}

    return Metric(measure, lambda sums: sums["hits"] / jnp.maximum(sums["n"], 1.0))


SURE = 9 * ONE_HOT
METRICS = {
    "accuracy": (lambda: accuracy, LOGITS, LABELS, {"best": (SURE, LABELS, 1.0), "bounds": (0, 1)}),
    "root mean squared error": (
        lambda: root_mean_squared_error, normal(5), Y[:, 0], {"best": (Y[:, 0], Y[:, 0], 0.0)},
    ),
    "R squared": (lambda: r_squared, normal(5), Y[:, 0], {"best": (Y[:, 0], Y[:, 0], 1.0)}),
    "F1": (lambda: f1, normal(8), integers(2, 8), {"bounds": (0, 1)}),
    "top 2, in sums": (sums_of_top_2, LOGITS, LABELS, {"best": (SURE, LABELS, 1.0)}),
}  # fmt: skip


# Steps.

BATCHES = [(normal(6, 4, seed=i), normal(6, 2, seed=9 + i)) for i in range(3)]


class Carry(NamedTuple):
    params: Any
    opt_state: Any
    key: Any = None


def linear_loss(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def linear_start():
    return {"w": 0.3 * jax.random.normal(jax.random.key(0), (4, 2)), "b": jnp.zeros(2)}


def plain_step(state, batch):
    loss, grads = jax.value_and_grad(linear_loss)(state["params"], batch)
    params = jax.tree.map(lambda p, g: p - 0.05 * g, state["params"], grads)
    return {"params": params, "step": state["step"] + 1}, {"loss": loss}


def optax_step(state, batch):
    optimizer = optax.adam(1e-2)
    loss, grads = jax.value_and_grad(linear_loss)(state.params, batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return Carry(optax.apply_updates(state.params, updates), opt_state), {"loss": loss}


def clipped_step(state, batch):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))
    loss, grads = jax.value_and_grad(linear_loss)(state.params, batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return Carry(optax.apply_updates(state.params, updates), opt_state), {"loss": loss}


def start_of(optimizer):
    return lambda: Carry(linear_start(), optimizer.init(linear_start()))


def noisy_step(state, batch):
    """With a key in the state, which is split at each step."""
    key, noise = jax.random.split(state.key)
    x, y = batch
    x = jnp.where(jax.random.bernoulli(noise, 0.8, x.shape), x / 0.8, 0.0)
    loss, grads = jax.value_and_grad(linear_loss)(state.params, (x, y))
    params = jax.tree.map(lambda p, g: p - 0.02 * g, state.params, grads)
    return Carry(params, (), key), {"loss": loss}


def masked_loss(params, batch):
    error = jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2, axis=-1)
    mask = batch["mask"].astype(error.dtype)
    return jnp.sum(error * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def masked_step(state, batch):
    loss, grads = jax.value_and_grad(masked_loss)(state["params"], batch)
    return {"params": jax.tree.map(lambda p, g: p - 0.05 * g, state["params"], grads)}, loss


def accumulating_step(state, batch):
    """The gradient in microbatches of 2, by a scan."""
    parts = jax.tree.map(lambda a: a.reshape(3, 2, *a.shape[1:]), batch)

    def add(sums, part):
        return jax.tree.map(
            jnp.add, sums, jax.value_and_grad(linear_loss)(state["params"], part)
        ), None

    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, state["params"]))
    (loss, grads), _ = jax.lax.scan(add, zeros, parts)
    params = jax.tree.map(lambda p, g: p - 0.05 * g / 3.0, state["params"], grads)
    return {"params": params, "step": state["step"] + 1}, {"loss": loss / 3.0}


def linen_step(state, batch):
    module, optimizer = LinenMLP(norm="batch"), optax.adam(1e-2)
    x, y = batch

    def loss_of(params):
        outputs, new = module.apply(
            {"params": params, "batch_stats": state["batch_stats"]}, x, train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        return jnp.mean((outputs[:, :2] - y) ** 2), new["batch_stats"]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = optimizer.update(grads, state["opt_state"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "batch_stats": stats, "opt_state": opt_state}, {"loss": loss}


def linen_start():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = LinenMLP(norm="batch").init(jax.random.key(0), BATCHES[0][0])
        return {**variables, "opt_state": optax.adam(1e-2).init(variables["params"])}


def counted():
    return {"params": linear_start(), "step": jnp.int32(0)}


MASKED = [
    {"x": x, "y": y, "mask": np.arange(6) < 4 - i} for i, (x, y) in enumerate(BATCHES)
]  # fmt: skip
STEPS = {
    "gradient descent": (lambda: plain_step, counted, BATCHES, {"loss": linear_loss}),
    "adam": (lambda: optax_step, start_of(optax.adam(1e-2)), BATCHES, {"loss": linear_loss}),
    "clip and momentum": (
        lambda: clipped_step,
        start_of(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))),
        BATCHES, {},
    ),
    "noise, with the key in the state": (
        lambda: noisy_step, lambda: Carry(linear_start(), (), jax.random.key(1)), BATCHES,
        {"noisy": True},
    ),
    "mask": (
        lambda: masked_step, lambda: {"params": linear_start()}, MASKED,
        {"mask": lambda batch: batch["mask"], "loss": masked_loss},
    ),
    "microbatches": (lambda: accumulating_step, counted, BATCHES, {"parts": plain_step}),
    "Linen with BatchNorm": (lambda: linen_step, linen_start, BATCHES, {}),
}  # fmt: skip


# Data.


def permuted(key, step, n, batch_size):
    """Batches of concatenated epochs, each a permutation by its own key."""
    at = step * batch_size + jnp.arange(batch_size)
    first = (step * batch_size) // n
    epochs = first + jnp.arange(batch_size // n + 2)
    orders = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), n))(epochs)
    return orders[at // n - first, at % n]


def in_order(key, step, n, batch_size):
    return (step * batch_size + jnp.arange(batch_size)) % n


def shuffled_loader(key, x, y):
    order = np.asarray(jax.random.permutation(key, len(x)))
    for i in range(0, len(x), 4):
        yield x[order[i : i + 4]], y[order[i : i + 4]]


def whole_batches(key, x, y):
    order = np.asarray(jax.random.permutation(key, len(x)))
    for part in order[: len(x) // 4 * 4].reshape(-1, 4):
        yield x[part], y[part]


def holdout(key, n):
    order = jax.random.permutation(key, n)
    return order[: n * 8 // 10], order[n * 8 // 10 :]


def flip(key, batch):
    x, y = batch
    flips = jax.random.bernoulli(key, 0.5, (x.shape[0],))
    return jnp.where(flips[:, None, None, None], jnp.flip(x, axis=2), x), y


def crop(key, batch):
    x, y = batch
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    starts = jax.random.randint(key, (x.shape[0], 2), 0, 3)
    one = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), x.shape[1:])  # noqa: E731
    return jax.vmap(one)(padded, starts), y


def jitter(key, batch):
    x, y = batch
    return x + 0.1 * jax.random.normal(key, x.shape), y


def mixup(key, batch):
    x, y = batch
    of_order, of_weight = jax.random.split(key)
    order = jax.random.permutation(of_order, x.shape[0])
    weight = jax.random.beta(of_weight, 1.0, 1.0)
    return tuple(weight * a + (1.0 - weight) * a[order] for a in (x, y))


def cutout(key, batch):
    x, y = batch
    at = jax.random.randint(key, (2, x.shape[0], 1), 0, x.shape[1])
    rows, columns = jnp.abs(jnp.arange(x.shape[1]) - at) <= 1
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], 0.0, x), y


PIXELS = np.random.default_rng(0).uniform(size=(6, 5, 5, 1)).astype(np.float32)
LABELED = (PIXELS, integers(3, 6))
ONE_HOT_PIXELS = (PIXELS, np.eye(3, dtype=np.float32)[integers(3, 6)])
DATA = [
    Correct("permutations", "order", lambda: permuted, (10, 4)),
    Correct("in order", "order", lambda: in_order, (10, 4), {"shuffles": False}),
    Correct(
        "shuffled", "loader", lambda: shuffled_loader,
        (normal(10, 2), integers(3, 10)), {"batch_size": 4},
    ),
    Correct(
        "shuffled whole batches", "loader", lambda: whole_batches,
        (normal(10, 2), integers(3, 10)), {"batch_size": 4, "drop_last": True},
    ),
    Correct("holdout", "split", lambda: holdout, (25,)),
    Correct(
        "flip", "augment", lambda: flip, (LABELED,),
        {"bounds": (0, 1), "invariant": [("mean", lambda x: x.mean())]},
    ),
    Correct("crop", "augment", lambda: crop, (LABELED,), {"bounds": (0, 1)}),
    Correct("jitter", "augment", lambda: jitter, (LABELED,)),
    Correct("mixup", "augment", lambda: mixup, (ONE_HOT_PIXELS,), {"labels": "mixed"}),
    Correct("cutout", "augment", lambda: cutout, (LABELED,), {"bounds": (0, 1)}),
]  # fmt: skip


STREAMS = {"variational bottleneck": (lambda: LinenNoise(), X)}
CORRECT: list[Correct] = [
    *(Correct(f"linen: {n}", "model", of_linen(make), (x,)) for n, (make, x) in LINEN.items()),
    *(
        Correct(f"linen: {n}", "model", of_linen(make, rngs=("noise",)), (x,))
        for n, (make, x) in STREAMS.items()
    ),
    *(
        Correct(f"nnx: {n}", "model", lambda make=make: from_nnx(make), (x,), *more)
        for n, (make, x, *more) in NNX.items()
    ),
    *(
        Correct(f"equinox: {n}", "model", lambda make=make: from_equinox(make), (x,))
        for n, (make, x) in EQUINOX.items()
    ),
    *(
        Correct(f"haiku: {n}", "model", lambda f=f: from_haiku(f), (x,))
        for n, (f, x) in HAIKU.items()
        if importlib.util.find_spec("haiku")
    ),
    *(Correct(f"plain: {n}", "model", make, (x,), more) for n, (make, x, more) in PLAIN.items()),
    *(
        Correct(f"optax: {n}", "optimizer", of_optax(make), (), more)
        for n, (make, more) in OPTIMIZERS.items()
    ),
    *(Correct(n, "loss", make, (p, t), more) for n, (make, p, t, more) in LOSSES.items()),
    *(
        Correct(n, "initializer", make, ((60, 50),), more)
        for n, (make, more) in INITIALIZERS.items()
    ),
    *(Correct(n, "schedule", make, (), more) for n, (make, more) in SCHEDULES.items()),
    *(Correct(n, "metric", make, (p, t), more) for n, (make, p, t, more) in METRICS.items()),
    *(Correct(n, "step", make, (start, b), more) for n, (make, start, b, more) in STEPS.items()),
    *DATA,
]
