"""GPT-2 of `compiled.py` by Flax NNX and optax: `nnx.scan` over blocks, bfloat16."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.benchmarks.peers.large import GPT2, NETWORKS, batch_of
from experiments.benchmarks.peers.large_linen import optimizer_of
from experiments.benchmarks.peers.of_optax import mean_loss

BF16 = jnp.bfloat16
Linear = partial(nnx.Linear, use_bias=False, dtype=BF16)
LayerNorm = partial(nnx.LayerNorm, use_bias=False, dtype=BF16)


class Block(nnx.Module):
    def __init__(self, cudnn: bool, rngs: nnx.Rngs):
        e = GPT2.features
        self.how: Any = "cudnn" if cudnn else None
        self.norms = nnx.List([LayerNorm(e, rngs=rngs) for _ in range(2)])
        self.qkv = nnx.List([Linear(e, e, rngs=rngs) for _ in range(3)])
        self.out = Linear(e, e, rngs=rngs)
        self.up, self.down = (
            Linear(e, GPT2.hidden, rngs=rngs),
            Linear(GPT2.hidden, e, rngs=rngs),
        )

    def __call__(self, x):
        h = self.norms[0](x)
        q, k, v = (f(h).reshape(*x.shape[:2], GPT2.heads, -1) for f in self.qkv)
        h = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=self.how)
        x = x + self.out(h.reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class GPT(nnx.Module):
    def __init__(self, cudnn: bool, remat: bool, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(GPT2.vocabulary, GPT2.features, dtype=BF16, rngs=rngs)
        self.positions = nnx.Embed(GPT2.length, GPT2.features, dtype=BF16, rngs=rngs)
        make = nnx.vmap(partial(Block, cudnn), in_axes=0, out_axes=0)
        self.blocks = nnx.split_rngs(splits=GPT2.layers)(make)(rngs)
        self.norm, self.remat = LayerNorm(GPT2.features, rngs=rngs), remat

    def __call__(self, x):
        h = self.tokens(x) + self.positions(jnp.arange(x.shape[1]))
        apply = lambda h, block: block(h)  # noqa: E731
        body = nnx.remat(apply, prevent_cse=False) if self.remat else apply
        h = nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(h, self.blocks)
        return self.tokens.attend(self.norm(h))


def step_of(name: str, cudnn: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A training step, and the shapes of its arguments."""
    optimizer, (x, y) = optimizer_of(name), batch_of(name)
    make = lambda: GPT(cudnn, NETWORKS[name].remat, nnx.Rngs(0))  # noqa: E731
    graph, shapes = nnx.split(nnx.eval_shape(make))
    params = nnx.filter_state(shapes, nnx.Param)
    rest = nnx.filter_state(shapes, nnx.Not(nnx.Param))

    def step(state: Any, batch: Any) -> Any:
        params, rest, opt_state = state

        def loss(params: Any) -> Any:
            logits = nnx.merge(graph, params, rest)(batch[0])
            return mean_loss(logits.astype(jnp.float32), batch[1])

        value, grads = jax.value_and_grad(loss)(params)
        change, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, change), rest, opt_state), value

    return step, ((params, rest, jax.eval_shape(optimizer.init, params)), (x, y))
