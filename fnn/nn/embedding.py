"""Embeddings of ids and of positions."""

from typing import Any

import jax.numpy as jnp

from fnn import layers
from fnn.expect import expect_floats, within
from fnn.initializers import Initializer, normal
from fnn.layers.embedding import expect_ids, unit_rows
from fnn.layers.linear import plus_row
from fnn.nn._base import stateless
from fnn.types import Model, Params, PRNGKey, Scalar


def embedding(vocabulary: int, features: int, *, table_init: Initializer = unit_rows) -> Model:
    """A row of a table for each id; see `layers.embedding`.

    Args:
      vocabulary: number of rows; ids are in [0, vocabulary), and others give NaN.
      features: size of each row.

    Apply takes integers (batch, ...) and returns (batch, ..., features).
    Raises: ValueError for ids that are not integers.

    >>> model = embedding(10, 4)
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((2, 3), int))
    >>> model.apply(params, (), jnp.zeros((2, 3), int))[0].shape
    (2, 3, 4)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        expect_ids("embedding", x)
        return layers.embedding_init(key, vocabulary, features, table_init=table_init)

    return stateless(init, layers.embedding)


def learned_positions(max_length: int, *, table_init: Initializer = normal(0.02)) -> Model:
    """x plus a learned vector for each position; see `layers.learned_positions`.

    Apply takes and returns x (batch, time, features).
    Raises: ValueError for sequences longer than max_length.

    >>> params, _ = learned_positions(10).init(jax.random.key(0), jnp.zeros((2, 3, 4)))
    >>> params['table'].shape
    (10, 4)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        features = expect_sequences("learned_positions", x)
        return layers.learned_positions_init(key, max_length, features, table_init=table_init)

    def apply(params: Params, x: Any) -> Any:
        expect_floats("learned_positions", x)
        return plus_row(x, layers.learned_positions(params, x.shape[1]))

    return stateless(init, apply)


@within(base="(0, inf)")
def sinusoidal_positions(*, base: Scalar = 10000.0) -> Model:
    """x plus sines and cosines of each position; see `layers.sinusoidal_positions`.

    Apply takes and returns x (batch, time, features).

    Args:
      base: positive; may be traced.

    >>> sinusoidal_positions().apply({}, (), jnp.zeros((1, 1, 4)))[0].tolist()
    [[[0.0, 1.0, 0.0, 1.0]]]
    """

    def init(key: PRNGKey, x: Any) -> Params:
        expect_sequences("sinusoidal_positions", x)
        return {}

    def apply(params: Params, x: Any) -> Any:
        expect_floats("sinusoidal_positions", x)
        positions = jnp.arange(x.shape[1], dtype=jnp.int32)
        y = layers.sinusoidal_positions(positions, x.shape[2], base=base, dtype=x.dtype)
        return x + y[None]

    return stateless(init, apply)


def expect_sequences(where: str, x: Any) -> int:
    """Check that x has the shape (batch, time, features); returns its features."""
    if len(x.shape) != 3:
        raise ValueError(
            f"{where}: expected x of shape (batch, time, features), got {x.shape}; "
            "put an embedding in front, or add the missing axis"
        )
    return x.shape[-1]
