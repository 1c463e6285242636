"""Pooling."""

from fnn import layers
from fnn.layers._axes import Size, Sizes
from fnn.layers._window import Padding
from fnn.nn._base import lift
from fnn.types import Model


def max_pool(
    kernel_size: Sizes, *, stride: Size | None = None, padding: Padding = "VALID"
) -> Model:
    """The maximum of each window; see `layers.max_pool`.

    >>> max_pool((2, 2)).apply({}, (), jnp.zeros((1, 8, 6, 3)))[0].shape
    (1, 4, 3, 3)
    """
    return lift(lambda x: layers.max_pool(x, kernel_size, stride=stride, padding=padding))


def average_pool(
    kernel_size: Sizes, *, stride: Size | None = None, padding: Padding = "VALID"
) -> Model:
    """The average of each window; see `layers.average_pool`.

    >>> average_pool((2, 2)).apply({}, (), jnp.zeros((1, 8, 6, 3)))[0].shape
    (1, 4, 3, 3)
    """
    return lift(lambda x: layers.average_pool(x, kernel_size, stride=stride, padding=padding))


def sum_pool(
    kernel_size: Sizes, *, stride: Size | None = None, padding: Padding = "VALID"
) -> Model:
    """The sum of each window; see `layers.sum_pool`.

    >>> sum_pool((2,)).apply({}, (), jnp.ones((1, 2, 1)))[0].tolist()
    [[[2.0]]]
    """
    return lift(lambda x: layers.sum_pool(x, kernel_size, stride=stride, padding=padding))


def global_max_pool(*, ndim: int | None = None) -> Model:
    """(batch, *sizes, features) to (batch, features); see `layers.global_max_pool`.

    >>> global_max_pool().apply({}, (), jnp.zeros((2, 8, 6, 3)))[0].shape
    (2, 3)
    """
    return lift(lambda x: layers.global_max_pool(x, ndim=ndim))


def global_average_pool(*, ndim: int | None = None) -> Model:
    """(batch, *sizes, features) to (batch, features); see `layers.global_average_pool`.

    >>> global_average_pool().apply({}, (), jnp.zeros((2, 8, 6, 3)))[0].shape
    (2, 3)
    """
    return lift(lambda x: layers.global_average_pool(x, ndim=ndim))


def adaptive_max_pool(output_size: Sizes) -> Model:
    """Maxima over `output_size` windows along each axis; see `layers.adaptive_max_pool`.

    >>> adaptive_max_pool((2, 2)).apply({}, (), jnp.zeros((1, 7, 5, 3)))[0].shape
    (1, 2, 2, 3)
    """
    return lift(lambda x: layers.adaptive_max_pool(x, output_size))


def adaptive_average_pool(output_size: Sizes) -> Model:
    """Averages over `output_size` windows along each axis; see `layers.adaptive_average_pool`.

    >>> adaptive_average_pool((2, 2)).apply({}, (), jnp.zeros((1, 7, 5, 3)))[0].shape
    (1, 2, 2, 3)
    """
    return lift(lambda x: layers.adaptive_average_pool(x, output_size))
