"""The networks of `compiled.py` by Flax Linen and optax: `nn.scan` over blocks, bfloat16.

Attention is `jax.nn.dot_product_attention`, by cuDNN on NVIDIA; parameters are float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.benchmarks.peers.large import (
    BERT,
    GPT2,
    LLAMA,
    LR,
    MOMENTUM,
    NETWORKS,
    PATCH,
    VIT,
    WEIGHT_DECAY,
    Transformer,
    batch_of,
)
from experiments.benchmarks.peers.of_optax import mean_loss

BF16 = jnp.bfloat16
Dense = partial(nn.Dense, dtype=BF16)
DenseGeneral = partial(nn.DenseGeneral, dtype=BF16)
LayerNorm = partial(nn.LayerNorm, dtype=BF16)
RMSNorm = partial(nn.RMSNorm, dtype=BF16)
Embed = partial(nn.Embed, dtype=BF16)
Conv = partial(nn.Conv, dtype=BF16, use_bias=False)


def rotated(x: Any) -> Any:
    """Rotary positions of (b, t, h, d)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * 500000.0 ** (-jnp.arange(half) / half)
    sin, cos = (f(angles)[None, :, None, :].astype(x.dtype) for f in (jnp.sin, jnp.cos))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    shape: Transformer
    kind: str
    cudnn: bool

    @nn.compact
    def __call__(self, x, _):
        post, llama = self.kind == "bert", self.kind == "llama"
        bias = self.kind in ("bert", "vit")
        norm = RMSNorm if llama else LayerNorm
        heads = (self.shape.heads, self.shape.features // self.shape.heads)
        h = x if post else norm()(x)
        q, k, v = (DenseGeneral(heads, use_bias=bias)(h) for _ in range(3))
        if llama:
            q, k = rotated(q), rotated(k)
        h = jax.nn.dot_product_attention(
            q,
            k,
            v,
            is_causal=self.kind in ("gpt2", "llama"),
            implementation="cudnn" if self.cudnn and x.shape[1] % 2 == 0 else None,
        )
        x = x + DenseGeneral(self.shape.features, axis=(-2, -1), use_bias=bias)(h)
        x = norm()(x) if post else x
        h = x if post else norm()(x)
        up = Dense(self.shape.hidden, use_bias=bias)(h)
        up = nn.silu(Dense(self.shape.hidden, use_bias=bias)(h)) * up if llama else nn.gelu(up)
        x = x + Dense(self.shape.features, use_bias=bias)(up)
        return norm()(x) if post else x, None


def blocks(shape: Transformer, kind: str, cudnn: bool, remat: bool) -> nn.Module:
    block = nn.remat(Block, prevent_cse=False) if remat else Block
    over = nn.scan(
        block, variable_axes={"params": 0}, split_rngs={"params": True}, length=shape.layers
    )
    return over(shape, kind, cudnn)


class LanguageModel(nn.Module):
    shape: Transformer
    kind: str
    cudnn: bool
    remat: bool

    @nn.compact
    def __call__(self, x):
        tokens = Embed(self.shape.vocabulary, self.shape.features)
        h = tokens(x)
        if self.kind != "llama":
            h = h + Embed(self.shape.length, self.shape.features)(jnp.arange(x.shape[1]))
        if self.kind == "bert":
            h = LayerNorm()(h + Embed(2, self.shape.features)(jnp.zeros_like(x)))
        h, _ = blocks(self.shape, self.kind, self.cudnn, self.remat)(h, None)
        if self.kind == "llama":
            return Dense(self.shape.vocabulary, use_bias=False)(RMSNorm()(h))
        if self.kind == "bert":
            h = nn.gelu(Dense(self.shape.features)(h))
        return tokens.attend(LayerNorm()(h))


class ViT(nn.Module):
    cudnn: bool

    @nn.compact
    def __call__(self, x):
        cuts = (PATCH, PATCH)
        h = nn.Conv(VIT.features, cuts, strides=cuts, padding="VALID", dtype=BF16)(x)
        h = h.reshape(h.shape[0], -1, VIT.features)
        token = self.param("class", nn.initializers.zeros, (1, 1, VIT.features)).astype(BF16)
        h = jnp.concatenate([jnp.tile(token, (len(h), 1, 1)), h], axis=1)
        positions = self.param("at", nn.initializers.normal(0.02), (1, VIT.length, VIT.features))
        h, _ = blocks(VIT, "vit", self.cudnn, False)(h + positions.astype(BF16), None)
        return Dense(VIT.vocabulary)(LayerNorm()(h)[:, 0])


batch_norm = partial(nn.BatchNorm, use_running_average=False, momentum=0.9, dtype=BF16)


class Bottleneck(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        strides = (self.stride, self.stride)
        y = nn.relu(batch_norm()(Conv(self.features, (1, 1))(x)))
        y = Conv(self.features, (3, 3), strides=strides, padding=((1, 1), (1, 1)))(y)
        y = Conv(4 * self.features, (1, 1))(nn.relu(batch_norm()(y)))
        y = batch_norm()(y)
        if x.shape != y.shape:
            x = batch_norm()(Conv(4 * self.features, (1, 1), strides=strides)(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Conv(64, (7, 7), strides=(2, 2), padding=((3, 3), (3, 3)))(x)
        x = nn.relu(batch_norm()(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, depth in enumerate((3, 4, 6, 3)):
            for j in range(depth):
                x = Bottleneck(64 * 2**i, 2 if i and not j else 1)(x)
        return Dense(1000)(x.mean((1, 2)))


def _model(name: str, cudnn: bool) -> nn.Module:
    kind = name.partition("-")[0]
    if kind == "resnet50":
        return ResNet50()
    if kind == "vit":
        return ViT(cudnn)
    shape = {"gpt2": GPT2, "llama": LLAMA, "bert": BERT}[kind]
    return LanguageModel(shape, kind, cudnn, NETWORKS[name].remat)


def optimizer_of(name: str) -> optax.GradientTransformation:
    if name == "resnet50":
        return optax.sgd(LR, momentum=MOMENTUM)
    return optax.adamw(LR, weight_decay=WEIGHT_DECAY)


def step_of(name: str, cudnn: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A training step, and the shapes of its arguments."""
    model, optimizer, (x, y) = _model(name, cudnn), optimizer_of(name), batch_of(name)

    def init(key: Any, x: Any) -> Any:
        # cuDNN has no float32, in which nothing is computed here but the shapes.
        variables = _model(name, False).init(key, x)
        params = variables["params"]
        return params, variables.get("batch_stats", {}), optimizer.init(params)

    def step(state: Any, batch: Any) -> Any:
        params, stats, opt_state = state

        def loss(params: Any) -> Any:
            variables = {"params": params, "batch_stats": stats}
            logits, updates = model.apply(variables, batch[0], mutable=["batch_stats"])
            return mean_loss(logits.astype(jnp.float32), batch[1]), updates

        (value, updates), grads = jax.value_and_grad(loss, has_aux=True)(params)
        change, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, change)
        return (params, updates.get("batch_stats", {}), opt_state), value

    return step, (jax.eval_shape(init, jax.random.key(0), x), (x, y))
