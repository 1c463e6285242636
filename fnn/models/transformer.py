"""What all transformers are made of: a block of attention and feed-forward, and a stack of them.

B batch, T time, E features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import layers
from fnn.arguments import check_exports
from fnn.expect import in_layer, within
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name, fold_name_or_none, key_of_noise
from fnn.layers.attention import Attend
from fnn.layers.multi_head import Rotate
from fnn.nn import feed_forward, layer_norm
from fnn.nn.attention import with_dropout
from fnn.tree import unstack
from fnn.types import Model, Params, PRNGKey, Scalar
from fnn.xla import draw_each, in_memory

__all__ = ["BlockConfig"]

# mix(params of the attention, x (B, T, E), carry) -> (B, T, E), carry: the one part of a block in
# which positions see each other. The carry is a cache of keys and values, or ().
Mix = Callable[[Params, Any, Any], tuple[Any, Any]]
Drop = Callable[[str, Any], Any]  # (name of the place, x) -> x with dropout


class Arrange(NamedTuple):
    """Where a block has its norms: `before(norm, x)` enters a part, `after(norm, x, y)` leaves it.

    x is what entered the block's part, y what the part made of it.
    """

    before: Callable[[Callable[[Any], Any], Any], Any]
    after: Callable[[Callable[[Any], Any], Any, Any], Any]


# x + part(norm(x)): GPT-2, Llama, ViT. Xiong et al. 2020, arXiv:2002.04745: trains without warm-up.
pre_norm = Arrange(before=lambda norm, x: norm(x), after=lambda norm, x, y: x + y)
# norm(x + part(x)): the first transformer and BERT.
post_norm = Arrange(before=lambda norm, x: x, after=lambda norm, x, y: norm(x + y))


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What fixes the shapes and the parts of a block; the defaults are GPT-2's."""

    num_heads: int
    hidden_features: int  # of the feed-forward part
    num_kv_heads: int | None = None  # num_heads if None; fewer are grouped-query attention
    head_features: int | None = None  # features / num_heads if None
    mlp: Callable[..., Model] = feed_forward  # or swiglu, geglu, a partial with another activation
    norm: Model = layer_norm(eps=1e-5)
    arrange: Arrange = pre_norm
    bias: bool = True  # of the projections of both parts
    qk_norm: bool = False  # whether queries and keys are normalized
    rotate: Rotate | None = None  # of queries and keys by their positions: layers.rope
    attend: Attend = layers.dot_product_attention
    kernel_init: Initializer = normal(0.02)
    out_kernel_init: Initializer | None = None  # of the two that end a part; kernel_init if None

    @property
    def feed_forward(self) -> Model:
        """The feed-forward part."""
        return self.mlp(
            self.hidden_features,
            bias=self.bias,
            kernel_init=self.kernel_init,
            out_kernel_init=self.out_kernel_init,
        )


def block_init(config: BlockConfig, key: PRNGKey, x: Any) -> Params:
    """Parameters of `block`: {'attention', 'attention_norm', 'mlp', 'mlp_norm'}.

    >>> config = BlockConfig(num_heads=2, hidden_features=16)
    >>> params = block_init(config, jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> params['mlp']['up']['kernel'].shape
    (4, 16)
    """
    return {
        **attention_init(config, "attention", key, x),
        "mlp_norm": config.norm.init(fold_name(key, "mlp_norm"), x)[0],
        "mlp": config.feed_forward.init(fold_name(key, "mlp"), x)[0],
    }


def attention_init(
    config: BlockConfig, name: str, key: PRNGKey, x: Any, memory_features: int | None = None
) -> Params:
    """Parameters of one attention of a block and its norm: {name: ..., name + '_norm': ...}.

    >>> config = BlockConfig(num_heads=2, hidden_features=16)
    >>> sorted(attention_init(config, 'cross', jax.random.key(0), jnp.zeros((1, 3, 4))))
    ['cross', 'cross_norm']
    """
    attention = layers.multi_head_attention_init(
        fold_name(key, name),
        x.shape[-1],
        config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_features=config.head_features,
        memory_features=memory_features,
        bias=config.bias,
        qk_norm=config.qk_norm,
        kernel_init=config.kernel_init,
        out_kernel_init=config.out_kernel_init,
    )
    norm, _ = config.norm.init(fold_name(key, f"{name}_norm"), x)
    return {name: attention, f"{name}_norm": norm}


