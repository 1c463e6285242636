"""Transformer blocks: self-attention and an MLP, each with a norm and a residual connection.

B batch, T time, E features. The models hold a list of blocks, or with `scan` one tree of them whose
leaves are stacked along a first axis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import layers
from fnn._arguments import check_exports
from fnn.expect import in_layer
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name, key_of_noise
from fnn.layers.attention import Attend, Mask, Rotate
from fnn.nn import feed_forward, layer_norm
from fnn.nn.compute import Policy, checkpoint_policy
from fnn.tree import unstack
from fnn.types import Model, Params, PRNGKey, Scalar
from fnn.xla import draw_each, in_memory

__all__ = ["BlockConfig", "Residual", "post_norm", "pre_norm"]

Function = Callable[[Any], Any]
# sublayer(params, x (B, T, E), carry) -> (B, T, E), carry. The carry is a KV cache, or ().
Sublayer = Callable[[Params, Any, Any], tuple[Any, Any]]


class Residual(NamedTuple):
    """A residual connection: x -> after(norm, x, y) with y = sublayer(before(norm, x))."""

    before: Callable[[Function, Any], Any]
    after: Callable[[Function, Any, Any], Any]


# x + sublayer(norm(x)): GPT-2, Llama, ViT. Trains without warm-up; Xiong et al. 2020,
# arXiv:2002.04745.
pre_norm = Residual(before=lambda norm, x: norm(x), after=lambda norm, x, y: x + y)
# norm(x + sublayer(x)): the original transformer and BERT.
post_norm = Residual(before=lambda norm, x: x, after=lambda norm, x, y: norm(x + y))


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Shapes and layers of a transformer block; the defaults are GPT-2's."""

    num_heads: int
    hidden_features: int  # of the MLP
    num_kv_heads: int | None = None  # num_heads if None; fewer for grouped-query attention
    head_features: int | None = None  # features / num_heads if None
    mlp: Callable[..., Model] = feed_forward  # or swiglu, geglu, a partial with another activation
    norm: Model = layer_norm(eps=1e-5)
    residual: Residual = pre_norm
    bias: bool = True  # of the projections of attention and MLP
    qk_norm: bool = False  # whether queries and keys are normalized
    rotate: Rotate | None = None  # of queries and keys by their positions: layers.rope
    attend: Attend = layers.attention
    remat: Policy | None = None  # what `nn.remat` of a block saves; None computes nothing twice
    kernel_init: Initializer = normal(0.02)
    out_kernel_init: Initializer | None = None  # of the last projections; kernel_init if None

    @property
    def mlp_model(self) -> Model:
        """The MLP of the block."""
        return self.mlp(
            self.hidden_features,
            bias=self.bias,
            kernel_init=self.kernel_init,
            out_kernel_init=self.out_kernel_init,
        )


class Dropout(NamedTuple):
    """The dropout of one call of a model: `dropout(name, x)`, with independent noise by name."""

    rate: Scalar = 0.0
    key: PRNGKey | None = None  # None: no dropout

    def __call__(self, name: str, x: Any) -> Any:
        return x if self.key is None else layers.dropout(fold_name(self.key, name), x, self.rate)

    def attend(self, name: str, attend: Attend) -> Attend:
        """`attend`, with dropout of the attention weights."""
        if self.key is None:
            return attend
        return partial(
            attend, drop=partial(layers.dropout, fold_name(self.key, name), rate=self.rate)
        )

    def of_block(self, i: Any) -> "Dropout":
        """The dropout of block i."""
        return self if self.key is None else self._replace(key=jax.random.fold_in(self.key, i))


def make_dropout(where: str, rate: Scalar, key: PRNGKey | None, train: bool) -> Dropout:
    """The dropout of a call; ValueError, from `where`, for a rate with train=True and no key."""
    return Dropout(rate, key_of_noise(where, rate, key, train))


