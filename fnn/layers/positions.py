"""Positions without parameters: sinusoidal vectors, rotary embedding (RoPE), linear biases (ALiBi).

Angles are computed in at least float32 from integer positions, whatever the dtype of x: bfloat16
cannot tell position 256 from 257.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.types import Scalar


def _angles(positions: Array, features: int, base: Scalar, dtype: Any) -> Array:
    """positions * base^(-2i / features) for each pair i of features: (..., ceil(features / 2))."""
    exponents = -2 * np.arange((features + 1) // 2) / features
    if isinstance(base, (int, float)):  # known: the powers are taken in float64
        frequencies = jnp.asarray(base**exponents, dtype)
    else:
        frequencies = jnp.asarray(base, dtype) ** jnp.asarray(exponents, dtype)
    axes = tuple(range(positions.ndim))
    return positions.astype(dtype)[..., None] * jnp.expand_dims(frequencies, axes)


@within(base="(0, inf)")
def sinusoidal_positions(
    positions: Num[Array, "*batch"],
    features: int,
    *,
    base: Scalar = 10000.0,
    dtype: Any = jnp.float32,
) -> Float[Array, "*batch features"]:
    """Sines and cosines of the positions, at wavelengths from 2 pi to 2 pi base.

        y_2i = sin(p base^(-2i/D)),    y_2i+1 = cos(p base^(-2i/D))

    Args:
      positions: p, such as `jnp.arange(length)`; need not be whole (diffusion times, say).
      features: D, at least 1. An odd one leaves the last cosine out.
      base: positive; may be traced.
      dtype: of the result; the angles are in at least float32.

    Returns: (*batch, features), in [-1, 1].
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5. Sines and cosines alternate as in
      the paper; its authors' code puts all sines first.

    >>> sinusoidal_positions(jnp.arange(2), 4).round(2).tolist()[0]
    [0.0, 1.0, 0.0, 1.0]
    """
    angles = _angles(positions, features, base, at_least_float32(dtype))
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return lax.collapse(pairs, positions.ndim)[..., :features].astype(dtype)


@within(base="(0, inf)")
def rope(
    x: Float[Array, "*batch time heads features"],
    positions: Num[Array, "..."],
    *,
    base: Scalar = 10000.0,
) -> Float[Array, "*batch time heads features"]:
    """Rotate each pair of features by an angle that grows with the position.

        a' = a cos(p w_i) - b sin(p w_i),    b' = b cos(p w_i) + a sin(p w_i),
        w_i = base^(-2i/D),    a = x_i,  b = x_(i + D/2)

    The product of a rotated query and a rotated key depends on the distance of their positions
    alone, and rotating keeps every norm.

    Args:
      x: queries or keys, (*batch, time, heads, features) with an even number of features.
      positions: p, of shape (time,) or (*batch, time).
      base: positive; may be traced. 10000 in the paper and Llama 1 and 2; 500000 in Llama 3.

    Returns: the shape and dtype of x.
    Raises: ValueError for an odd number of features, and for positions of another shape.
    Source: Su et al. 2021, arXiv:2104.09864, section 3.2. Deviates: feature i is paired with
      feature i + D/2 (halves: Llama weights in Hugging Face, GPT-NeoX), where the paper pairs
      neighbours; to load weights made for neighbours, put the even features before the odd ones.

    >>> rope(jnp.array([[[1.0, 0.0]]]), jnp.array([1])).round(3).tolist()
    [[[0.5400000214576721, 0.8410000205039978]]]
    """
    if x.shape[-1] % 2:
        raise ValueError(
            f"rope: expected an even number of features, got x of shape {x.shape}; "
            "choose an even head size, the features are rotated in pairs"
        )
    if positions.shape not in (x.shape[-3:-2], x.shape[:-2]):
        raise ValueError(
            f"rope: expected positions of shape {x.shape[-3:-2]} or {x.shape[:-2]} for x of shape "
            f"{x.shape}, got {positions.shape}; give one position for each time step"
        )
    wide = x.astype(at_least_float32(x))
    angles = _angles(positions, x.shape[-1], base, wide.dtype)[..., None, :]  # one axis of heads
    angles = jnp.expand_dims(angles, tuple(range(x.ndim - angles.ndim)))
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(wide, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def alibi_slopes(heads: int) -> np.ndarray:
    """The slope m of each head: 2^(-8/n), 2^(-16/n), ..., 2^-8 where n heads are a power of two.

    For another number of heads, those of the power of two below it, then every second one of the
    power of two above it.

    Returns: (heads,) float64, on the host.
    Raises: ValueError for fewer than one head.
    Source: Press, Smith & Lewis 2022, arXiv:2108.12409, section 3 and the authors' code.

    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    if heads < 1:
        raise ValueError(f"alibi_slopes: expected at least one head, got {heads}; give it more")
    n = 2 ** math.floor(math.log2(heads))
    exponents = [8 * (i + 1) / n for i in range(n)]
    exponents += [4 * (2 * i + 1) / n for i in range(heads - n)]
    return 2.0 ** -np.array(exponents)


def alibi(
    heads: int,
    query_positions: Num[Array, "*batch queries"],
    key_positions: Num[Array, "*batch keys"],
    *,
    dtype: Any = jnp.float32,
) -> Float[Array, "*batch {heads} queries keys"]:
    """What to add to attention scores so that distant keys count less, head by head.

        bias_hij = -m_h |i - j|,    m as `alibi_slopes` has it

    Args:
      heads: how many attention heads, at least 1.
      query_positions, key_positions: i and j.

    Returns: (*batch, heads, queries, keys), at most 0; add it after the scores are scaled.
    Raises: ValueError for fewer than one head.
    Source: Press, Smith & Lewis 2022, arXiv:2108.12409, section 3. The paper is causal and has
      j <= i only; keys to come (j > i), where a mask lets them in, count by their distance too.

    >>> alibi(1, jnp.arange(2), jnp.arange(2)).tolist() == [[[0.0, -1 / 256], [-1 / 256, 0.0]]]
    True
    """
    wide = at_least_float32(dtype)
    queries = query_positions.astype(wide)[..., None, :, None]  # (..., heads, queries, keys)
    keys = key_positions.astype(wide)[..., None, None, :]
    slopes = jnp.asarray(alibi_slopes(heads), wide)[:, None, None]
    slopes = jnp.expand_dims(slopes, tuple(range(queries.ndim - 3)))
    return (-slopes * jnp.abs(queries - keys)).astype(dtype)