def keep(name: str, x: Any) -> Any:
    """No dropout.

    >>> keep('attention', 1.0)
    1.0
    """
    return x


@within(rate="[0, 1]")
def dropper(where: str, rate: Scalar, key: PRNGKey | None, train: bool) -> Drop:
    """Dropout at named places, each with noise of its own; `keep` where there is to be none.

    Raises: ValueError, which begins with `where`, for a rate with train=True and no key.

    >>> dropper('gpt', 0.1, None, False) is keep
    True
    """
    noise = key_of_noise(where, rate, key, train)
    if noise is None:
        return keep
    return lambda name, x: layers.dropout(fold_name(noise, name), x, rate)


def block(
    config: BlockConfig, params: Params, x: Array, mix: Mix, carry: Any = (), drop: Drop = keep
) -> tuple[Array, Any]:
    """Attention, then feed-forward, each with a norm and a way around it.

    Args:
      x: (B, T, E).
      mix: attention of the positions to each other, such as `seeing(config, mask)`.
      carry: what `mix` takes and gives.
      drop: applied to what each of the two parts makes.

    Returns: (B, T, E), and the new carry.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1.

    >>> config = BlockConfig(num_heads=2, hidden_features=16)
    >>> x = jnp.ones((1, 3, 4))
    >>> params = block_init(config, jax.random.key(0), x)
    >>> block(config, params, x, seeing(config, layers.causal_mask(3)))[0].shape
    (1, 3, 4)
    """
    x, carry = part(config, params, "attention", x, mix, carry, drop)
    x, _ = part(config, params, "mlp", x, feeding_forward(config), (), drop)
    return x, carry


def part(
    config: BlockConfig, params: Params, name: str, x: Array, work: Mix, carry: Any, drop: Drop
) -> tuple[Array, Any]:
    """One part of a block: `work`, with its norm and the way around it.

    >>> from fnn.nn import rms_norm
    >>> config = BlockConfig(num_heads=1, hidden_features=1, norm=rms_norm())
    >>> params = {'mlp': {}, 'mlp_norm': {'scale': jnp.ones(1)}}
    >>> five = lambda params, x, carry: (jnp.full_like(x, 5), carry)
    >>> part(config, params, 'mlp', jnp.ones((1, 1, 1)), five, (), keep)[0].tolist()
    [[[6.0]]]
    """

    def norm(x: Array) -> Array:
        with in_layer((f"{name}_norm",), x):
            return config.norm.apply(params[f"{name}_norm"], (), x)[0]

    before = config.arrange.before(norm, x)
    with in_layer((name,), before):
        y, carry = work(params[name], before, carry)
    return config.arrange.after(norm, x, drop(name, y)), carry


def feeding_forward(config: BlockConfig) -> Mix:
    """The feed-forward part, in which each position is by itself.

    >>> config = BlockConfig(num_heads=2, hidden_features=16)
    >>> params = block_init(config, jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> feeding_forward(config)(params['mlp'], jnp.ones((1, 3, 4)), ())[0].shape
    (1, 3, 4)
    """
    model = config.feed_forward
    return lambda params, x, carry: (model.apply(params, (), x)[0], carry)


def seeing(
    config: BlockConfig,
    mask: Array | None,
    *,
    positions: Array | None = None,
    attend: Attend | None = None,
) -> Mix:
    """Attention of each position to those that the mask shows it; None shows all.

    Args:
      mask: bool, each axis of (B, H, T, T) or 1.
      positions: for `config.rotate`; 0, 1, ... if None.
      attend: in place of `config.attend`, as with dropout of its weights.

    >>> config = BlockConfig(num_heads=2, hidden_features=16)
    >>> params = block_init(config, jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> seeing(config, None)(params['attention'], jnp.ones((1, 3, 4)), ())[0].shape
    (1, 3, 4)
    """

    def mix(params: Params, x: Array, carry: Any) -> tuple[Array, Any]:
        y = layers.multi_head_attention(
            params,
            x,
            mask=mask,
            rotate=config.rotate,
            positions=positions,
            attend=attend or config.attend,
        )
        return y, carry

    return mix


