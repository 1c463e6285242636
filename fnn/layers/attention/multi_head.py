"""Multi-head attention, and attention with a key-value cache."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Integer

from fnn.expect import expect_floats
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers.attention.attention import attention
from fnn.layers.attention.dense import Attend
from fnn.layers.attention.masks import Mask, as_array, causal_mask, combine_masks
from fnn.layers.fp8 import product
from fnn.layers.linear import add_bias
from fnn.layers.normalization import rms_norm, rms_norm_init
from fnn.types import Params, PRNGKey

# rotate(heads (B, T, H, D), positions (T,)) -> the same shape, such as a rotary embedding
Rotate = Callable[[Any, Any], Array]


def multi_head_attention_init(
    key: PRNGKey,
    in_features: int,
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    head_features: int | None = None,
    memory_features: int | None = None,
    out_features: int | None = None,
    bias: bool = True,
    qk_norm: bool = False,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `multi_head_attention`.

    Args:
      num_heads: H.
      num_kv_heads: K, which divides H; H if None. Grouped-query attention for 1 < K < H,
        multi-query for 1.
      head_features: D; in_features / H if None.
      memory_features: features of the memory, for keys and values; in_features if None.
      out_features: in_features if None.
      bias: whether to add one in the four projections.
      qk_norm: whether to normalize queries and keys.
      kernel_init, bias_init: initializers of the four projections. A kernel is drawn as a matrix
        (in, heads * features), so its fans are those of a linear layer.
      out_kernel_init: of the last projection; kernel_init if None.

    Returns: {'query': {'kernel': (in, H, D), 'bias': (H, D)}, 'key' and 'value': the same from
      memory_features to K heads, 'out': {'kernel': (H, D, out), 'bias': (out,)}}, float32; with
      qk_norm also {'query_norm': {'scale': (D,)}, 'key_norm': {'scale': (D,)}}, ones.
    Raises: ValueError if the heads do not divide the features, or the key-value heads the heads.

    >>> params = multi_head_attention_init(jax.random.key(0), 8, 4, num_kv_heads=2)
    >>> [params[name]['kernel'].shape for name in ('query', 'key', 'out')]
    [(8, 4, 2), (8, 2, 2), (4, 2, 8)]
    """
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    _expect_heads(in_features, num_heads, num_kv_heads, head_features)
    features = in_features // num_heads if head_features is None else head_features
    memory = in_features if memory_features is None else memory_features
    out = in_features if out_features is None else out_features
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # inputs and outputs
        "query": ((in_features,), (num_heads, features)),
        "key": ((memory,), (num_kv_heads, features)),
        "value": ((memory,), (num_kv_heads, features)),
        "out": ((num_heads, features), (out,)),
    }
    params: Params = {}
    for name, (into, outof) in shapes.items():
        own = fold_name(key, name)
        draw = (out_kernel_init or kernel_init) if name == "out" else kernel_init
        matrix = draw(fold_name(own, "kernel"), (math.prod(into), math.prod(outof)))
        params[name] = {"kernel": matrix.reshape(*into, *outof)}
        if bias:
            params[name]["bias"] = bias_init(fold_name(own, "bias"), outof)
    if qk_norm:
        params |= {name: rms_norm_init(features) for name in ("query_norm", "key_norm")}
    return params


def _expect_heads(
    in_features: int, num_heads: int, num_kv_heads: int, head_features: int | None
) -> None:
    if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
        raise ValueError(
            "multi_head_attention_init: expected num_heads to be a multiple of num_kv_heads, got "
            f"{num_heads} and {num_kv_heads}; each group of query heads shares one of them"
        )
    if head_features is None and in_features % num_heads:
        raise ValueError(
            "multi_head_attention_init: expected in_features to be a multiple of num_heads, got "
            f"{in_features} and {num_heads}; change one of them, or give head_features"
        )