def norm_init(config: BlockConfig, key: PRNGKey, name: str, features: int) -> Params:
    """{name: parameters of the config's norm}."""
    like = jax.ShapeDtypeStruct((1, 1, features), jnp.float32)
    return {name: config.norm.init(fold_name(key, name), like)[0]}


def attention_init(
    config: BlockConfig,
    key: PRNGKey,
    name: str,
    features: int,
    memory_features: int | None = None,
) -> Params:
    """Parameters of an attention sublayer: {name: ..., name + '_norm': ...}."""
    attention = layers.multi_head_attention_init(
        fold_name(key, name),
        features,
        config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_features=config.head_features,
        memory_features=memory_features,
        bias=config.bias,
        qk_norm=config.qk_norm,
        kernel_init=config.kernel_init,
        out_kernel_init=config.out_kernel_init,
    )
    return {name: attention, **norm_init(config, key, f"{name}_norm", features)}


def block_init(config: BlockConfig, key: PRNGKey, features: int) -> Params:
    """Parameters of `block`: {'attention', 'attention_norm', 'mlp', 'mlp_norm'}."""
    like = jax.ShapeDtypeStruct((1, 1, features), jnp.float32)
    return {
        **attention_init(config, key, "attention", features),
        **norm_init(config, key, "mlp_norm", features),
        "mlp": config.mlp_model.init(fold_name(key, "mlp"), like)[0],
    }


def stack_init(init: Callable[[PRNGKey], Params], key: PRNGKey, n: int, *, scan: bool) -> Any:
    """n blocks, of which block i is init(fold_in(key, i)): a list, or stacked with `scan`."""
    stacked = draw_each(init, key, jnp.arange(n))
    return stacked if scan else unstack(stacked, n)


def blocks_init(config: BlockConfig, key: PRNGKey, features: int, n: int, scan: bool) -> Any:
    """Parameters of n blocks; see `stack_init`."""
    return stack_init(lambda key: block_init(config, key, features), key, n, scan=scan)


def normalize(config: BlockConfig, params: Params, name: str, x: Array) -> Array:
    """The config's norm of x, with the parameters of that name."""
    with in_layer((name,), x):
        return config.norm.apply(params[name], (), x)[0]


def mlp(config: BlockConfig) -> Sublayer:
    """The MLP of a block as a sublayer."""
    model = config.mlp_model
    return lambda params, x, carry: (model.apply(params, (), x)[0], carry)


def self_attention(
    config: BlockConfig, mask: Mask, dropout: Dropout = Dropout(), name: str = "weights"
) -> Sublayer:
    """Self-attention as a sublayer.

    Args:
      mask: an `AttentionMask`, or bool, each axis of (B, H, T, T) or 1; None for full attention.
      dropout, name: of the attention weights, and the name of its noise.
    """
    attend = dropout.attend(name, config.attend)

    def sublayer(params: Params, x: Array, carry: Any) -> tuple[Array, Any]:
        y = layers.multi_head_attention(params, x, mask=mask, rotate=config.rotate, attend=attend)
        return y, carry

    return sublayer


def cached_attention(config: BlockConfig) -> Sublayer:
    """Causal self-attention as a sublayer whose carry is a `layers.KVCache`."""
    return partial(layers.attend_with_cache, rotate=config.rotate, attend=config.attend)


def apply_sublayer(
    config: BlockConfig,
    params: Params,
    name: str,
    x: Array,
    sublayer: Sublayer,
    carry: Any = (),
    dropout: Dropout = Dropout(),
) -> tuple[Array, Any]:
    """The sublayer `name` of a block, with norm, dropout and residual connection."""
    norm = partial(normalize, config, params, f"{name}_norm")
    given = config.residual.before(norm, x)
    with in_layer((name,), given):
        y, carry = sublayer(params[name], given, carry)
    return config.residual.after(norm, x, dropout(name, y)), carry


