"""Flax Linen with optax: a TrainState, and one jitted step that overwrites it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState

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

gelu = partial(nn.gelu, approximate=False)
batch_norm = partial(nn.BatchNorm, use_running_average=False)


class MLP(nn.Module):
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for size in self.sizes[:-1]:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(self.sizes[-1])(x)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (32, 64):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(DEPTH):
            x = nn.relu(batch_norm()(nn.Dense(WIDTH, use_bias=False)(x)))
        return nn.Dense(10)(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS, use_bias=False)(h, mask=mask)
        h = gelu(nn.Dense(4 * FEATURES, use_bias=False)(nn.LayerNorm()(x)))
        return x + nn.Dense(FEATURES, use_bias=False)(h)


class GPT(nn.Module):
    @nn.compact
    def __call__(self, x):
        tokens = nn.Embed(VOCABULARY, FEATURES)
        h = tokens(x) + nn.Embed(LENGTH, FEATURES)(jnp.arange(x.shape[1]))
        mask = nn.make_causal_mask(x)
        for _ in range(BLOCKS):
            h = Block()(h, mask)
        return tokens.attend(nn.LayerNorm()(h))


class LSTM(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.RNN(nn.OptimizedLSTMCell(HIDDEN))(nn.Embed(VOCABULARY, EMBEDDED)(x))
        return nn.Dense(VOCABULARY)(h)


class ResNetBlock(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv = partial(nn.Conv, self.features, use_bias=False)
        strides, padding = (self.stride, self.stride), ((1, 1), (1, 1))
        y = nn.relu(batch_norm()(conv((3, 3), strides=strides, padding=padding)(x)))
        y = batch_norm()(conv((3, 3), padding=padding)(y))
        if x.shape != y.shape:
            x = batch_norm()(conv((1, 1), strides=strides)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(batch_norm()(nn.Conv(64, (3, 3), use_bias=False)(x)))
        for features, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            x = ResNetBlock(features, 1)(ResNetBlock(features, stride)(x))
        return nn.Dense(10)(x.mean((1, 2)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "tiny": lambda: MLP((16, 2)),
    "mlp": lambda: MLP((512, 256, 10)),
    "cnn": CNN,
    "gpt": GPT,
    "deep": Deep,
    "stacked": Deep,
    "lstm": LSTM,
    "resnet": ResNet,
}


def _norm_gelu(params: Any, x: Any, y: Any) -> Any:
    norm: Any = nn.LayerNorm()
    return (gelu(norm.apply(params, x)) * y).sum()


def _function(work: Work) -> Any:
    if work.name == "cross_entropy":
        return value_and_grads(cross_entropy, {}, work)
    params = nn.LayerNorm().init(jax.random.key(0), jnp.zeros((1, 512)))
    return value_and_grads(_norm_gelu, params, work)


class State(TrainState):
    batch_stats: Any


@partial(jax.jit, donate_argnums=0)
def _step(state, x, y):
    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = state.apply_fn(variables, x, mutable=["batch_stats"])
        return mean_loss(logits, y), updates

    (value, updates), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    stats = updates.get("batch_stats", state.batch_stats)
    return state.apply_gradients(grads=grads, batch_stats=stats), value


def jitted(work: Work) -> Any:
    if work.is_function:
        return _function(work)
    model, batches = MODELS[work.name](), on_device(work)
    variables = jax.jit(model.init)(jax.random.key(0), batches[0][0])
    state = State.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optimizer_of(work),
        batch_stats=variables.get("batch_stats", {}),
    )
    return repeated(_step, state, batches)
