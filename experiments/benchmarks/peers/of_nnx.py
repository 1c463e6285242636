"""Flax NNX with optax: `nnx.jit`, and `nnx.cached_partial` as its guide to performance advises."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.benchmarks.peers.loops import on_device, value_and_grads
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

gelu = partial(nnx.gelu, approximate=False)
max_pool = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))


def _mlp(*sizes: int) -> Callable[[nnx.Rngs], nnx.Module]:
    def make(rngs):
        layers: list[Any] = []
        for i, o in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nnx.Linear(i, o, rngs=rngs), nnx.relu]
        return nnx.Sequential(*layers[:-1])

    return make


def _cnn(rngs: nnx.Rngs) -> nnx.Module:
    return nnx.Sequential(
        nnx.Conv(1, 32, (3, 3), rngs=rngs),
        nnx.relu,
        max_pool,
        nnx.Conv(32, 64, (3, 3), rngs=rngs),
        nnx.relu,
        max_pool,
        lambda x: x.reshape(x.shape[0], -1),
        nnx.Linear(7 * 7 * 64, 128, rngs=rngs),
        nnx.relu,
        nnx.Linear(128, 10, rngs=rngs),
    )


def _deep(rngs: nnx.Rngs) -> nnx.Module:
    layers: list[Any] = []
    for _ in range(DEPTH):
        linear = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)
        layers += [linear, nnx.BatchNorm(WIDTH, rngs=rngs), nnx.relu]
    return nnx.Sequential(*layers, nnx.Linear(WIDTH, 10, rngs=rngs))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.attention_norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, FEATURES, use_bias=False, decode=False, rngs=rngs
        )
        self.up = nnx.Linear(FEATURES, 4 * FEATURES, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * FEATURES, FEATURES, use_bias=False, rngs=rngs)

    def __call__(self, x, mask):
        x = x + self.attention(self.attention_norm(x), mask=mask)
        return x + self.down(gelu(self.up(self.mlp_norm(x))))


class GPT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(VOCABULARY, FEATURES, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, FEATURES, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(BLOCKS)])
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)

    def __call__(self, x):
        h = self.tokens(x) + self.positions(jnp.arange(x.shape[1]))
        mask = nnx.make_causal_mask(x)
        for block in self.blocks:
            h = block(h, mask)
        return self.tokens.attend(self.norm(h))


class LSTM(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.table = nnx.Embed(VOCABULARY, EMBEDDED, rngs=rngs)
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(EMBEDDED, HIDDEN, rngs=rngs))
        self.head = nnx.Linear(HIDDEN, VOCABULARY, rngs=rngs)

    def __call__(self, x):
        return self.head(self.lstm(self.table(x)))


class ResNetBlock(nnx.Module):
    def __init__(self, i: int, o: int, stride: int, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, use_bias=False, padding=((1, 1), (1, 1)), rngs=rngs)
        self.conv1 = conv(i, o, (3, 3), strides=(stride, stride))
        self.conv2 = conv(o, o, (3, 3))
        self.norm1, self.norm2 = nnx.BatchNorm(o, rngs=rngs), nnx.BatchNorm(o, rngs=rngs)
        self.around = nnx.Sequential()
        if i != o or stride != 1:
            one = nnx.Conv(i, o, (1, 1), strides=(stride, stride), use_bias=False, rngs=rngs)
            self.around = nnx.Sequential(one, nnx.BatchNorm(o, rngs=rngs))

    def __call__(self, x):
        y = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(self.norm2(self.conv2(y)) + self.around(x))


def _resnet(rngs: nnx.Rngs) -> nnx.Module:
    stem = nnx.Conv(3, 64, (3, 3), use_bias=False, rngs=rngs)
    layers: list[Any] = [stem, nnx.BatchNorm(64, rngs=rngs), nnx.relu]
    i = 64
    for o, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [ResNetBlock(i, o, stride, rngs), ResNetBlock(o, o, 1, rngs)]
        i = o
    mean = lambda x: x.mean((1, 2))  # noqa: E731
    return nnx.Sequential(*layers, mean, nnx.Linear(512, 10, rngs=rngs))


MODELS: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {
    "tiny": _mlp(2, 16, 2),
    "mlp": _mlp(784, 512, 256, 10),
    "cnn": _cnn,
    "gpt": GPT,
    "deep": _deep,
    "stacked": _deep,
    "lstm": LSTM,
    "resnet": _resnet,
}


def _norm_gelu(params: Any, x: Any, y: Any) -> Any:
    return (gelu(params(x)) * y).sum()


def _norm_gelu_steps(work: Work) -> Any:
    norm = nnx.LayerNorm(512, rngs=nnx.Rngs(0))
    [batch] = on_device(work)
    both = nnx.jit(nnx.value_and_grad(_norm_gelu, argnums=(0, 1)))

    def steps(n: int) -> None:
        for _ in range(n):
            value, _ = both(norm, *batch)
        jax.block_until_ready(value)

    return steps


def _step(model, optimizer, x, y):
    value, grads = nnx.value_and_grad(lambda model: mean_loss(model(x), y))(model)
    optimizer.update(model, grads)
    return value


def _trained(work: Work, compiled: Callable[[Any, Any], Callable]) -> Any:
    model, batches = MODELS[work.name](nnx.Rngs(0)), on_device(work)
    step = compiled(model, nnx.Optimizer(model, optimizer_of(work), wrt=nnx.Param))

    def steps(n: int) -> None:
        for i in range(n):
            value = step(*batches[i % len(batches)])
        jax.block_until_ready(value)

    return steps


def _made(work: Work, compiled: Callable[[Any, Any], Callable]) -> Any:
    if work.name == "cross_entropy":
        return value_and_grads(cross_entropy, {}, work)
    return _norm_gelu_steps(work) if work.is_function else _trained(work, compiled)


def jitted(work: Work) -> Any:
    return _made(work, lambda *objects: partial(nnx.jit(_step), *objects))


def cached(work: Work) -> Any:
    return _made(work, lambda *objects: nnx.cached_partial(nnx.jit(_step), *objects))
