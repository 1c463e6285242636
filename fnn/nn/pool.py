"""Pooling as models without parameters."""

from collections.abc import Sequence

from fnn import layers
from fnn.layers._axes import Size, Sizes, stated
from fnn.layers._window import Padding
from fnn.nn._base import lift
from fnn.types import Model


def max_pool(
    window: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Model:
    """The largest entry of each window, as a model; see `layers.max_pool`.

    >>> max_pool((2, 2)).apply({}, (), jnp.zeros((1, 8, 6, 3)))[0].shape
    (1, 4, 3, 3)
    """
    window = stated("max_pool", "window", window)
    return lift(lambda x: layers.max_pool(x, window, stride=stride, padding=padding))


def average_pool(
    window: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Model:
    """The average of each window, as a model; see `layers.average_pool`.

    >>> average_pool((2, 2)).apply({}, (), jnp.zeros((1, 8, 6, 3)))[0].shape
    (1, 4, 3, 3)
    """
    window = stated("average_pool", "window", window)
    return lift(lambda x: layers.average_pool(x, window, stride=stride, padding=padding))


def sum_pool(
    window: Sizes,
    *,
    stride: Size | None = None,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Model:
    """The sum of each window, as a model; see `layers.sum_pool`.

    >>> sum_pool((2,)).apply({}, (), jnp.ones((1, 2, 1)))[0].tolist()
    [[[2.0]]]
    """
    window = stated("sum_pool", "window", window)
    return lift(lambda x: layers.sum_pool(x, window, stride=stride, padding=padding))


def global_max_pool(*, ndim: int | None = None) -> Model:
    """(batch, *sizes, features) to (batch, features); see `layers.global_max_pool`.

    Args:
      ndim: how many axes there are to pool over, 2 for images; None takes any number.

    >>> global_max_pool().apply({}, (), jnp.zeros((2, 8, 6, 3)))[0].shape
    (2, 3)
    """
    return lift(lambda x: layers.global_max_pool(x, ndim=ndim))


def global_average_pool(*, ndim: int | None = None) -> Model:
    """(batch, *sizes, features) to (batch, features); see `layers.global_average_pool`.

    Args:
      ndim: how many axes there are to pool over, 2 for images; None takes any number.

    >>> global_average_pool().apply({}, (), jnp.zeros((2, 8, 6, 3)))[0].shape
    (2, 3)
    """
    return lift(lambda x: layers.global_average_pool(x, ndim=ndim))


def adaptive_max_pool(places: Sizes) -> Model:
    """Maxima over `places` windows along each axis; see `layers.adaptive_max_pool`.

    >>> adaptive_max_pool((2, 2)).apply({}, (), jnp.zeros((1, 7, 5, 3)))[0].shape
    (1, 2, 2, 3)
    """
    places = stated("adaptive_max_pool", "places", places)
    return lift(lambda x: layers.adaptive_max_pool(x, places))


def adaptive_average_pool(places: Sizes) -> Model:
    """Averages over `places` windows along each axis; see `layers.adaptive_average_pool`.

    >>> adaptive_average_pool((2, 2)).apply({}, (), jnp.zeros((1, 7, 5, 3)))[0].shape
    (1, 2, 2, 3)
    """
    places = stated("adaptive_average_pool", "places", places)
    return lift(lambda x: layers.adaptive_average_pool(x, places))