def multi_head_attention(
    params: Params,
    x: Float[Array, "batch queries in"],
    memory: Float[Array, "batch keys memory"] | None = None,
    *,
    mask: Mask = None,
    bias: Float[Array, "..."] | None = None,
    rotate: Rotate | None = None,
    positions: Integer[Array, "..."] | None = None,
    attend: Attend = attention,
) -> Float[Array, "batch queries out"]:
    """Multi-head attention of x to itself, or to `memory` (cross-attention).

        y_t = b_o + sum_h W_o^h attend(W_q^h x_t, W_k^h m, W_v^h m),    m = x or memory

    Args:
      x: (B, T, in_features).
      memory: (B, S, memory_features); None for self-attention, S = T.
      mask, bias: of `attention`: an `AttentionMask`, or each axis of (B, H, T, S) or 1.
      rotate: applied to normalized queries and keys, (B, T, H, D), and their positions:
        `layers.rope`, or a `partial` of it.
      positions: of x, in self-attention also of the keys; 0, 1, ... if None. Those of a memory are
        always 0, 1, ...
      attend: computes the heads from (B, T, H, D), (B, S, K, D), (B, S, K, D), `mask=` and
        `bias=`; a `partial` of `attention` for another scale, a softcap, dropout or another
        implementation, or a kernel of the same signature.

    Returns: (B, T, out_features), in the dtype of x. A query without keys gives the output bias.
    Raises: ValueError if shapes do not fit.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2; Dehghani et al. 2023,
      arXiv:2302.05442, section 2 (qk_norm). Deviates: qk_norm is an RMS norm (eps 1e-6), with one
      scale for all heads, as in later language models; theirs, and Flax's, is a layer norm.

    >>> params = multi_head_attention_init(jax.random.key(0), 4, 2)
    >>> multi_head_attention(params, jnp.ones((1, 3, 4))).shape
    (1, 3, 4)
    """
    steps = jnp.arange(x.shape[1], dtype=jnp.int32) if positions is None else positions
    query = project_query(params, x, steps, rotate)
    if memory is not None:
        x, steps = memory, jnp.arange(memory.shape[1], dtype=jnp.int32)
    key, value = project_key_value(params, x, steps, rotate)
    heads = attend(query, key, value, mask=mask, bias=bias)
    return project_out(params, checkpoint_name(heads, "attention"))


def project_query(
    params: Params,
    x: Float[Array, "batch queries in"],
    positions: Integer[Array, "..."],
    rotate: Rotate | None = None,
) -> Float[Array, "batch queries heads features"]:
    """The queries of `multi_head_attention`, normalized and rotated: (B, T, H, D).

    >>> params = multi_head_attention_init(jax.random.key(0), 4, 2)
    >>> project_query(params, jnp.ones((1, 3, 4)), jnp.arange(3)).shape
    (1, 3, 2, 2)
    """
    query = _normalized(params, "query_norm", _heads(params, "query", x))
    return query if rotate is None else rotate(query, positions)


def project_key_value(
    params: Params,
    x: Float[Array, "batch keys memory"],
    positions: Integer[Array, "..."],
    rotate: Rotate | None = None,
) -> tuple[
    Float[Array, "batch keys kv_heads features"], Float[Array, "batch keys kv_heads features"]
]:
    """The keys, normalized and rotated, and the values of `multi_head_attention`: (B, S, K, D).

    >>> params = multi_head_attention_init(jax.random.key(0), 4, 2, num_kv_heads=1)
    >>> key, value = project_key_value(params, jnp.ones((1, 3, 4)), jnp.arange(3))
    >>> key.shape, value.shape
    ((1, 3, 1, 2), (1, 3, 1, 2))
    """
    key = _normalized(params, "key_norm", _heads(params, "key", x))
    return (key if rotate is None else rotate(key, positions)), _heads(params, "value", x)


def project_out(
    params: Params, heads: Float[Array, "batch queries heads features"]
) -> Float[Array, "batch queries out"]:
    """The output of `multi_head_attention` from its heads: (B, T, H, D) to (B, T, out).

    >>> params = multi_head_attention_init(jax.random.key(0), 4, 2)
    >>> project_out(params, jnp.ones((1, 3, 2, 2))).shape
    (1, 3, 4)
    """
    out = params["out"]
    kernel = lax.collapse(out["kernel"], 0, out["kernel"].ndim - 1)
    return add_bias(out, product(out, lax.collapse(heads, 2), kernel))


def _heads(params: Params, name: str, x: Array) -> Array:
    expect_floats("multi_head_attention", x)
    kernel = params[name]["kernel"]
    if x.ndim != 3 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"multi_head_attention: expected the {name} from (batch, time, {kernel.shape[0]}), got "
            f"{x.shape}; give it the inputs that its kernel {kernel.shape} was made for"
        )
    y = product(params[name], x, lax.collapse(kernel, 1))
    y = add_bias(params[name], y.reshape(*x.shape[:-1], *kernel.shape[1:]))
    return checkpoint_name(y, name)


