"""Which keys a query attends to: masks as arrays, and as rules that need no array."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer

from fnn.dtypes import indices
from fnn.expect import spec

Position = int | Integer[Array, ""]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["segments", "memory_segments", "lengths", "mask"],
    meta_fields=["causal", "window"],
)
@dataclass(frozen=True, kw_only=True)
class AttentionMask:
    """Which keys a query attends to, as a rule: the `mask=` of attention without a T x S array.

    A query attends to the keys that all of the given fields admit. Kernels such as cuDNN's skip the
    keys that a rule excludes; an array of booleans can only be looked up.

    >>> AttentionMask(causal=True, lengths=jnp.array([2])).dense(3)[0, 0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    """

    causal: bool = False  # each query attends to the keys up to its own position
    window: tuple[int, int] | None = None  # keys before and after its own position
    segments: Integer[Array, "batch queries"] | None = None  # equal ids are one document
    memory_segments: Integer[Array, "batch keys"] | None = None  # of the keys; segments if None
    lengths: Integer[Array, " batch"] | None = None  # number of real keys
    mask: Bool[Array, "..."] | None = None  # each axis of (B, H, T, S) or 1

    def dense(
        self, query_length: int, key_length: int | None = None, *, offset: Position = 0
    ) -> Bool[Array, "..."] | None:
        """The same as an array, each axis of (B, H, T, S) or 1; None if nothing is masked.

        Args:
          key_length: query_length if None.
          offset: position of the first query, counted from the first key; may be traced.
        """
        keys = query_length if key_length is None else key_length
        return combine_masks(
            causal_mask(query_length, keys, offset=offset) if self.causal else None,
            None
            if self.window is None
            else window_mask(
                query_length, keys, before=self.window[0], after=self.window[1], offset=offset
            ),
            None if self.lengths is None else padding_mask(self.lengths, keys),
            None if self.segments is None else segment_mask(self.segments, self.memory_segments),
            self.mask,
        )


def expect_rule(where: str, mask: "Mask", batch: Any, queries: Any, keys: Any) -> None:
    """ValueError, from `where`, for a rule that does not fit the batch and the lengths."""
    if not isinstance(mask, AttentionMask):
        return
    window = mask.window
    if window is not None and (len(window) != 2 or min(window) < 0):
        raise ValueError(
            f"{where}: expected a window (before, after) of counts of at least 0, got {window}; a "
            "window of W keys that ends at the query is (W - 1, 0)"
        )
    if mask.memory_segments is not None and mask.segments is None:
        raise ValueError(
            f"{where}: expected segments with memory_segments, got None; give the ids of the "
            "queries"
        )
    if mask.segments is not None and mask.memory_segments is None and queries != keys:
        raise ValueError(
            f"{where}: expected memory_segments for {queries} queries and {keys} keys, got None; "
            "give the ids of the keys"
        )
    shapes = {
        "segments": (batch, queries),
        "memory_segments": (batch, keys),
        "lengths": (batch,),
    }
    for name, shape in shapes.items():
        array = getattr(mask, name)
        if array is None:
            continue
        if tuple(array.shape) != shape or not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(
                f"{where}: expected {name} of integers {shape}, got {spec(array)}; give each "
                "example its own"
            )


# A mask as users give it: a rule, or an array of booleans of which each axis is that of
# (B, H, T, S) or 1.
Mask = AttentionMask | Array | None


def as_rule(mask: Mask) -> AttentionMask:
    """A mask of any form as a rule.

    >>> as_rule(causal_mask(2)).mask.shape, as_rule(None).causal
    ((1, 1, 2, 2), False)
    """
    return mask if isinstance(mask, AttentionMask) else AttentionMask(mask=mask)


def as_array(
    mask: Mask, query_length: int, key_length: int, *, offset: Position = 0
) -> Array | None:
    """A mask of any form as an array, each axis of (B, H, T, S) or 1.

    >>> as_array(AttentionMask(causal=True), 1, 2, offset=1).tolist()
    [[[[True, True]]]]
    """
    if not isinstance(mask, AttentionMask):
        return mask
    return mask.dense(query_length, key_length, offset=offset)


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
