"""Equinox with optax: modules of one example under `jax.vmap`, and `eqx.filter_jit`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn

from experiments.benchmarks.peers.loops import on_device, repeated, value_and_grads
from experiments.benchmarks.peers.of_optax import cross_entropy, mean_loss, optimizer_of
from experiments.benchmarks.peers.work import (
    BLOCKS,
    DEPTH,
    EMBEDDED,
    FEATURES,
    HEADS,
    HIDDEN,
    LENGTH,
    VOCABULARY,
    WIDTH,
    Work,
)

gelu = partial(jax.nn.gelu, approximate=False)
relu = nn.Lambda(jax.nn.relu)
batch_norm = partial(nn.BatchNorm, axis_name="batch", mode="batch")


def _mlp(*sizes: int) -> Callable[[Any], Any]:
    def make(key):
        layers: list[Any] = []
        for i, o in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(i, o, key=jax.random.fold_in(key, len(layers))), relu]
        return nn.Sequential(layers[:-1])

    return make


def _cnn(key: Any) -> Any:
    keys = jax.random.split(key, 4)
    return nn.Sequential(
        [
            nn.Conv2d(1, 32, 3, padding=1, key=keys[0]),
            relu,
            nn.MaxPool2d(2, 2),
            nn.Conv2d(32, 64, 3, padding=1, key=keys[1]),
            relu,
            nn.MaxPool2d(2, 2),
            nn.Lambda(jnp.ravel),
            nn.Linear(7 * 7 * 64, 128, key=keys[2]),
            relu,
            nn.Linear(128, 10, key=keys[3]),
        ]
    )


def _deep(key: Any) -> Any:
    keys = jax.random.split(key, DEPTH + 1)
    layers: list[Any] = []
    for own in keys[:-1]:
        layers += [nn.Linear(WIDTH, WIDTH, use_bias=False, key=own), batch_norm(WIDTH), relu]
    return nn.Sequential([*layers, nn.Linear(WIDTH, 10, key=keys[-1])])


class Block(eqx.Module):
    attention_norm: nn.LayerNorm
    attention: nn.MultiheadAttention
    mlp_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear

    def __init__(self, key: Any):
        keys = jax.random.split(key, 3)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(FEATURES), nn.LayerNorm(FEATURES)
        self.attention = nn.MultiheadAttention(HEADS, FEATURES, key=keys[0])
        self.up = nn.Linear(FEATURES, 4 * FEATURES, use_bias=False, key=keys[1])
        self.down = nn.Linear(4 * FEATURES, FEATURES, use_bias=False, key=keys[2])

    def __call__(self, x):
        h, mask = jax.vmap(self.attention_norm)(x), jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(h, h, h, mask=mask)
        h = gelu(jax.vmap(self.up)(jax.vmap(self.mlp_norm)(x)))
        return x + jax.vmap(self.down)(h)


class GPT(eqx.Module):
    tokens: nn.Embedding
    positions: nn.Embedding
    blocks: list[Block]
    norm: nn.LayerNorm

    def __init__(self, key: Any):
        keys = jax.random.split(key, BLOCKS + 2)
        self.tokens = nn.Embedding(VOCABULARY, FEATURES, key=keys[0])
        self.positions = nn.Embedding(LENGTH, FEATURES, key=keys[1])
        self.blocks = [Block(own) for own in keys[2:]]
        self.norm = nn.LayerNorm(FEATURES)

    def __call__(self, x):
        h = jax.vmap(self.tokens)(x) + self.positions.weight[: len(x)]
        for block in self.blocks:
            h = block(h)
        return jax.vmap(self.norm)(h) @ self.tokens.weight.T


class LSTM(eqx.Module):
    table: nn.Embedding
    cell: nn.LSTMCell
    head: nn.Linear

    def __init__(self, key: Any):
        keys = jax.random.split(key, 3)
        self.table = nn.Embedding(VOCABULARY, EMBEDDED, key=keys[0])
        self.cell = nn.LSTMCell(EMBEDDED, HIDDEN, key=keys[1])
        self.head = nn.Linear(HIDDEN, VOCABULARY, key=keys[2])

    def __call__(self, x):
        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry[0]

        start = jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)
        _, hidden = jax.lax.scan(step, start, jax.vmap(self.table)(x))
        return jax.vmap(self.head)(hidden)


class ResNetBlock(nn.StatefulLayer):
    branch: nn.Sequential
    around: nn.Sequential

    def __init__(self, i: int, o: int, stride: int, key: Any):
        conv, keys = partial(nn.Conv2d, use_bias=False), jax.random.split(key, 3)
        first = conv(i, o, 3, stride, 1, key=keys[0])
        second = conv(o, o, 3, 1, 1, key=keys[1])
        self.branch = nn.Sequential([first, batch_norm(o), relu, second, batch_norm(o)])
        fits = i == o and stride == 1
        one: list[Any] = [] if fits else [conv(i, o, 1, stride, key=keys[2]), batch_norm(o)]
        self.around = nn.Sequential(one)

    def __call__(self, x, state, *, key=None):
        y, state = self.branch(x, state)
        x, state = self.around(x, state)
        return jax.nn.relu(x + y), state


def _resnet(key: Any) -> Any:
    keys = iter(jax.random.split(key, 10))
    stem = nn.Conv2d(3, 64, 3, padding=1, use_bias=False, key=next(keys))
    layers: list[Any] = [stem, batch_norm(64), relu]
    i = 64
    for o, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [ResNetBlock(i, o, stride, next(keys)), ResNetBlock(o, o, 1, next(keys))]
        i = o
    mean = nn.Lambda(lambda x: x.mean((1, 2)))
    return nn.Sequential([*layers, mean, nn.Linear(512, 10, key=next(keys))])


MODELS: dict[str, Callable[[Any], Any]] = {
    "tiny": _mlp(2, 16, 2),
    "mlp": _mlp(784, 512, 256, 10),
    "cnn": _cnn,
    "gpt": GPT,
    "deep": _deep,
    "stacked": _deep,
    "lstm": LSTM,
    "resnet": _resnet,
}
STATEFUL = {"deep", "stacked", "resnet"}


def _norm_gelu(params: Any, x: Any, y: Any) -> Any:
    return (gelu(jax.vmap(params)(x)) * y).sum()


def _plain(model, state, x, y):
    return mean_loss(jax.vmap(model)(x), y), state


def _stateful(model, state, x, y):
    mapped = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    logits, state = mapped(x, state)
    return mean_loss(logits, y), state


def _channels_first(batch: tuple[Any, Any]) -> tuple[Any, Any]:
    x, y = batch
    return (jnp.transpose(x, (0, 3, 1, 2)), y) if x.ndim == 4 else batch


def jitted(work: Work) -> Any:
    if work.name == "cross_entropy":
        return value_and_grads(cross_entropy, {}, work)
    if work.is_function:
        return value_and_grads(_norm_gelu, nn.LayerNorm(512), work)
    model, state = nn.make_with_state(MODELS[work.name])(jax.random.key(0))
    optimizer, loss = optimizer_of(work), _stateful if work.name in STATEFUL else _plain

    @eqx.filter_jit(donate="all-except-first")
    def update(batch, model, state, opt_state):
        (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, *batch)
        params = eqx.filter(model, eqx.is_array)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (eqx.apply_updates(model, updates), state, opt_state), value

    first = model, state, optimizer.init(eqx.filter(model, eqx.is_array))
    batches = list(map(_channels_first, on_device(work)))
    return repeated(lambda carry, x, y: update((x, y), *carry), first, batches)
