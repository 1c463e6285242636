"""Attention tile by tile in plain JAX: memory linear in the length, with a derivative of its own.

B batch, T queries, S keys, K heads of keys and values, each for G heads of queries, D features.
Queries and keys are cut into I and J blocks; a tile is a pair of blocks. Only the logits of one
tile exist at a time, in the forward pass, its tangents and the backward pass.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fnn.autodiff import varying_like
from fnn.dtypes import at_least_float32

Blocks = Any  # (blocks, B, K, G * rows, ...): rows of all heads of a group


class TileRule(NamedTuple):
    """What of an attention is known while tracing."""

    causal: bool
    window: tuple[int, int] | None
    scale: float
    softcap: float | None
    block_size: int


class Masks(NamedTuple):
    """The arrays that decide which keys a query attends to; None masks nothing."""

    query_segments: Array | None  # (B, T)
    key_segments: Array | None  # (B, S)
    lengths: Array | None  # (B,)
    mask: Array | None  # each axis of (B, H, T, S) or 1


def forward(
    rule: TileRule, query: Array, key: Array, value: Array, masks: Masks
) -> tuple[Float[Array, "b t h d"], Float[Array, "b h t"]]:
    """The heads, and the log of the sum of exponentials of each query's logits.

    The sums are rescaled to the largest logit seen so far, one tile after the other. A query
    without keys has heads of 0 and a log of 0.

    Source: Dao et al. 2022, arXiv:2205.14135, algorithm 1; Milakov & Gimelshein 2018,
      arXiv:1805.02867 (online softmax).
    """
    tiles = _Tiles(rule, query, key, masks)
    q, k, v = tiles.of_queries(query), tiles.of_keys(key), tiles.of_keys(value)
    dtype = at_least_float32(query)

    def add(carry: Any, tile: Any) -> tuple[Any, None]:
        i, j = tile
        top, total, heads = (_at(part, i) for part in carry)
        z, _ = tiles.logits(_at(q, i), _at(k, j), i, j)
        new_top = jnp.maximum(top, z.max(axis=-1))
        base = jnp.where(jnp.isneginf(new_top), 0, new_top)
        p, fade = jnp.exp(z - base[..., None]), jnp.exp(top - base)
        new = (
            new_top,
            fade * total + p.sum(axis=-1),
            fade[..., None] * heads + _product(p.astype(v.dtype), _at(v, j)),
        )
        return tuple(_put(old, part, i) for old, part in zip(carry, new, strict=True)), None

    start = (
        jnp.full(q.shape[:-1], -jnp.inf, dtype),
        jnp.zeros(q.shape[:-1], dtype),
        jnp.zeros((*q.shape[:-1], v.shape[-1]), dtype),
    )
    top, total, heads = tiles.fold(add, start, (query, key, value))
    empty = total == 0
    heads = heads / jnp.where(empty, 1, total)[..., None]
    log_sum = jnp.where(empty, 0, top) + jnp.log(jnp.where(empty, 1, total))
    return tiles.to_heads(heads).astype(query.dtype), tiles.to_rows(log_sum)


def tangents(
    rule: TileRule, saved: Any, directions: tuple[Array, Array, Array]
) -> Float[Array, "b t h d"]:
    """The derivative of the heads along tangents of query, key and value.

    dy_t = sum_s w_ts (dz_ts v_s + dv_s) - (sum_s w_ts dz_ts) y_t
    """
    query, key, value, masks, y, log_sum = saved
    tiles = _Tiles(rule, query, key, masks)
    dquery, dkey, dvalue = directions
    q, dq, logs = (tiles.of_queries(a) for a in (query, dquery, _with_features(log_sum)))
    k, v, dk, dv = (tiles.of_keys(a) for a in (key, value, dkey, dvalue))

    @functools.partial(jax.checkpoint, prevent_cse=False)  # for second derivatives
    def add(carry: Any, tile: Any) -> tuple[Any, None]:
        i, j = tile
        drift, heads = (_at(part, i) for part in carry)
        z, slope = tiles.logits(_at(q, i), _at(k, j), i, j)
        p = jnp.exp(z - _at(logs, i))
        dz = _product(_at(dq, i), _turned(_at(k, j))) + _product(_at(q, i), _turned(_at(dk, j)))
        change = p * slope * dz
        new = (
            drift + change.sum(axis=-1),
            heads
            + _product(change.astype(v.dtype), _at(v, j))
            + _product(p.astype(v.dtype), _at(dv, j)),
        )
        return tuple(_put(old, part, i) for old, part in zip(carry, new, strict=True)), None

    dtype = at_least_float32(query)
    start = (
        jnp.zeros(q.shape[:-1], dtype),
        jnp.zeros((*q.shape[:-1], v.shape[-1]), dtype),
    )
    drift, heads = tiles.fold(add, start, (saved, directions))
    dy = tiles.to_heads(heads) - tiles.to_heads(drift[..., None]) * y.astype(dtype)
    return dy.astype(query.dtype)


def cotangents(
    rule: TileRule, saved: Any, cotangent: Float[Array, "b t h d"]
) -> tuple[Array, Array, Array]:
    """The transpose of `tangents`: the gradients of query, key and value.

    Source: Dao 2023, arXiv:2307.08691, algorithm 2.
    """
    query, key, value, masks, y, log_sum = saved
    tiles = _Tiles(rule, query, key, masks)
    dtype = at_least_float32(query)
    inner = (cotangent.astype(dtype) * y.astype(dtype)).sum(axis=-1)
    columns = (_with_features(log_sum), inner[..., None])
    q, c, logs, inners = (tiles.of_queries(a) for a in (query, cotangent, *columns))
    k, v = tiles.of_keys(key), tiles.of_keys(value)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(carry: Any, tile: Any) -> tuple[Any, None]:
        dq, dk, dv = carry
        i, j = tile
        z, slope = tiles.logits(_at(q, i), _at(k, j), i, j)
        p = jnp.exp(z - _at(logs, i))
        dz = p * slope * (_product(_at(c, i), _turned(_at(v, j))) - _at(inners, i))
        narrow = dz.astype(q.dtype)
        dq = _put(dq, _at(dq, i) + _product(narrow, _at(k, j)), i)
        dk = _put(dk, _at(dk, j) + _product(_turned(narrow), _at(q, i)), j)
        dv = _put(dv, _at(dv, j) + _product(_turned(p.astype(c.dtype)), _at(c, i)), j)
        return (dq, dk, dv), None

    start = tuple(jnp.zeros(a.shape, dtype) for a in (q, k, v))
    dq, dk, dv = tiles.fold(add, start, (saved, cotangent))
    return (
        tiles.to_heads(dq).astype(query.dtype),
        tiles.from_keys(dk, key.shape).astype(key.dtype),
        tiles.from_keys(dv, value.shape).astype(value.dtype),
    )


class _Tiles:
    """The blocks of queries and keys, and the tiles that a query may attend to."""

    def __init__(self, rule: TileRule, query: Array, key: Array, masks: Masks) -> None:
        self.rule = rule
        self.batch, self.queries, self.heads = query.shape[:3]
        self.keys, self.groups = key.shape[1:3]
        self.shared = self.heads // self.groups  # G
        self.rows, self.query_blocks = _cut(self.queries, rule.block_size)
        self.columns, self.key_blocks = _cut(self.keys, rule.block_size)
        self.masks = self._blocks_of_masks(masks)

    def fold(self, add: Callable[..., Any], start: Any, like: Any) -> Any:
        """The sum over all tiles that hold a visible key."""
        start = varying_like(start, like)
        tiles = self._visible_tiles()
        return lax.scan(add, start, (jnp.asarray(tiles[:, 0]), jnp.asarray(tiles[:, 1])))[0]

    def _visible_tiles(self) -> Any:
        i, j = np.meshgrid(np.arange(self.query_blocks), np.arange(self.key_blocks), indexing="ij")
        nearest = (j * self.columns) - ((i + 1) * self.rows - 1)  # first key minus last query
        farthest = ((j + 1) * self.columns - 1) - i * self.rows
        before, after = self.rule.window or (math.inf, math.inf)
        after = min(after, 0) if self.rule.causal else after
        seen = (nearest <= after) & (farthest >= -before)
        return np.stack([i[seen], j[seen]], axis=1).astype(np.int32)

    def logits(self, q: Array, k: Array, i: Array, j: Array) -> tuple[Array, Array]:
        """The logits (B, K, G rows, columns) of a tile, -inf where masked; their slope by q.k."""
        z = self.rule.scale * _product(q, _turned(k))
        slope = jnp.asarray(self.rule.scale, z.dtype)
        if self.rule.softcap is not None:
            bent = jnp.tanh(z / self.rule.softcap)
            z, slope = self.rule.softcap * bent, slope * (1 - jnp.square(bent))
        visible = self._visible(i, j)
        if visible is None:
            return z, slope
        split = z.reshape(self.batch, self.groups, self.shared, self.rows, self.columns)
        return jnp.where(visible, split, -jnp.inf).reshape(z.shape), slope

    def _visible(self, i: Array, j: Array) -> Array | None:
        tile = (1, 1, 1, self.rows, self.columns)
        queries = i * self.rows + lax.broadcasted_iota(jnp.int32, tile, 3)
        keys = j * self.columns + lax.broadcasted_iota(jnp.int32, tile, 4)
        seen: list[Array] = []
        if self.key_blocks * self.columns > self.keys:
            seen.append(keys < self.keys)
        if self.rule.causal:
            seen.append(keys <= queries)
        if self.rule.window is not None:
            before, after = self.rule.window
            seen.append((keys >= queries - before) & (keys <= queries + after))
        masks = self.masks
        if masks.lengths is not None:
            seen.append(keys < masks.lengths[:, None, None, None, None])
        if masks.query_segments is not None and masks.key_segments is not None:
            own, theirs = _at(masks.query_segments, i), _at(masks.key_segments, j)
            seen.append((own[:, :, None] == theirs[:, None])[:, None, None])
        if masks.mask is not None:
            down = _at(masks.mask, jnp.minimum(i, masks.mask.shape[0] - 1))
            seen.append(_at(down, jnp.minimum(j, down.shape[0] - 1)))
        return functools.reduce(jnp.logical_and, seen) if seen else None

    def _blocks_of_masks(self, masks: Masks) -> Masks:
        dense = masks.mask
        if dense is not None:
            rows, columns = (self.rows, self.query_blocks), (self.columns, self.key_blocks)
            dense = _blocks(_blocks(dense, 3, *columns), 3, *rows)  # (I, J, b, h, rows, columns)
            shape = dense.shape
            per_head = (self.groups, self.shared) if shape[3] > 1 else (1, 1)
            dense = dense.reshape(*shape[:3], *per_head, *shape[4:])
        own, theirs = masks.query_segments, masks.key_segments
        return Masks(
            None if own is None else _blocks(own, 1, self.rows, self.query_blocks),
            None if theirs is None else _blocks(theirs, 1, self.columns, self.key_blocks),
            masks.lengths,
            dense,
        )

    def of_queries(self, x: Array) -> Blocks:
        """(B, T, H, X) to (I, B, K, G rows, X)."""
        x = x.reshape(self.batch, self.queries, self.groups, self.shared, x.shape[-1])
        x = _blocks(x, 1, self.rows, self.query_blocks)  # (I, B, rows, K, G, X)
        x = jnp.transpose(x, (0, 1, 3, 4, 2, 5))
        return x.reshape(*x.shape[:3], self.shared * self.rows, x.shape[-1])

    def of_keys(self, x: Array) -> Blocks:
        """(B, S, K, X) to (J, B, K, columns, X)."""
        return jnp.swapaxes(_blocks(x, 1, self.columns, self.key_blocks), 2, 3)

    def to_heads(self, x: Blocks) -> Array:
        """(I, B, K, G rows, X) to (B, T, H, X)."""
        x = x.reshape(*x.shape[:3], self.shared, self.rows, x.shape[-1])
        x = jnp.transpose(x, (1, 0, 4, 2, 3, 5))  # (B, I, rows, K, G, X)
        x = x.reshape(self.batch, self.query_blocks * self.rows, self.heads, x.shape[-1])
        return x[:, : self.queries]

    def to_rows(self, x: Blocks) -> Float[Array, "b h t"]:
        """(I, B, K, G rows) to (B, H, T)."""
        return jnp.swapaxes(self.to_heads(x[..., None])[..., 0], 1, 2)

    def from_keys(self, x: Blocks, shape: tuple[Any, ...]) -> Array:
        """(J, B, K, columns, X) to (B, S, K, X)."""
        x = jnp.transpose(x, (1, 0, 3, 2, 4))
        return x.reshape(shape[0], self.key_blocks * self.columns, *shape[2:])[:, : shape[1]]


def _cut(length: int, block_size: int) -> tuple[int, int]:
    """The size of a block and their number; the last block may be padded."""
    blocks = max(1, math.ceil(length / block_size))
    return math.ceil(length / blocks), blocks


def _blocks(x: Array, axis: int, size: int, blocks: int) -> Array:
    """Splits an axis into blocks, padded with zeros, along a new first axis; one of 1 is kept."""
    if x.shape[axis] == 1 and x.ndim > 3 and size * blocks > 1:
        return x[None]
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, size * blocks - x.shape[axis])
    x = jnp.pad(x, pad)
    x = x.reshape(*x.shape[:axis], blocks, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _at(x: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(x, i, axis=0, keepdims=False)


def _put(x: Array, part: Array, i: Array) -> Array:
    return lax.dynamic_update_index_in_dim(x, part, i, axis=0)


def _turned(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _with_features(log_sum: Float[Array, "b h t"]) -> Float[Array, "b t h 1"]:
    return jnp.swapaxes(log_sum, 1, 2)[..., None]


def _product(a: Array, b: Array) -> Array:
    """The matrix product of the last two axes, in at least float32."""
    return jnp.matmul(a, b, preferred_element_type=at_least_float32(a))