@within(rate="[0, 1]")
def seeing_blocks(
    where: str,
    config: BlockConfig,
    blocks: Any,
    x: Array,
    mask: Array | None,
    *,
    rate: Scalar,
    key: PRNGKey | None,
    train: bool,
) -> Array:
    """The blocks one after another, whose positions see what the mask shows; with dropout.

    Args:
      where: how error messages begin.
      blocks: as `stack_init` makes them; block i takes its noise from fold_in(key, i).
      mask: bool, each axis of (B, H, T, T) or 1; None shows all.
      rate: drop probability of the attention weights and of what each part makes; may be traced.

    Raises: ValueError for a rate with train=True and no key.

    >>> config, x = BlockConfig(num_heads=2, hidden_features=16), jnp.ones((1, 3, 4))
    >>> blocks = [block_init(config, jax.random.key(0), x)]
    >>> seeing_blocks('gpt', config, blocks, x, None, rate=0.0, key=None, train=False).shape
    (1, 3, 4)
    """

    def step(x: Array, i: Any, own: Params, carry: Any) -> tuple[Array, Any]:
        noise = None if key is None else jax.random.fold_in(key, i)
        weights = fold_name_or_none(noise, "weights")
        mix = seeing(config, mask, attend=with_dropout(where, config.attend, rate, weights, train))
        return block(config, own, x, mix, drop=dropper(where, rate, noise, train))

    return over_depth(step, x, blocks)[0]


def remembering(config: BlockConfig) -> Mix:
    """Causal attention to the past that lies in a cache, which is the carry: `layers.KVCache`.

    >>> config = BlockConfig(num_heads=2, hidden_features=16)
    >>> params = block_init(config, jax.random.key(0), jnp.zeros((1, 3, 4)))['attention']
    >>> cache = layers.init_cache(params, batch=1, length=8)
    >>> y, cache = remembering(config)(params, jnp.ones((1, 3, 4)), cache)
    >>> cache.position.item()
    3
    """

    def mix(params: Params, x: Array, cache: Any) -> tuple[Array, Any]:
        return layers.attend_with_cache(
            params, x, cache, rotate=config.rotate, attend=config.attend
        )

    return mix


def stack_init(init: Callable[[PRNGKey], Params], key: PRNGKey, n: int, *, scan: bool) -> Any:
    """Parameters of n blocks: a list, or with `scan` one tree whose leaves have a first axis of n.

    Block i draws from fold_in(key, i) either way, and so begins with the same values.

    >>> draw = lambda key: jax.random.normal(key, (2,))
    >>> len(stack_init(draw, jax.random.key(0), 3, scan=False))
    3
    >>> stack_init(draw, jax.random.key(0), 3, scan=True).shape
    (3, 2)
    """
    stacked = draw_each(init, key, jnp.arange(n))
    return stacked if scan else unstack(stacked, n)


def over_depth(
    step: Callable[[Array, Any, Params, Any], tuple[Array, Any]],
    x: Array,
    blocks: Any,
    carries: Any = (),
    *,
    name: str = "blocks",
) -> tuple[Array, Any]:
    """`x, carry_i = step(x, i, params of block i, carry_i)` for each block in turn.

    A list of blocks is written out, which is quickest on a CPU; blocks stacked along a first axis
    are scanned, so that compilation does not grow with the depth.

    Args:
      blocks: as `stack_init` makes them.
      carries: in the same form; () where there are none.
      name: of the blocks among the parameters, for the notes of errors.

    Returns: the last x, and the new carries.

    >>> step = lambda x, i, params, carry: (x + params, x if isinstance(i, jax.Array) else ())
    >>> over_depth(step, jnp.int32(1), [10, 100])[0].item()
    111
    >>> over_depth(step, jnp.int32(1), jnp.array([10, 100]))[1].tolist()
    [1, 11]
    """
    if isinstance(blocks, list):
        new = []
        for i, own in enumerate(blocks):
            with in_layer((name, i), x):
                x, carry = step(x, i, own, carries[i] if carries else ())
            new.append(carry)
        return x, new if carries else ()

    def one(x: Array, own: Any) -> tuple[Array, Any]:
        i, params, carry = own
        with in_layer((name,), x):
            return step(x, i, in_memory(i, params), carry)

    n = len(jax.tree.leaves(blocks)[0])
    return jax.lax.scan(one, x, (jnp.arange(n), blocks, carries))


check_exports(__name__)