def _normalized(params: Params, name: str, heads: Array) -> Array:
    return rms_norm(params[name], heads) if name in params else heads


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class KVCache:
    """Keys and values of the tokens seen so far, in the first `position` of `length` entries."""

    key: Float[Array, "batch length kv_heads features"]
    value: Float[Array, "batch length kv_heads features"]
    position: Int[Array, ""]  # tokens seen, int32


def init_cache(params: Params, batch: int, length: int, dtype: Any = jnp.float32) -> KVCache:
    """An empty cache for `attend_with_cache`.

    Args:
      params: of `multi_head_attention`; only their shapes are read.
      batch: number of sequences.
      length: maximum number of tokens of a sequence.
      dtype: that of the inputs.

    >>> params = multi_head_attention_init(jax.random.key(0), 8, 4, num_kv_heads=2)
    >>> init_cache(params, batch=1, length=16).key.shape
    (1, 16, 2, 2)
    """
    shape = (batch, length, *params["key"]["kernel"].shape[1:])
    return KVCache(
        key=jnp.zeros(shape, dtype), value=jnp.zeros(shape, dtype), position=jnp.int32(0)
    )


def attend_with_cache(
    params: Params,
    x: Float[Array, "batch queries in"],
    cache: KVCache,
    *,
    mask: Mask = None,
    bias: Float[Array, "..."] | None = None,
    rotate: Rotate | None = None,
    attend: Attend = attention,
) -> tuple[Float[Array, "batch queries out"], KVCache]:
    """Causal self-attention of the next tokens to themselves and to those in the cache.

    Chunks of a sequence, of any lengths, give the outputs of `multi_head_attention` with a causal
    mask for the whole.

    Args:
      params: of `multi_head_attention`.
      x: (B, T, in_features), the tokens at cache.position, ..., cache.position + T - 1.
      cache: from `init_cache` or the last call. Its position may be traced, so one compiled program
        serves every step.
      mask, bias: each axis of (B, H, T, length) or 1, or an `AttentionMask`, whose positions are
        those in the sequence; the mask is combined with the causal one.
      rotate, attend: as in `multi_head_attention`; keys are cached rotated.

    Returns: y (B, T, out_features), and the cache with the new tokens in it.
    Raises: ValueError if shapes do not fit, or the cache is full and its position is known. Under
      jit, y is NaN where the cache is full: the write would be clamped and overwrite the past.

    >>> params = multi_head_attention_init(jax.random.key(0), 4, 2)
    >>> cache = init_cache(params, batch=1, length=8)
    >>> y, cache = attend_with_cache(params, jnp.ones((1, 3, 4)), cache)
    >>> y.shape, cache.position.item()
    ((1, 3, 4), 3)
    """
    new, length = x.shape[1], cache.key.shape[1]
    _expect_room(x, cache)
    positions = cache.position + jnp.arange(new, dtype=jnp.int32)
    query = project_query(params, x, positions, rotate)
    fresh = project_key_value(params, x, positions, rotate)
    key, value = (
        lax.dynamic_update_slice_in_dim(old, part.astype(old.dtype), cache.position, axis=1)
        for old, part in zip((cache.key, cache.value), fresh, strict=True)
    )
    own = as_array(mask, new, length, offset=cache.position)
    seen = combine_masks(causal_mask(new, length, offset=cache.position), own)
    heads = attend(query, key.astype(x.dtype), value.astype(x.dtype), mask=seen, bias=bias)
    y = project_out(params, heads)
    y = jnp.where(cache.position + new <= length, y, jnp.nan)
    return y, KVCache(key=key, value=value, position=cache.position + new)


def _expect_room(x: Array, cache: KVCache) -> None:
    batch, length = cache.key.shape[:2]
    if x.shape[0] != batch:
        raise ValueError(
            f"attend_with_cache: expected a batch of {batch}, got {x.shape}; "
            "make the cache for the batch to decode"
        )
    known = 0 if isinstance(cache.position, jax.core.Tracer) else int(cache.position)
    if known + x.shape[1] > length:
        raise ValueError(
            f"attend_with_cache: expected at most {length - known} more tokens, got {x.shape[1]}; "
            f"make the cache longer than {length}"
        )
