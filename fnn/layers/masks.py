"""Masks for attention: which queries may see which keys. True shows, False hides.

Every mask is (batch, heads, queries, keys) with 1 for the axes that it does not depend on, so that
`combine_masks` and `dot_product_attention` broadcast them.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer

from fnn.dtypes import indices

Position = int | Integer[Array, ""]


def causal_mask(
    query_length: int, key_length: int | None = None, *, offset: Position = 0
) -> Bool[Array, "1 1 queries keys"]:
    """Each query sees the keys up to its own position.

    Args:
      key_length: as many as the queries if None.
      offset: position of the first query, counted from the first key; may be traced. With
        key_length - query_length the last query sees all keys.

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
    """Each query sees its own position, `before` keys before it and `after` keys after it.

    Args:
      key_length: as many as the queries if None.
      before, after: counts from 0; may be traced. A window of W keys that ends at the query, the
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
    """Position of the key less that of the query, (queries, keys)."""
    key_length = query_length if key_length is None else key_length
    queries = jnp.arange(query_length, dtype=jnp.int32) + jnp.asarray(offset, jnp.int32)
    return jnp.arange(key_length, dtype=jnp.int32)[None, :] - queries[:, None]


def padding_mask(
    lengths: Integer[Array, " batch"], key_length: int
) -> Bool[Array, "batch 1 1 keys"]:
    """All queries see the first `lengths[b]` keys of example b, and not the padding after them.

    Args:
      lengths: how many of each example's keys are real; 0 hides all.

    >>> padding_mask(jnp.array([1, 3]), 3)[:, 0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    lengths = indices(lengths)
    places = jnp.arange(key_length, dtype=jnp.int32)
    return (places[None, :] < lengths[:, None])[:, None, None]


def segment_mask(
    query_segments: Integer[Array, "batch queries"],
    key_segments: Integer[Array, "_ keys"] | None = None,
) -> Bool[Array, "batch 1 queries keys"]:
    """Each query sees the keys of its own segment: several documents packed into one row.

    Args:
      query_segments: a number for each position; equal numbers are one segment.
      key_segments: the same numbers for the keys; those of the queries if None.

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
    """What every one of the masks shows; None shows all.

    Args:
      masks: of four axes each, which agree or are 1.

    Returns: the masks' axes broadcast together, or None if there is no mask among them.
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
                f"combine_masks: expected masks of bools, True where a query sees a key, got "
                f"{mask.dtype}; compare it with something, or add numbers as bias="
            )
    return functools.reduce(jnp.logical_and, given) if given else None
