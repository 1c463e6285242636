"""Resizing, pixel shuffling and patches."""

from fnn import layers
from fnn.layers._axes import Sizes
from fnn.nn._base import lift
from fnn.types import Model


def resize_nearest(sizes: Sizes) -> Model:
    """Nearest-neighbor resizing to `sizes`; see `layers.resize_nearest`.

    >>> resize_nearest((6, 6)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 6, 6, 3)
    """
    return lift(lambda x: layers.resize_nearest(x, sizes))


def resize_linear(sizes: Sizes) -> Model:
    """Linear interpolation to `sizes`; see `layers.resize_linear`.

    >>> resize_linear((6, 6)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 6, 6, 3)
    """
    return lift(lambda x: layers.resize_linear(x, sizes))


def upsample_nearest(scale: Sizes) -> Model:
    """Repeats each entry `scale` times; see `layers.upsample_nearest`.

    >>> upsample_nearest((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 8, 16, 3)
    """
    return lift(lambda x: layers.upsample_nearest(x, scale))


def upsample_linear(scale: Sizes) -> Model:
    """Linear interpolation to `scale` times the sizes; see `layers.upsample_linear`.

    >>> upsample_linear((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 8, 16, 3)
    """
    return lift(lambda x: layers.upsample_linear(x, scale))


def pixel_shuffle(scale: Sizes) -> Model:
    """Groups of features to blocks of pixels; see `layers.pixel_shuffle`.

    >>> pixel_shuffle((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 12)))[0].shape
    (1, 8, 16, 3)
    """
    return lift(lambda x: layers.pixel_shuffle(x, scale))


def pixel_unshuffle(scale: Sizes) -> Model:
    """Blocks of pixels to groups of features; see `layers.pixel_unshuffle`.

    >>> pixel_unshuffle((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 2, 4, 12)
    """
    return lift(lambda x: layers.pixel_unshuffle(x, scale))


def patchify(patch_size: Sizes) -> Model:
    """Patches as rows of features; see `layers.patchify`.

    >>> patchify((2, 2)).apply({}, (), jnp.zeros((1, 4, 8, 3)))[0].shape
    (1, 2, 4, 12)
    """
    return lift(lambda x: layers.patchify(x, patch_size))


def unpatchify(patch_size: Sizes) -> Model:
    """Rows of features to patches; see `layers.unpatchify`.

    >>> unpatchify((2, 2)).apply({}, (), jnp.zeros((1, 2, 4, 12)))[0].shape
    (1, 4, 8, 3)
    """
    return lift(lambda x: layers.unpatchify(x, patch_size))
