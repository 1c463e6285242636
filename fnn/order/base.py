"""Shuffling without an iterator, a state or an array of n indices.

The swap-or-not shuffle is a keyed permutation that can be evaluated at single positions, so the
batch of any step is available directly and resuming within an epoch costs nothing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, UInt32

from fnn.types import PRNGKey

MAX_EXAMPLES = 2**30  # sums of two positions have to fit into uint32
_MIN_ROUNDS = 12  # six rounds on six examples favor some pairs by a quarter


def order(
    key: PRNGKey, step: Integer[Array, ""] | int, n: int, batch_size: int
) -> Int[Array, " batch"]:
    """Indices of the examples in the batch of a step, shuffled anew in each epoch.

    Epochs are concatenated and cut into batches: position p = step * batch_size + i belongs to
    epoch p // n, and each epoch is its own permutation. Every example occurs exactly once per epoch
    for all n and batch_size; a batch may span the end of one epoch and the start of the next.

    Args:
      key: typed key of the run's order; not consumed.
      step: counted from 0; may be traced.
      n: number of examples, 1 to 2^30.
      batch_size: 1 to n.

    Returns: int32 of shape (batch_size,), in [0, n), in O(batch_size log n) time.
    Raises: ValueError for an empty dataset, or a batch larger than the data.
    Source: Hoang, Morris & Rogaway 2012, "An enciphering scheme based on a card shuffle", with
      1.5 log2(n) + 2 rounds, at least 12. Deviates: the round function is an integer hash, which
      is not cryptographically secure.

    >>> key = jax.random.key(0)
    >>> epoch = [order(key, step, 10, 5) for step in range(2)]
    >>> sorted(np.concatenate(epoch).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    if n < 1:
        raise ValueError(
            "order: expected at least one example, got an empty dataset; check the data"
        )
    if n > MAX_EXAMPLES:
        raise ValueError(
            f"order: expected at most {MAX_EXAMPLES} examples, got {n}; split the dataset"
        )
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"order: expected batch_size from 1 to the {n} examples, got {batch_size}; "
            "use a smaller batch or more data"
        )
    return order_block(key, step, n, batch_size, 1)[0]


def order_block(
    key: PRNGKey, step: Integer[Array, ""] | int, n: int, batch_size: int, steps: int
) -> Int[Array, "steps batch"]:
    """`order` of `steps` consecutive steps from `step` on, with at most n examples in total.

    Faster than repeated `order` calls, because the hash rounds are vectorized over many examples.

    >>> key = jax.random.key(0)
    >>> bool((order_block(key, 3, 10, 2, 4)[2] == order(key, 5, 10, 2)).all())
    True
    """
    epoch, start = _epoch_and_offset(jnp.asarray(step).astype(jnp.uint32), n, batch_size)
    offset = start + jnp.arange(steps * batch_size, dtype=jnp.uint32)
    wrapped = offset >= n  # positions in the next epoch
    position = jnp.where(wrapped, offset - np.uint32(n), offset)
    indices = _permute(key, epoch, wrapped, position, n).astype(jnp.int32)
    return indices.reshape(steps, batch_size)


def _epoch_and_offset(
    step: UInt32[Array, ""], n: int, batch_size: int
) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """divmod(step * batch_size, n), without overflow of the product."""
    shared = math.gcd(n, batch_size)
    steps_in_cycle = n // shared  # a cycle is a whole number of epochs
    if n * (batch_size // shared) < 2**32:
        cycle, rest = step // np.uint32(steps_in_cycle), step % np.uint32(steps_in_cycle)
        seen = rest * np.uint32(batch_size)
        epoch = cycle * np.uint32(batch_size // shared) + seen // np.uint32(n)
        return epoch, seen % np.uint32(n)
    # Long multiplication in binary: batch_size <= n <= 2^30 keeps every sum below 3 * 2^30.
    quotient = remainder = jnp.uint32(0)
    for bit in reversed(range(32)):
        taken = (step >> np.uint32(bit)) & np.uint32(1)
        quotient, remainder = (
            quotient * np.uint32(2),
            remainder * np.uint32(2) + taken * np.uint32(batch_size),
        )
        for _ in range(2):
            over = remainder >= n
            quotient = quotient + over.astype(jnp.uint32)
            remainder = jnp.where(over, remainder - np.uint32(n), remainder)
    return quotient, remainder


def _permute(
    key: PRNGKey, epoch: UInt32[Array, ""], wrapped: Array, x: UInt32[Array, " batch"], n: int
) -> UInt32[Array, " batch"]:
    if n == 1:
        return x  # XLA:CPU fails to compile the rounds for n = 1
    rounds = rounds_for(n)

    def one_round(x: Array, keys: tuple[Array, Array]) -> tuple[Array, None]:
        pivots, salts = keys
        pivot = jnp.where(wrapped, pivots[1], pivots[0])
        salt = jnp.where(wrapped, salts[1], salts[0])
        return swap_or_not(x, pivot, salt, np.uint32(n)), None

    # A loop, because XLA:CPU vectorizes its body but not the unrolled expression.
    return jax.lax.scan(one_round, x, _round_keys(key, epoch, rounds, n))[0]


def rounds_for(n: int) -> int:
    """The number of rounds that shuffle n examples: 12 for 10, 47 for 10^9."""
    return max(math.ceil(1.5 * math.log2(n)) + 2, _MIN_ROUNDS)


def swap_or_not(
    x: UInt32[Array, "*batch"],
    pivot: UInt32[Array, "*batch"],
    salt: UInt32[Array, "*batch"],
    n: np.uint32 | UInt32[Array, "*batch"],
) -> UInt32[Array, "*batch"]:
    """One round: x and its partner pivot - x (mod n) are swapped or not; an involution."""
    partner = jnp.where(pivot >= x, pivot - x, pivot + n - x)
    swap = hash_bits(jnp.maximum(x, partner) ^ salt) >> np.uint32(31)
    return jnp.where(swap == 1, partner, x)


def _round_keys(
    key: PRNGKey, epoch: UInt32[Array, ""], rounds: int, n: int
) -> tuple[UInt32[Array, "rounds 2"], UInt32[Array, "rounds 2"]]:
    """Pivots in [0, n) and salts of every round, for this epoch and the next."""
    epochs = epoch + jnp.arange(2, dtype=jnp.uint32)
    counter = jnp.arange(rounds, dtype=jnp.uint32) * np.uint32(0x9E3779B9)
    salts = hash_bits(hash_bits(seed_of(key) ^ epochs)[None, :] + counter[:, None])
    return hash_bits(salts) % np.uint32(n), salts


def seed_of(key: PRNGKey) -> UInt32[Array, ""]:
    """A 32-bit hash of a key, which is not consumed."""
    seed = jnp.uint32(0)
    for word in jax.random.key_data(key).ravel():
        seed = hash_bits(seed ^ word)
    return seed


def hash_bits(h: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """A bijective hash of 32 bits (multiply and xor-shift)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))