def block(
    config: BlockConfig,
    params: Params,
    x: Array,
    attention: Sublayer,
    carry: Any = (),
    dropout: Dropout = Dropout(),
) -> tuple[Array, Any]:
    """Attention and MLP, each with norm, dropout and residual connection: (B, T, E) and the carry.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1.

    >>> config, x = BlockConfig(num_heads=2, hidden_features=16), jnp.ones((1, 3, 4))
    >>> params = block_init(config, jax.random.key(0), 4)
    >>> block(config, params, x, self_attention(config, layers.causal_mask(3)))[0].shape
    (1, 3, 4)
    """
    x, carry = apply_sublayer(config, params, "attention", x, attention, carry, dropout)
    x, _ = apply_sublayer(config, params, "mlp", x, mlp(config), (), dropout)
    return x, carry


Step = Callable[[Array, Any, Params, Any], tuple[Array, Any]]


def loop_over_blocks(
    step: Step,
    x: Array,
    blocks: Any,
    carries: Any = (),
    *,
    name: str = "blocks",
) -> tuple[Array, Any]:
    """`x, carries[i] = step(x, i, blocks[i], carries[i])` for each block i: x and the carries.

    A list of blocks is unrolled, which is fastest on CPUs; stacked blocks are scanned, so that
    compilation does not grow with depth. The carries are in the same form, or ().

    >>> step = lambda x, i, block, carry: (x + block, x)
    >>> loop_over_blocks(step, jnp.int32(1), [10, 100])[0].item()
    111
    >>> loop_over_blocks(step, jnp.int32(1), jnp.array([10, 100]))[1].tolist()
    [1, 11]
    """
    if isinstance(blocks, list):
        new = []
        for i, params in enumerate(blocks):
            with in_layer((name, i), x):
                x, carry = step(x, i, params, carries[i] if carries else ())
            new.append(carry)
        return x, new if carries else ()

    def scanned(x: Array, slices: Any) -> tuple[Array, Any]:
        i, params, carry = slices
        with in_layer((name,), x):
            return step(x, i, in_memory(i, params), carry)

    n = len(jax.tree.leaves(blocks)[0])
    return jax.lax.scan(scanned, x, (jnp.arange(n), blocks, carries))


def apply_blocks(config: BlockConfig, blocks: Any, x: Array, mask: Mask, dropout: Dropout) -> Array:
    """The blocks in turn, with self-attention under `mask` and independent dropout."""

    def step(x: Array, i: Any, params: Params, carry: Any) -> tuple[Array, Any]:
        own = dropout.of_block(i)
        return block(config, params, x, self_attention(config, mask, own), carry, own)

    return loop_over_blocks(rematerialized(config, step, blocks), x, blocks)[0]


def rematerialized(config: BlockConfig, step: Step, blocks: Any) -> Step:
    """`step` of `loop_over_blocks`, of which the backward pass saves what `config.remat` says."""
    if config.remat is None:
        return step
    # A scan shares no expressions with the forward pass, so CSE needs no prevention.
    is_unrolled = isinstance(blocks, list)
    return jax.checkpoint(step, policy=checkpoint_policy(config.remat), prevent_cse=is_unrolled)


def decode_blocks(config: BlockConfig, blocks: Any, x: Array, caches: Any) -> tuple[Array, Any]:
    """The blocks in turn, with causal attention to their caches: x and the new caches."""

    def step(x: Array, i: Any, params: Params, cache: Any) -> tuple[Array, Any]:
        return block(config, params, x, cached_attention(config), cache)

    return loop_over_blocks(step, x, blocks, caches)


def init_carries(init: Callable[[Params], Any], blocks: Any) -> Any:
    """The carries init(blocks[i]), in the form of the blocks."""
    return (
        [init(params) for params in blocks] if isinstance(blocks, list) else jax.vmap(init)(blocks)
    )


def position_of(caches: Any) -> Array:
    """The number of tokens in the caches of the blocks."""
    position = (caches[0] if isinstance(caches, list) else caches).position
    return position if position.ndim == 0 else position[0]


check_exports(__name__)
