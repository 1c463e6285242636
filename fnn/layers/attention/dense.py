"""Scaled dot-product attention, with all its logits in memory."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.activations import softmax
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.layers.attention.masks import Mask, as_array, expect_rule
from fnn.types import Scalar

# attend(query, key, value, mask=mask, bias=bias) -> (B, T, H, features of the values)
Attend = Callable[..., Float[Array, "batch queries heads value_features"]]


@within(softcap="(0, inf)")
def dot_product_attention(
    query: Float[Array, "batch queries heads features"],
    key: Float[Array, "..."],
    value: Float[Array, "..."],
    *,
    mask: Mask = None,
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
      mask: an `AttentionMask`, or bool, True where a query attends to a key, each axis of
        (B, H, T, S) or 1. None masks nothing.
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
    mask = _dense_mask("dot_product_attention", mask, query, key)
    expect_fitting("dot_product_attention", query, key, value, mask, bias)
    weights = softmax(_logits(query, key, mask, bias, scale, softcap))
    weights = weights if drop is None else drop(weights)
    y = _grouped_product(weights.astype(value.dtype), _swap_time_and_heads(value))
    return _swap_time_and_heads(y).astype(query.dtype)


@within(softcap="(0, inf)")
def attention_weights(
    query: Float[Array, "batch queries heads features"],
    key: Float[Array, "..."],
    *,
    mask: Mask = None,
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
    mask = _dense_mask("attention_weights", mask, query, key)
    expect_fitting("attention_weights", query, key, key, mask, bias)
    return softmax(_logits(query, key, mask, bias, scale, softcap))


def _dense_mask(where: str, mask: Mask, query: Array, key: Array) -> Array | None:
    if query.ndim != 4 or key.ndim != 4:  # `expect_fitting` says so
        return None
    expect_rule(where, mask, query.shape[0], query.shape[1], key.shape[1])
    return as_array(mask, query.shape[1], key.shape[1])


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


def expect_fitting(
    where: str, query: Array, key: Array, value: Array, mask: Array | None, bias: Array | None
) -> None:
    """ValueError, from `where`, for heads, a mask or a bias that do not fit together."""
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
