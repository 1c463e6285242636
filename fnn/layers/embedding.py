"""Tables of vectors, read by gathering rows: token embeddings and learned positions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from fnn.dtypes import at_least_float32, indices
from fnn.expect import spec
from fnn.initializers import Initializer, normal
from fnn.keys import fold_name
from fnn.types import Params, PRNGKey
from fnn.xla import by_rows


def unit_rows(
    key: PRNGKey, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "..."]:
    """Normal with variance 1 / features: every row has length 1 on average.

    A tied head then begins with logits of the scale of its input. Flax's default; PyTorch and
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
    """Row ids of the table: a gather, never a product with one-hot vectors.

    Args:
      ids: integers in [0, vocabulary). An id out of range, also a negative one, gives a row of
        NaN: under jit nothing can be raised, and another token's row would be a silent error.

    Returns: (*batch, features) in the dtype of the table. Rows that no id reads have a gradient
      of exactly 0.
    Raises: ValueError for ids that are not integers.

    >>> params = {'table': jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> embedding(params, jnp.array([1, 0, 2])).tolist()
    [[3.0, 4.0], [1.0, 2.0], [nan, nan]]
    """
    expect_ids("embedding", ids)
    table = params["table"]
    # Read in at least float32, so that the gradient, a sum over equal ids, is summed in it.
    rows = table.astype(at_least_float32(table)).at[indices(ids)]
    rows = rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return rows.astype(table.dtype)


def expect_ids(where: str, ids: Any) -> None:
    """Raise for ids that are not integers.

    >>> expect_ids('embedding', jnp.zeros(2))
    Traceback (most recent call last):
        ...
    ValueError: embedding: expected integer ids, got float32[2]; ...
    """
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"{where}: expected integer ids, got {spec(ids)}; "
            "use a linear layer for inputs that are numbers"
        )


def unembed(
    params: Params, x: Float[Array, "*batch features"]
) -> Float[Array, "*batch vocabulary"]:
    """x E^T: how well x fits each row of the table; logits whose weights are those of `embedding`.

    Args:
      params: those of `embedding`. When both use one table, its gradient is the sum of the two.

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
            f"{x.shape}; the table is {table.shape}: give it vectors as long as its rows"
        )
    return by_rows(
        lambda rows: lax.dot_general(rows, table, (((rows.ndim - 1,), (1,)), ((), ()))), x
    )


def learned_positions_init(
    key: PRNGKey, max_length: int, features: int, *, table_init: Initializer = normal(0.02)
) -> Params:
    """Parameters of `learned_positions`: {'table': (max_length, features)}, float32.

    The deviation 0.02 is that of GPT-2, BERT and ViT.

    >>> learned_positions_init(jax.random.key(0), 10, 4)['table'].shape
    (10, 4)
    """
    return embedding_init(key, max_length, features, table_init=table_init)


def learned_positions(
    params: Params, length: int, *, start: int | Integer[Array, ""] = 0
) -> Float[Array, "length features"]:
    """The vectors of the positions start, start + 1, ..., start + length - 1, to add to x.

    Args:
      length: how many positions.
      start: the first one, at least 0; may be traced, for decoding with a cache.

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
