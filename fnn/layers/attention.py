"""Scaled dot-product attention and its masks."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from fnn.activations import softmax
from fnn.dtypes import at_least_float32, indices
from fnn.expect import within
from fnn.types import Scalar

# attend(query, key, value, mask=mask, bias=bias) -> (B, T, H, features of the values)
Attend = Callable[..., Float[Array, "batch queries heads value_features"]]


@within(softcap="(0, inf)")
def dot_product_attention(
    query: Float[Array, "batch queries heads features"],
    key: Float[Array, "..."],
    value: Float[Array, "..."],
    *,
    mask: Array | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: Scalar | None = None,
    softcap: Scalar | None = None,
    drop: Callable[[Any], Any] | None = None,
) -> Float[Array, "batch queries heads value_features"]:
    """Scaled dot-product attention: the softmax-weighted average of the values.

        y_t = sum_s w_ts v_s,    w_t = softmax(cap(scale q_t . k_s) + bias_ts)  over the s in mask_t

    Query heads may share a head of keys and values: query head h uses head h K // H. H = K is
    multi-head, K = 1 multi-query, and 1 < K < H grouped-query attention.

    Args:
      query: (B, T, H, D).
      key, value: (B, S, K, D) and (B, S, K, any); H is a multiple of K.
      mask: bool, True where a query attends to a key, each axis of (B, H, T, S) or 1. None masks
        nothing.
      bias: added to the scaled products, each axis of (B, H, T, S) or 1; -inf masks a key.
      scale: 1 / sqrt(D) if None; may be traced.
      softcap: c > 0 of cap(l) = c tanh(l / c), which bounds the logits by +-c; None for no bound.
        May be traced.
      drop: applied to the weights, such as `partial(dropout, noise_key, rate=0.1)`.

    Returns: (B, T, H, features of the values), in the dtype of the query; the softmax is in at
      least float32. A query without keys gives 0, and has no gradient.
    Raises: ValueError if the shapes do not fit, and for a softcap of 0 or less that is known while
      tracing.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1; Ainslie et al. 2023,
      arXiv:2305.13245 (grouped queries); Gemma Team 2024, arXiv:2408.00118, section 2 (softcap).
      A query without keys: 0 as in PyTorch; JAX and Flax return the mean of all values.

    >>> q, k = jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 2, 1, 2))
    >>> v = jnp.array([0.0, 1.0]).reshape(1, 2, 1, 1)
    >>> dot_product_attention(q, k, v).item()
    0.5
    >>> dot_product_attention(q, k, v, mask=jnp.array([[[[False, True]]]])).item()
    1.0
    """
    _expect_fitting("dot_product_attention", query, key, value, mask, bias)
    weights = softmax(_logits(query, key, mask, bias, scale, softcap))
    weights = weights if drop is None else drop(weights)
    y = _grouped_product(weights.astype(value.dtype), _swap_time_and_heads(value))
    return _swap_time_and_heads(y).astype(query.dtype)


@within(softcap="(0, inf)")
def attention_weights(
    query: Float[Array, "batch queries heads features"],
    key: Float[Array, "..."],
    *,
    mask: Array | None = None,
    bias: Float[Array, "..."] | None = None,
    scale: Scalar | None = None,
    softcap: Scalar | None = None,
) -> Float[Array, "batch heads queries keys"]:
    """The attention weights of `dot_product_attention`, for inspection.

    Args and Raises: as there.
    Returns: (B, H, T, S), in at least float32; a row sums to 1, or is 0 for a query without keys.

    >>> attention_weights(jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 4, 1, 2))).tolist()
    [[[[0.25, 0.25, 0.25, 0.25]]]]
    """
    _expect_fitting("attention_weights", query, key, key, mask, bias)
    return softmax(_logits(query, key, mask, bias, scale, softcap))


def _logits(
    query: Array,
    key: Array,
    mask: Array | None,
    bias: Array | None,
    scale: Scalar | None,
    softcap: Scalar | None,
) -> Array:
    keys = jnp.transpose(key, (0, 2, 3, 1))  # (B, K, D, S)
    logits = _grouped_product(_swap_time_and_heads(query), keys)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = jnp.asarray(scale, logits.dtype) * logits
    if softcap is not None:
        cap = jnp.asarray(softcap, logits.dtype)
        logits = cap * jnp.tanh(logits / cap)
    if bias is not None:
        logits = logits + bias.astype(logits.dtype)
    return logits if mask is None else jnp.where(mask, logits, -jnp.inf)


def _swap_time_and_heads(x: Array) -> Array:
    return jnp.swapaxes(x, 1, 2)


def _grouped_product(rows: Array, matrices: Array) -> Array:
    """(B, H, T, X) @ (B, K, X, Y) -> (B, H, T, Y); the rows of H / K heads share a matrix."""
    batch, heads, length, inner = rows.shape
    groups, _, outer = matrices.shape[1:]
    # The heads of a group are concatenated: one large product instead of H / K small ones.
    rows = rows.reshape(batch, groups, heads // groups * length, inner)
    product = lax.dot_general(
        rows,
        matrices,
        (((3,), (2,)), ((0, 1), (0, 1))),
        preferred_element_type=at_least_float32(rows),
    )
    return product.reshape(batch, heads, length, outer)


def _expect_fitting(
    where: str, query: Array, key: Array, value: Array, mask: Array | None, bias: Array | None
) -> None:
    if not query.ndim == key.ndim == value.ndim == 4:
        raise ValueError(
            f"{where}: expected query, key and value of shape (batch, time, heads, features), got "
            f"{query.shape}, {key.shape} and {value.shape}; split the features into heads"
        )
    batch, queries, heads, features = query.shape
    keys, kv_heads = key.shape[1:3]
    if key.shape != (batch, keys, kv_heads, features) or value.shape[:3] != key.shape[:3]:
        raise ValueError(
            f"{where}: expected key ({batch}, keys, kv_heads, {features}) and value ({batch}, "
            f"keys, kv_heads, any) for query {query.shape}, got {key.shape} and {value.shape}; "
            "give each key one value, and the features of the query"
        )
    if heads % kv_heads:
        raise ValueError(
            f"{where}: expected the query heads to be a multiple of the key-value heads, got "
            f"{heads} and {kv_heads}; each group of query heads shares one of them"
        )
    for name, array in (("mask", mask), ("bias", bias)):
        _expect_broadcast(where, name, array, (batch, heads, queries, keys))
    if mask is not None and mask.dtype != bool:
        raise ValueError(
            f"{where}: expected a mask of bool, True where a query attends to a key, got "
            f"{mask.dtype}; compare it with something, or add numbers to the logits as bias="
        )


def _expect_broadcast(where: str, name: str, array: Array | None, full: tuple[Any, ...]) -> None:
    if array is None:
        return
    if array.ndim != 4 or any(n not in (1, m) for n, m in zip(array.shape, full, strict=True)):
        raise ValueError(
            f"{where}: expected {name} (batch, heads, queries, keys) = {full}, or 1 for any of "
            f"them, got {array.shape}; add the missing axes"
        )


Position = int | Integer[Array, ""]


def causal_mask(
    query_length: int, key_length: int | None = None, *, offset: Position = 0
) -> Bool[Array, "1 1 queries keys"]:
    """Each query attends to the keys up to its own position.

    Args:
      key_length: query_length if None.
      offset: position of the first query, counted from the first key; may be traced. With
        key_length - query_length the last query attends to all keys.

    >>> causal_mask(3)[0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return (_distance(query_length, key_length, offset) <= 0)[None, None]


def window_mask(
    query_length: int,
    key_length: int | None = None,
    *,
    before: Position,
    after: Position = 0,
    offset: Position = 0,
) -> Bool[Array, "1 1 queries keys"]:
    """Each query attends to its own position, `before` keys before it and `after` keys after it.

    Args:
      key_length: query_length if None.
      before, after: at least 0; may be traced. A window of W keys that ends at the query, the
        sliding window of Mistral, is before=W - 1.
      offset: position of the first query, counted from the first key; may be traced.

    Raises: ValueError for a count below 0 that is known while tracing.
    Source: Beltagy, Peters & Cohan 2020, arXiv:2004.05150, section 3.1.

    >>> window_mask(3, before=1)[0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    for name, count in (("before", before), ("after", after)):
        if isinstance(count, int) and count < 0:
            raise ValueError(
                f"window_mask: expected {name} of at least 0, got {count}; it counts keys on that "
                "side of the query"
            )
    distance = _distance(query_length, key_length, offset)
    before, after = jnp.asarray(before, jnp.int32), jnp.asarray(after, jnp.int32)
    return ((distance >= -before) & (distance <= after))[None, None]


def _distance(query_length: int, key_length: int | None, offset: Position) -> Array:
    """Position of the key minus that of the query, (queries, keys)."""
    key_length = query_length if key_length is None else key_length
    queries = jnp.arange(query_length, dtype=jnp.int32) + jnp.asarray(offset, jnp.int32)
    return jnp.arange(key_length, dtype=jnp.int32)[None, :] - queries[:, None]


def padding_mask(
    lengths: Integer[Array, " batch"], key_length: int
) -> Bool[Array, "batch 1 1 keys"]:
    """All queries attend to the first `lengths[b]` keys of example b, and not to its padding.

    Args:
      lengths: number of real keys of each example; 0 masks all.

    >>> padding_mask(jnp.array([1, 3]), 3)[:, 0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    lengths = indices(lengths)
    positions = jnp.arange(key_length, dtype=jnp.int32)
    return (positions[None, :] < lengths[:, None])[:, None, None]


def segment_mask(
    query_segments: Integer[Array, "batch queries"],
    key_segments: Integer[Array, "_ keys"] | None = None,
) -> Bool[Array, "batch 1 queries keys"]:
    """Each query attends to the keys of its own segment, for documents packed into one row.

    Args:
      query_segments: an id for each position; equal ids are one segment.
      key_segments: the ids of the keys; query_segments if None.

    Raises: ValueError if the batches differ.

    >>> segment_mask(jnp.array([[0, 0, 1]]))[0, 0].astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    key_segments = query_segments if key_segments is None else key_segments
    if key_segments.shape[0] != query_segments.shape[0]:
        raise ValueError(
            f"segment_mask: expected the keys in {query_segments.shape[0]} examples, got "
            f"{key_segments.shape[0]}; give each example the segments of its own keys"
        )
    if query_segments.dtype != key_segments.dtype:
        query_segments, key_segments = indices(query_segments), indices(key_segments)
    return (query_segments[:, :, None] == key_segments[:, None, :])[:, None]


def combine_masks(*masks: Array | None) -> Bool[Array, "..."] | None:
    """The logical and of masks; None masks nothing.

    Args:
      masks: of four axes each, which agree or are 1.

    Returns: the masks broadcast together, or None if all are None.
    Raises: ValueError if a mask does not have four axes, or is not of bools.

    >>> both = combine_masks(causal_mask(3), padding_mask(jnp.array([2]), 3), None)
    >>> both[0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    """
    given = [mask for mask in masks if mask is not None]
    for mask in given:
        if mask.ndim != 4:
            raise ValueError(
                "combine_masks: expected masks of shape (batch, heads, queries, keys), got "
                f"{mask.shape}; add axes of 1"
            )
        if mask.dtype != bool:
            raise ValueError(
                f"combine_masks: expected masks of bools, True where a query attends to a key, got "
                f"{mask.dtype}; compare it with something, or add numbers as bias="
            )
    return functools.reduce(jnp.logical_and, given) if given else None
