"""Resizing, shuffling and cutting into patches, as models without parameters."""

from fnn import layers
from fnn.combinators import lift
from fnn.layers.window import Size
from fnn.types import Model


def resize_nearest(sizes: Size) -> Model:
    """The nearest entries, as many as `sizes`; see `layers.resize_nearest`.

    >>> resize_nearest(6).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 6, 6, 3)
    """
    return lift(lambda x: layers.resize_nearest(x, sizes))


def resize_linear(sizes: Size) -> Model:
    """Linear interpolation to `sizes`; see `layers.resize_linear`.

    >>> resize_linear(6).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 6, 6, 3)
    """
    return lift(lambda x: layers.resize_linear(x, sizes))


def upsample_nearest(scale: Size) -> Model:
    """Each entry `scale` times; see `layers.upsample_nearest`.

    >>> upsample_nearest(2).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 8, 16, 3)
    """
    return lift(lambda x: layers.upsample_nearest(x, scale))


def upsample_linear(scale: Size) -> Model:
    """Linear interpolation to `scale` times the sizes; see `layers.upsample_linear`.

    >>> upsample_linear(2).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 8, 16, 3)
    """
    return lift(lambda x: layers.upsample_linear(x, scale))


def pixel_shuffle(scale: Size) -> Model:
    """Runs of features to blocks of pixels; see `layers.pixel_shuffle`.

    >>> pixel_shuffle(2).apply({}, (), jnp.zeros((1, 4, 8, 12)))[0].shape
    (1, 8, 16, 3)
    """
    return lift(lambda x: layers.pixel_shuffle(x, scale))


def pixel_unshuffle(scale: Size) -> Model:
    """Blocks of pixels to runs of features; see `layers.pixel_unshuffle`.

    >>> pixel_unshuffle(2).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 2, 4, 12)
    """
    return lift(lambda x: layers.pixel_unshuffle(x, scale))


def patchify(window: Size) -> Model:
    """Tiles as rows of features; see `layers.patchify`.

    >>> patchify(2).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 2, 4, 12)
    """
    return lift(lambda x: layers.patchify(x, window))


def unpatchify(window: Size) -> Model:
    """Rows of features back to tiles; see `layers.unpatchify`.

    >>> unpatchify(2).apply({}, (), jnp.zeros((1, 2, 4, 12)))[0].shape
    (1, 4, 8, 3)
    """
    return lift(lambda x: layers.unpatchify(x, window))
