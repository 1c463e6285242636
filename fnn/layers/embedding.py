"""Embeddings of ids and of positions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer, Num

from fnn.dtypes import at_least_float32, indices
from fnn.expect import spec, within
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name
from fnn.types import Params, PRNGKey, Scalar
from fnn.xla import by_rows


def unit_rows(
    key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "..."]:
    """Normal with variance 1 / features: every row has a squared norm of 1 on average.

    A tied head then starts with logits on the scale of its input. Flax's default; PyTorch and
    Equinox draw with variance 1 (`initializers.normal()`).

    >>> jnp.linalg.norm(unit_rows(jax.random.key(0), (1000, 16)), axis=1).mean().round(1).item()
    1.0
    """
    return normal(1 / math.sqrt(max(shape[-1], 1)))(key, shape, dtype)


def embedding_init(
    key: PRNGKey, vocabulary: int, features: int, *, table_init: Initializer = unit_rows
) -> Params:
    """Parameters of `embedding` and `unembed`: {'table': (vocabulary, features)}, float32.

    >>> embedding_init(jax.random.key(0), 10, 4)['table'].shape
    (10, 4)
    """
    return {"table": table_init(fold_name(key, "table"), (vocabulary, features))}


def embedding(params: Params, ids: Integer[Array, "*batch"]) -> Float[Array, "*batch features"]:
    """The rows of the table at `ids`, by a gather.

    Args:
      ids: integers in [0, vocabulary). An id out of range, also a negative one, gives a row of
        NaN: under jit nothing can be raised, and another token's row would be a silent error.

    Returns: (*batch, features) in the dtype of the table. Rows without ids have a gradient of
      exactly 0.
    Raises: ValueError for ids that are not integers.

    >>> params = {'table': jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> embedding(params, jnp.array([1, 0, 2])).tolist()
    [[3.0, 4.0], [1.0, 2.0], [nan, nan]]
    """
    expect_ids("embedding", ids)
    table = params["table"]
    # In at least float32, in which the gradient, a sum over equal ids, is then taken.
    rows = table.astype(at_least_float32(table)).at[indices(ids)]
    rows = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return rows.astype(table.dtype)


def expect_ids(where: str, ids: Any) -> None:
    """Raise for ids that are not integers."""
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"{where}: expected integer ids, got {spec(ids)}; "
            "use a linear layer for real-valued inputs"
        )


def unembed(
    params: Params, x: Float[Array, "*batch features"]
) -> Float[Array, "*batch vocabulary"]:
    """x E^T for the table E: logits with weights tied to those of `embedding`.

    Args:
      params: those of `embedding`.

    Returns: (*batch, vocabulary), in the dtype of x and the table.
    Raises: ValueError if the last axis of x does not fit the table.
    Source: Press & Wolf 2017, arXiv:1608.05859.

    >>> unembed({'table': jnp.array([[1.0, 2.0], [3.0, 4.0]])}, jnp.array([1.0, 0.0])).tolist()
    [1.0, 3.0]
    """
    table = params["table"]
    if x.ndim < 1 or x.shape[-1] != table.shape[1]:
        raise ValueError(
            f"unembed: expected x with {table.shape[1]} features in its last axis, got shape "
            f"{x.shape}; the table is {table.shape}: give it vectors of the size of its rows"
        )
    return by_rows(
        lambda rows: lax.dot_general(rows, table, (((rows.ndim - 1,), (1,)), ((), ()))), x
    )


def learned_positions_init(
    key: PRNGKey, max_length: int, features: int, *, table_init: Initializer = normal(0.02)
) -> Params:
    """Parameters of `learned_positions`: {'table': (max_length, features)}, float32.

    The standard deviation 0.02 is that of GPT-2, BERT and ViT.

    >>> learned_positions_init(jax.random.key(0), 10, 4)['table'].shape
    (10, 4)
    """
    return embedding_init(key, max_length, features, table_init=table_init)


def learned_positions(
    params: Params, length: int, *, start: int | Integer[Array, ""] = 0
) -> Float[Array, "length features"]:
    """The vectors of the positions start, start + 1, ..., start + length - 1, to add to x.

    Args:
      length: number of positions.
      start: the first, at least 0; may be traced, for decoding with a cache.

    Returns: (length, features). A position at or beyond max_length gives a row of NaN where
      `start` is traced.
    Raises: ValueError for positions beyond the table that are known while tracing.
    Source: Gehring et al. 2017, arXiv:1705.03122, section 3.1.

    >>> learned_positions({'table': jnp.array([[1.0], [2.0], [3.0]])}, 2, start=1).tolist()
    [[2.0], [3.0]]
    """
    first = 0 if isinstance(start, jax.Array) else int(start)
    rows = len(params["table"])
    if first < 0 or first + length > rows:
        raise ValueError(
            f"learned_positions: expected positions in [0, {rows}), got {first} to "
            f"{first + length - 1}; shorten the sequences or make the table with a larger "
            "max_length"
        )
    positions = jnp.arange(length, dtype=jnp.int32) + jnp.asarray(start, jnp.int32)
    return embedding(params, positions)


def _angles(positions: Array, features: int, base: Scalar, dtype: Any) -> Array:
    """positions * base^(-2i / features) for each pair i of features: (..., ceil(features / 2))."""
    exponents = -2 * np.arange((features + 1) // 2) / features
    if isinstance(base, (int, float)):  # the powers are taken in float64
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
      positions: p, such as `jnp.arange(length)`; may be fractional, such as diffusion times.
      features: D, at least 1. An odd number drops the last cosine.
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
    """Rotary position embedding: rotates each pair of features by an angle linear in the position.

        a' = a cos(p w_i) - b sin(p w_i),    b' = b cos(p w_i) + a sin(p w_i),
        w_i = base^(-2i/D),    a = x_i,  b = x_(i + D/2)

    The product of a rotated query and a rotated key depends on their relative position alone, and
    rotation keeps norms.

    Args:
      x: queries or keys, (*batch, time, heads, features) with an even number of features.
      positions: p, of shape (time,) or (*batch, time).
      base: positive; may be traced. 10000 in the paper and Llama 1 and 2; 500000 in Llama 3.

    Returns: the shape and dtype of x.
    Raises: ValueError for an odd number of features, and for positions of another shape.
    Source: Su et al. 2021, arXiv:2104.09864, section 3.2. Deviates: feature i is paired with
      feature i + D/2 (halves: Llama weights in Hugging Face, GPT-NeoX), where the paper pairs
      neighbors; to load weights made for neighbors, put the even features before the odd ones.

    >>> [round(y, 3) for y in rope(jnp.array([[[1.0, 0.0]]]), jnp.array([1])).ravel().tolist()]
    [0.54, 0.841]
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
    """The ALiBi slope of each head: 2^(-8/n), 2^(-16/n), ..., 2^-8 for n heads, a power of two.

    For another number of heads, those of the power of two below, then every second one of the
    power of two above.

    Returns: (heads,) float64, on the host.
    Raises: ValueError for fewer than one head.
    Source: Press, Smith & Lewis 2022, arXiv:2108.12409, section 3 and the authors' code.

    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    if heads < 1:
        raise ValueError(
            f"alibi_slopes: expected at least one head, got {heads}; give it 1 or more"
        )
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
    """ALiBi: biases for attention logits that decrease linearly with distance, by head.

        bias_hij = -m_h |i - j|,    m = alibi_slopes(heads)

    Args:
      heads: number of attention heads, at least 1.
      query_positions, key_positions: i and j.

    Returns: (*batch, heads, queries, keys), at most 0; for the scaled logits.
    Raises: ValueError for fewer than one head.
    Source: Press, Smith & Lewis 2022, arXiv:2108.12409, section 3. The paper is causal and has
      j <= i only; later keys (j > i), if not masked, get a bias by their distance too.

    >>> alibi(1, jnp.arange(2), jnp.arange(2)).tolist() == [[[0.0, -1 / 256], [-1 / 256, 0.0]]]
    True
    """
    wide = at_least_float32(dtype)
    queries = query_positions.astype(wide)[..., None, :, None]  # (..., heads, queries, keys)
    keys = key_positions.astype(wide)[..., None, None, :]
    slopes = jnp.asarray(alibi_slopes(heads), wide)[:, None, None]
    slopes = jnp.expand_dims(slopes, tuple(range(queries.ndim - 3)))
    return (-slopes * jnp.abs(queries - keys)).astype(dtype)
