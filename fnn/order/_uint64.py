"""64-bit integers as pairs of uint32, which need no jax_enable_x64."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

Word = UInt32[Array, "..."]  # shapes broadcast
Wide = tuple[Word, Word]  # high and low word


def multiply(a: Word, b: Word) -> Wide:
    """The 64-bit product of two words."""
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    middle = a1 * b0 + (a0 * b0 >> half)  # at most 2^32 - 2^17 + 2^16: it fits
    rest = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> half) + (rest >> half), a * b


def add(a: Wide, b: Word) -> Wide:
    """a + b modulo 2^64."""
    low = a[1] + b
    return a[0] + (low < b).astype(jnp.uint32), low


def subtract(a: Wide, b: Wide) -> Wide:
    """a - b modulo 2^64."""
    return a[0] - b[0] - (a[1] < b[1]).astype(jnp.uint32), a[1] - b[1]


def divide(a: Wide, n: Word) -> Wide:
    """The low word of a // n, and a % n, for n from 1 to 2^31."""

    def next_bit(carry: tuple[Array, Array], bit: Array) -> tuple[tuple[Array, Array], None]:
        quotient, remainder = carry
        remainder = remainder * np.uint32(2) + (a[1] >> bit & np.uint32(1))
        over = remainder >= n
        quotient = quotient * np.uint32(2) + over.astype(jnp.uint32)
        return (quotient, jnp.where(over, remainder - n, remainder)), None

    start = a[0] % n
    bits = jnp.arange(31, -1, -1, dtype=jnp.uint32)
    return jax.lax.scan(next_bit, (jnp.zeros_like(start), start), bits)[0]
