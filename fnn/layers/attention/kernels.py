"""Attention by kernels that JAX brings: cuDNN's for NVIDIA GPUs and splash attention for TPUs.

Both compute `blockwise.forward` with its memory, and skip the tiles that a rule excludes. Their
derivatives exist in reverse mode only; `attention` has those of `blockwise` for forward mode.
"""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.layers.attention.blockwise import Masks, TileRule


def why_not_cudnn(rule: TileRule, query: Array, key: Array, value: Array, masks: Masks) -> str:
    """What cuDNN's kernel lacks for this attention; empty if it computes it."""
    features = query.shape[-1]
    missing = {
        "needs a CUDA plugin of JAX": not any(
            importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)
        ),
        "takes bfloat16 and float16": query.dtype not in (jnp.bfloat16, jnp.float16),
        "takes one dtype": not query.dtype == key.dtype == value.dtype,
        "takes heads of at most 128 features, in multiples of 8": features > 128 or features % 8,
        "takes values with the features of the keys": value.shape[-1] != features,
        "has no softcap": rule.softcap is not None,
        "has no segments": masks.query_segments is not None,
        "has no mask by element": masks.mask is not None,
        "has windows of earlier keys only": rule.window is not None
        and not (rule.causal or rule.window[1] == 0),
        "aligns queries and keys of one length": query.shape[1] != key.shape[1]
        and (rule.causal or rule.window is not None),
    }
    return next((reason for reason, is_missing in missing.items() if is_missing), "")


def cudnn(
    rule: TileRule, query: Array, key: Array, value: Array, masks: Masks
) -> Float[Array, "b t h d"]:
    """The heads by cuDNN's flash attention, through `jax.nn.dot_product_attention`.

    Its backward pass takes even lengths only: odd ones get an element more, which is masked.
    """
    queries, keys = query.shape[1], key.shape[1]
    lengths = masks.lengths
    if keys % 2 and lengths is None:
        lengths = jnp.full(key.shape[0], keys, jnp.int32)
    query, key, value = map(_to_even, (query, key, value))
    y = jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=rule.scale,
        is_causal=rule.causal or (rule.window is not None and rule.window[1] == 0),
        local_window_size=None if rule.window is None else (rule.window[0], 0),
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )[:, :queries]
    if masks.lengths is None:
        return y
    return jnp.where(masks.lengths[:, None, None, None] > 0, y, 0)


def _to_even(heads: Array) -> Array:
    """Heads (b, t, h, d) with zeros behind the last of an odd number of elements."""
    odd = heads.shape[1] % 2
    return jnp.pad(heads, ((0, 0), (0, odd), (0, 0), (0, 0))) if odd else heads


def why_not_splash(rule: TileRule, query: Array, key: Array, value: Array, masks: Masks) -> str:
    """What splash attention lacks for this attention; empty if it computes it."""
    lengths, features = (query.shape[1], key.shape[1]), (query.shape[-1], value.shape[-1])
    missing = {
        "takes bfloat16 and float32": query.dtype not in (jnp.bfloat16, jnp.float32),
        "takes one dtype": not query.dtype == key.dtype == value.dtype,
        "takes lengths in multiples of 128": any(n % 128 for n in lengths),
        "takes heads of 64 features, or multiples of 128": any(
            n != 64 and n % 128 for n in features
        ),
        "has no mask by element": masks.mask is not None,
        "aligns queries and keys of one length": lengths[0] != lengths[1]
        and (rule.causal or rule.window is not None),
    }
    return next((reason for reason, is_missing in missing.items() if is_missing), "")


def splash(
    rule: TileRule, query: Array, key: Array, value: Array, masks: Masks
) -> Float[Array, "b t h d"]:
    """The heads by splash attention, JAX's Pallas kernel for TPUs."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    batch, queries, heads, _ = query.shape
    segments = _segments(batch, queries, key.shape[1], masks)
    kernel = splash.make_splash_mha_single_device(
        _splash_mask(rule, heads, queries, key.shape[1]),
        block_sizes=_block_sizes(queries, key.shape[1]),
        attn_logits_soft_cap=rule.softcap,
    )
    scaled = (rule.scale * query.astype(jnp.float32)).astype(query.dtype)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (scaled, key, value))
    if segments is None:
        return jnp.swapaxes(jax.vmap(kernel)(q, k, v), 1, 2)
    y = jax.vmap(kernel)(q, k, v, splash.SegmentIds(*segments))
    # A query without keys gets the mean of all values from the kernel.
    has_keys = (segments[0][:, :, None] == segments[1][:, None]).any(axis=-1)
    return jnp.where(has_keys[:, :, None, None], jnp.swapaxes(y, 1, 2), 0)


def _splash_mask(rule: TileRule, heads: int, queries: int, keys: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (queries, keys)
    mask: Any = masks.CausalMask(shape) if rule.causal else masks.FullMask(shape)
    if rule.window is not None:
        mask = mask & masks.LocalMask(shape, window_size=rule.window, offset=0)
    return masks.MultiHeadMask([mask] * heads)


def _block_sizes(queries: int, keys: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    q, kv = (next(size for size in (512, 384, 256, 128) if n % size == 0) for n in (queries, keys))
    return splash.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        block_q_dq=q,
        block_kv_dq=kv,
    )


def _segments(batch: int, queries: int, keys: int, masks: Masks) -> tuple[Array, Array] | None:
    """Ids of queries (B, T) and keys (B, S) that also exclude the keys beyond the lengths."""
    own, theirs = masks.query_segments, masks.key_segments
    if masks.lengths is None:
        return None if own is None or theirs is None else (own, theirs)
    if own is None or theirs is None:
        own, theirs = jnp.zeros((batch, queries), jnp.int32), jnp.zeros((batch, keys), jnp.int32)
    real = lax.broadcasted_iota(jnp.int32, (batch, keys), 1) < masks.lengths[:, None]
    return own, jnp.where(real, theirs, NO_SEGMENT)


NO_SEGMENT = jnp.iinfo(jnp.int32).min  # the id of keys that no query attends to
