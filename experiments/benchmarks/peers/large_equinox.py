"""GPT-2 of `compiled.py` by Equinox and optax: `lax.scan` over stacked blocks, bfloat16."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn

from experiments.benchmarks.peers.large import GPT2, NETWORKS, batch_of
from experiments.benchmarks.peers.large_linen import optimizer_of
from experiments.benchmarks.peers.of_optax import mean_loss


class Block(eqx.Module):
    norms: list[nn.LayerNorm]
    qkv: nn.Linear
    out: nn.Linear
    up: nn.Linear
    down: nn.Linear
    how: Any = eqx.field(static=True)

    def __init__(self, cudnn: bool, key: Any):
        e, keys = GPT2.features, jax.random.split(key, 4)
        self.norms = [nn.LayerNorm(e, use_bias=False) for _ in range(2)]
        self.qkv = nn.Linear(e, 3 * e, use_bias=False, key=keys[0])
        self.out = nn.Linear(e, e, use_bias=False, key=keys[1])
        self.up = nn.Linear(e, GPT2.hidden, use_bias=False, key=keys[2])
        self.down = nn.Linear(GPT2.hidden, e, use_bias=False, key=keys[3])
        self.how = "cudnn" if cudnn else None

    def __call__(self, x):
        h = jax.vmap(self.norms[0])(x)
        q, k, v = jnp.split(jax.vmap(self.qkv)(h), 3, axis=-1)
        q, k, v = (a.reshape(len(x), GPT2.heads, -1) for a in (q, k, v))
        h = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=self.how)
        x = x + jax.vmap(self.out)(h.reshape(x.shape))
        h = jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norms[1])(x)))
        return x + jax.vmap(self.down)(h)


class GPT(eqx.Module):
    tokens: nn.Embedding
    positions: nn.Embedding
    blocks: Block
    norm: nn.LayerNorm
    remat: bool = eqx.field(static=True)

    def __init__(self, cudnn: bool, remat: bool, key: Any):
        keys = jax.random.split(key, 3)
        self.tokens = nn.Embedding(GPT2.vocabulary, GPT2.features, key=keys[0])
        self.positions = nn.Embedding(GPT2.length, GPT2.features, key=keys[1])
        own = jax.random.split(keys[2], GPT2.layers)
        self.blocks = eqx.filter_vmap(lambda key: Block(cudnn, key))(own)
        self.norm, self.remat = nn.LayerNorm(GPT2.features, use_bias=False), remat

    def __call__(self, x):
        h = jax.vmap(self.tokens)(x) + self.positions.weight[: len(x)]
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        apply = lambda h, arrays: eqx.combine(arrays, rest)(h)  # noqa: E731
        apply = jax.checkpoint(apply, prevent_cse=False) if self.remat else apply
        h, _ = jax.lax.scan(lambda h, arrays: (apply(h, arrays), None), h, arrays)
        return jax.vmap(self.norm)(h) @ self.tokens.weight.T


def step_of(name: str, cudnn: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A training step, and the shapes of its arguments."""
    optimizer, (x, y) = optimizer_of(name), batch_of(name)
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    make = lambda: GPT(cudnn, NETWORKS[name].remat, jax.random.key(0))  # noqa: E731
    params, rest = eqx.partition(eqx.filter_eval_shape(make), is_shape)

    def step(state: Any, batch: Any) -> Any:
        params, opt_state = state

        def loss(params: Any) -> Any:
            narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
            logits = jax.vmap(eqx.combine(narrow, rest))(batch[0])
            return mean_loss(logits.astype(jnp.float32), batch[1])

        value, grads = jax.value_and_grad(loss)(params)
        change, opt_state = optimizer.update(grads, opt_state, params)
        return (eqx.apply_updates(params, change), opt_state), value

    return step, ((params, jax.eval_shape(optimizer.init, params)), (x, y))
