"""Resizing, shuffling and cutting into patches, as models without parameters."""

from collections.abc import Callable

from jaxtyping import Array

from fnn import layers
from fnn.layers._axes import Sizes, stated
from fnn.nn._base import lift
from fnn.types import Model


def resize_nearest(sizes: Sizes) -> Model:
    """The nearest entries, as many as `sizes`; see `layers.resize_nearest`.

    >>> resize_nearest((6, 6)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 6, 6, 3)
    """
    return _over("sizes", layers.resize_nearest, sizes)


def resize_linear(sizes: Sizes) -> Model:
    """Linear interpolation to `sizes`; see `layers.resize_linear`.

    >>> resize_linear((6, 6)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 6, 6, 3)
    """
    return _over("sizes", layers.resize_linear, sizes)


def upsample_nearest(scale: Sizes) -> Model:
    """Each entry `scale` times; see `layers.upsample_nearest`.

    >>> upsample_nearest((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 8, 16, 3)
    """
    return _over("scale", layers.upsample_nearest, scale)


def upsample_linear(scale: Sizes) -> Model:
    """Linear interpolation to `scale` times the sizes; see `layers.upsample_linear`.

    >>> upsample_linear((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 8, 16, 3)
    """
    return _over("scale", layers.upsample_linear, scale)


def pixel_shuffle(scale: Sizes) -> Model:
    """Runs of features to blocks of pixels; see `layers.pixel_shuffle`.

    >>> pixel_shuffle((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 12)))[0].shape
    (1, 8, 16, 3)
    """
    return _over("scale", layers.pixel_shuffle, scale)


def pixel_unshuffle(scale: Sizes) -> Model:
    """Blocks of pixels to runs of features; see `layers.pixel_unshuffle`.

    >>> pixel_unshuffle((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 2, 4, 12)
    """
    return _over("scale", layers.pixel_unshuffle, scale)


def patchify(window: Sizes) -> Model:
    """Tiles as rows of features; see `layers.patchify`.

    >>> patchify((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 2, 4, 12)
    """
    return _over("window", layers.patchify, window)


def unpatchify(window: Sizes) -> Model:
    """Rows of features back to tiles; see `layers.unpatchify`.

    >>> unpatchify((2, 2)).apply({}, (), jnp.zeros((1, 2, 4, 12)))[0].shape
    (1, 4, 8, 3)
    """
    return _over("window", layers.unpatchify, window)


def _over(name: str, function: Callable[..., Array], sizes: Sizes) -> Model:
    given = stated(function.__name__, name, sizes)
    return lift(lambda x: function(x, given))
