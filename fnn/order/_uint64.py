"""Numbers of 64 bits as pairs of uint32, which exist whether or not JAX has 64-bit integers."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

Word = UInt32[Array, "..."]  # shapes broadcast
Wide = tuple[Word, Word]  # high and low word


def multiply(a: Word, b: Word) -> Wide:
    """The whole product of two words.

    >>> [word.item() for word in multiply(jnp.uint32(2**31), jnp.uint32(6))]
    [3, 0]
    """
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    middle = a1 * b0 + (a0 * b0 >> half)  # at most 2^32 - 2^17 + 2^16: it fits
    rest = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> half) + (rest >> half), a * b


def add(a: Wide, b: Word) -> Wide:
    """The sum of a pair and a word, modulo 2^64.

    >>> [word.item() for word in add((jnp.uint32(0), jnp.uint32(2**32 - 1)), jnp.uint32(3))]
    [1, 2]
    """
    low = a[1] + b
    return a[0] + (low < b).astype(jnp.uint32), low


def subtract(a: Wide, b: Wide) -> Wide:
    """The difference of two pairs, modulo 2^64.

    >>> two = jnp.uint32(0), jnp.uint32(2)
    >>> [word.item() for word in subtract((jnp.uint32(1), jnp.uint32(0)), two)]
    [0, 4294967294]
    """
    return a[0] - b[0] - (a[1] < b[1]).astype(jnp.uint32), a[1] - b[1]


def divide(a: Wide, n: Word) -> Wide:
    """The low word of the quotient of a pair by n, and the remainder.

    Args:
      n: 1 to 2^31.

    >>> [word.item() for word in divide((jnp.uint32(1), jnp.uint32(5)), jnp.uint32(10))]
    [429496730, 1]
    """

    def next_bit(carry, bit):
        quotient, remainder = carry
        remainder = remainder * np.uint32(2) + (a[1] >> bit & np.uint32(1))
        over = remainder >= n
        quotient = quotient * np.uint32(2) + over.astype(jnp.uint32)
        return (quotient, jnp.where(over, remainder - n, remainder)), None

    start = a[0] % n
    bits = jnp.arange(31, -1, -1, dtype=jnp.uint32)
    return jax.lax.scan(next_bit, (jnp.zeros_like(start), start), bits)[0]
