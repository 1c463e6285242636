"""Attention one or several tokens at a time, with the keys and values of the past in a cache."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fnn.layers.attention import Attend, dot_product_attention
from fnn.layers.masks import causal_mask, combine_masks
from fnn.layers.multi_head import Rotate, project_key_value, project_out, project_query
from fnn.types import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class KVCache:
    """Keys and values of the tokens seen so far, in the first `position` of `length` places."""

    key: Float[Array, "batch length kv_heads features"]
    value: Float[Array, "batch length kv_heads features"]
    position: Int[Array, ""]  # tokens seen, int32


def init_cache(params: Params, batch: int, length: int, dtype: Any = jnp.float32) -> KVCache:
    """An empty cache for `attend_with_cache`.

    Args:
      params: of `multi_head_attention`; only their shapes are read.
      batch: number of sequences.
      length: the most tokens that a sequence will have.
      dtype: that of the inputs to come.

    >>> from fnn.layers.multi_head import multi_head_attention_init
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
    mask: Array | None = None,
    bias: Float[Array, "..."] | None = None,
    rotate: Rotate | None = None,
    attend: Attend = dot_product_attention,
) -> tuple[Float[Array, "batch queries out"], KVCache]:
    """Causal self-attention of the next tokens to themselves and to all that the cache holds.

    Feeding a sequence in pieces of any lengths gives what `multi_head_attention` with a causal
    mask gives for the whole.

    Args:
      params: of `multi_head_attention`.
      x: (B, T, in_features), the tokens at cache.position, ..., cache.position + T - 1.
      cache: of `init_cache`, or as the last call returned it. Its position may be traced, so one
        compiled program serves every step.
      mask, bias: each axis of (B, H, T, length) or 1; the mask is combined with the causal one. A
        sliding window is `window_mask(T, length, before=..., offset=cache.position)`.
      rotate, attend: as in `multi_head_attention`; keys are kept rotated.

    Returns: y (B, T, out_features), and the cache with the new tokens in it.
    Raises: ValueError if shapes do not fit, or the cache is full and its position is known. Under
      jit, y is NaN where the cache is full: the write would move back and spoil the past.

    >>> from fnn.layers.multi_head import multi_head_attention_init
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
    seen = combine_masks(causal_mask(new, length, offset=cache.position), mask)
    heads = attend(query, key.astype(x.dtype), value.astype(x.dtype), mask=seen, bias=bias)
    y = project_out(params, heads)
    y = jnp.where(cache.position + new <= length, y, jnp.nan)
    return y, KVCache(key=key, value=value, position=cache.position + new)


def _expect_room(x: Array, cache: KVCache) -> None:
    batch, length = cache.key.shape[:2]
    if x.shape[0] != batch:
        raise ValueError(
            f"attend_with_cache: expected a batch of {batch}, got {x.shape}; "
            "make the cache for the batch that you decode"
        )
    known = 0 if isinstance(cache.position, jax.core.Tracer) else int(cache.position)
    if known + x.shape[1] > length:
        raise ValueError(
            f"attend_with_cache: expected at most {length - known} more tokens, got {x.shape[1]}; "
            f"make the cache longer than {length}"
        )
