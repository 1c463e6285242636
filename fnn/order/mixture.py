"""Mixtures of several sources by weight, each shuffled by its own keyed permutation.

Two sources alternate by Bresenham's line: of t draws, floor(t a + phase) are from the first, which
is known for any t without a state. More sources are the leaves of a binary tree of such choices:
the number of draws that reach a node is the t of the choice there, and at a leaf the position in
the source's concatenated epochs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt32

from fnn.order._uint64 import Wide, add, divide, multiply, subtract
from fnn.order.base import MAX_EXAMPLES, hash_bits, rounds_for, seed_of, swap_or_not
from fnn.types import PRNGKey, Scalar

_GOLDEN = np.uint32(0x9E3779B9)
Words = UInt32[Array, " batch"]


def mixture(
    key: PRNGKey,
    step: Integer[Array, ""] | int,
    sizes: Sequence[int],
    weights: Sequence[Scalar] | Float[Array, " sources"],
    batch_size: int,
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Sources and examples of the batch of a step, drawn from several sources by weight.

    Of the first t draws of a run, for every t, w_k t / sum(w) are from source k, up to an error
    below 1 for two sources and below ceil(log2(sources)) for more. The draws of a source are its
    concatenated epochs, each its own permutation: every example occurs exactly once per epoch of
    its source. If the sources are concatenated in one array, the index is `offsets[source] +
    example`.

    Args:
      key: typed key of the run's order; not consumed.
      step: counted from 0; may be traced.
      sizes: number of examples of each source, 1 to 2^30.
      weights: of each source, non-negative, with any sum; may be traced. They are rounded down to
        multiples of 2^-24 of the largest, or up to twice as fine.
      batch_size: at least 1.

    Returns: two int32 arrays of shape (batch_size,): sources, and examples in [0, sizes[source]).
    Raises: ValueError for no source, an empty source, and weights that do not match the sources.
    Source: Bresenham 1965, "Algorithm for computer control of a digital plotter", for the choices;
      as `order` for the permutations.

    >>> source, example = mixture(jax.random.key(0), 7, sizes=(100, 10), weights=(3, 1),
    ...                           batch_size=8)
    >>> np.bincount(source).tolist()
    [6, 2]
    """
    _check(sizes, weights, batch_size)
    seed = seed_of(key)
    offsets = jnp.arange(batch_size, dtype=jnp.uint32)
    start = multiply(jnp.asarray(step).astype(jnp.uint32), jnp.uint32(batch_size))
    source, rank = _choose_sources(seed, add(start, offsets), _tree_of_sums(weights))
    n = jnp.asarray(np.asarray(sizes, np.uint32))[source]
    epoch, position = divide(rank, n)
    source_seed = hash_bits(seed + (source.astype(jnp.uint32) + np.uint32(1)) * _GOLDEN)
    example = _permute_each(hash_bits(source_seed ^ epoch), position, n, rounds_for(max(sizes)))
    return source, example.astype(jnp.int32)


def _check(sizes: Sequence[int], weights: Sequence | Array, batch_size: int) -> None:
    if not sizes or not all(1 <= n <= MAX_EXAMPLES for n in sizes):
        raise ValueError(
            f"mixture: expected sources of 1 to {MAX_EXAMPLES} examples, got sizes {tuple(sizes)}; "
            "drop the empty ones"
        )
    if len(weights) != len(sizes):
        raise ValueError(
            f"mixture: expected a weight for each of {len(sizes)} sources, got {len(weights)}; "
            "give one for each"
        )
    if any(isinstance(w, jax.core.Tracer) for w in [weights, *weights]):
        return
    known = np.asarray([float(w) for w in weights])
    if not (np.isfinite(known).all() and (known >= 0).all() and known.any()):
        raise ValueError(
            f"mixture: expected finite weights of at least 0, not all 0, got {known.tolist()}; "
            "correct them"
        )


def _tree_of_sums(
    weights: Sequence[Scalar] | Float[Array, " sources"],
) -> list[UInt32[Array, " _"]]:
    """The levels of a binary tree of sums over integer weights, from the root down.

    Scaling by a power of two is exact, so every device and program chooses alike.
    """
    given = jnp.stack([jnp.asarray(w, jnp.float32) for w in weights])
    depth = (len(given) - 1).bit_length()
    _, exponent = jnp.frexp(given.max())
    scaled = jnp.ldexp(given, min(24, 31 - depth) - exponent).astype(jnp.uint32)
    levels = [jnp.pad(scaled, (0, 2**depth - len(given)))]
    while len(levels[0]) > 1:
        levels.insert(0, levels[0].reshape(-1, 2).sum(1, dtype=jnp.uint32))
    return levels


def _choose_sources(
    seed: UInt32[Array, ""], rank: Wide, levels: list[UInt32[Array, " _"]]
) -> tuple[Int[Array, " batch"], Wide]:
    """The leaf that each draw reaches, and its rank among the draws that reach it."""
    node = jnp.zeros(rank[1].shape, jnp.int32)
    for total, below in zip(levels, levels[1:], strict=False):
        left, right = below[0::2], below[1::2]
        # The fraction of the left node in units of 2^-32, which cannot express 1: see `only_left`.
        total = jnp.maximum(total, 1)
        fraction, _ = divide((left % total, jnp.zeros_like(left)), total)
        names = len(total) + jnp.arange(len(total), dtype=jnp.uint32)
        phase = hash_bits(hash_bits(seed ^ _GOLDEN) + names * _GOLDEN)
        a, only_left = fraction[node], (right == 0)[node]
        count, remainder = add(multiply(rank[1], a), phase[node])
        before = _where(only_left, rank, add(multiply(rank[0], a), count))
        goes_left = only_left | (remainder + a < a)  # overflow: the next count is one more
        rank = _where(goes_left, before, subtract(rank, before))
        node = node * 2 + (~goes_left).astype(jnp.int32)
    return node, rank


def _where(which: Bool[Array, " batch"], a: Wide, b: Wide) -> Wide:
    return jnp.where(which, a[0], b[0]), jnp.where(which, a[1], b[1])


def _permute_each(epoch_seed: Words, x: Words, n: Words, rounds: int) -> Words:
    """Permutes each x in [0, n) by the permutation of its epoch and source."""

    def one_round(x: Words, counter: Array) -> tuple[Words, None]:
        salt = hash_bits(epoch_seed + counter)
        return swap_or_not(x, hash_bits(salt) % n, salt, n), None

    counters = jnp.arange(rounds, dtype=jnp.uint32) * _GOLDEN
    return jax.lax.scan(one_round, x, counters)[0]
