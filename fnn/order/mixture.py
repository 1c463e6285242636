"""The order of several sources that are mixed by weight, each in its own keyed permutation.

Two sources take turns by Bresenham's line: after t draws, the first has had floor(t a + phase) of
them. That is known for any t without the draws before it, so nothing needs to be remembered. More
sources are a binary tree of such turns: what falls to a node is counted, and that count is the t
of the turns below it. At the leaf it is the place in the source's own epochs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt32

from fnn.order._uint64 import Wide, add, divide, multiply, subtract
from fnn.order.base import MOST, hash_bits, rounds_for, seed_of, swap_or_not
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
    """The source and the example in it of each place of the batch that step `step` sees.

    The draws of all steps are laid end to end. In the first t of them, for every t, source k comes
    w_k t / sum(w) times, give or take less than 1 for two sources, and less than log2(sources),
    rounded up, for more. The draws of one source are its epochs laid end to end, each a permutation
    of its own, so every example comes exactly once per epoch of its source. With the sources in one
    array behind one another, the place in it is `offsets[source] + example`.

    Args:
      key: typed key of the run's order; it is not consumed.
      step: counted from 0; may be traced.
      sizes: number of examples of each source, 1 to 2^30.
      weights: of each source, at least 0 and of any sum; may be traced. They are cut to multiples
        of 2^-24 of the largest, or up to twice as fine; 0 draws nothing.
      batch_size: at least 1.

    Returns: two int32 arrays of shape (batch_size,): sources, and examples in [0, sizes[source]).
    Raises: ValueError for no source, an empty one, or weights that do not fit them.
    Source: Bresenham 1965, "Algorithm for computer control of a digital plotter", for the turns; as
      `order` for the permutations.

    >>> source, example = mixture(jax.random.key(0), 7, sizes=(100, 10), weights=(3, 1),
    ...                           batch_size=8)
    >>> np.bincount(source).tolist()
    [6, 2]
    """
    _check(sizes, weights, batch_size)
    seed = seed_of(key)
    places = jnp.arange(batch_size, dtype=jnp.uint32)
    start = multiply(jnp.asarray(step).astype(jnp.uint32), jnp.uint32(batch_size))
    source, rank = _turns(seed, add(start, places), _whole(weights))
    n = jnp.asarray(np.asarray(sizes, np.uint32))[source]
    epoch, place = divide(rank, n)
    own = hash_bits(seed + (source.astype(jnp.uint32) + np.uint32(1)) * _GOLDEN)
    example = _permute_each(hash_bits(own ^ epoch), place, n, rounds_for(max(sizes)))
    return source, example.astype(jnp.int32)


def _check(sizes: Sequence[int], weights: Sequence | Array, batch_size: int) -> None:
    if not sizes or not all(1 <= n <= MOST for n in sizes):
        raise ValueError(
            f"mixture: expected sources of 1 to {MOST} examples, got sizes {tuple(sizes)}; "
            "leave out the empty ones"
        )
    if len(weights) != len(sizes):
        raise ValueError(
            f"mixture: expected a weight for each of {len(sizes)} sources, got {len(weights)}"
        )
    if any(isinstance(w, jax.core.Tracer) for w in [weights, *weights]):
        return  # their values cannot be seen
    known = np.asarray([float(w) for w in weights])
    if not (np.isfinite(known).all() and (known >= 0).all() and known.any()):
        raise ValueError(
            f"mixture: expected finite weights of at least 0, not all 0, got {known.tolist()}"
        )


def _whole(weights: Sequence[Scalar] | Float[Array, " sources"]) -> list[UInt32[Array, " _"]]:
    """The weights in integers, with zeros up to a power of two, and their sums at each level.

    Scaled by a power of two and cut: exact, so that every device and program gets the same turns.
    """
    given = jnp.stack([jnp.asarray(w, jnp.float32) for w in weights])
    depth = (len(given) - 1).bit_length()
    _, exponent = jnp.frexp(given.max())
    scaled = jnp.ldexp(given, min(24, 31 - depth) - exponent).astype(jnp.uint32)
    levels = [jnp.pad(scaled, (0, 2**depth - len(given)))]
    while len(levels[0]) > 1:
        levels.insert(0, levels[0].reshape(-1, 2).sum(1, dtype=jnp.uint32))
    return levels


def _turns(
    seed: UInt32[Array, ""], rank: Wide, levels: list[UInt32[Array, " _"]]
) -> tuple[Int[Array, " batch"], Wide]:
    """The leaf that each draw falls to, and how many fell to it before."""
    node = jnp.zeros(rank[1].shape, jnp.int32)
    for total, below in zip(levels, levels[1:], strict=False):
        left, right = below[0::2], below[1::2]
        # The share of the left node in units of 2^-32. A whole has no such number: `alone` it is.
        share = divide((left % jnp.maximum(total, 1), jnp.zeros_like(left)), jnp.maximum(total, 1))
        names = len(total) + jnp.arange(len(total), dtype=jnp.uint32)
        phase = hash_bits(hash_bits(seed ^ _GOLDEN) + names * _GOLDEN)
        a, alone = share[0][node], (right == 0)[node]
        count, after = add(multiply(rank[1], a), phase[node])
        before = _choose(alone, rank, add(multiply(rank[0], a), count))
        goes_left = alone | (after + a < a)  # the next count is one more
        rank = _choose(goes_left, before, subtract(rank, before))
        node = node * 2 + (~goes_left).astype(jnp.int32)
    return node, rank


def _choose(which: Bool[Array, " batch"], a: Wide, b: Wide) -> Wide:
    return jnp.where(which, a[0], b[0]), jnp.where(which, a[1], b[1])


def _permute_each(epoch_seed: Words, x: Words, n: Words, rounds: int) -> Words:
    """Each x under the permutation of [0, n) of its own epoch and source."""

    def one_round(x, counter):
        salt = hash_bits(epoch_seed + counter)
        return swap_or_not(x, hash_bits(salt) % n, salt, n), None

    counters = jnp.arange(rounds, dtype=jnp.uint32) * _GOLDEN
    return jax.lax.scan(one_round, x, counters)[0]
