"""Resizing, pixel shuffling and patches of images."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.layers._axes import Size, Sizes, sizes_over
from fnn.layers._window import Padding, extend, make_window, views


def resize_nearest(
    x: Float[Array, "batch *old features"], sizes: Sizes
) -> Float[Array, "batch *new features"]:
    """Entry j of m is entry floor(j n / m) of n, along each window axis.

    Args:
      sizes: of the output, one for each window axis; (224, 224) for images.

    Returns: (batch, *sizes, features).
    Raises: ValueError if `sizes` does not fit the axes of x.
    Source: PyTorch's interpolate(mode='nearest').

    >>> resize_nearest(jnp.array([1.0, 2.0]).reshape(1, 2, 1), (5,)).ravel().tolist()
    [1.0, 1.0, 1.0, 2.0, 2.0]
    """
    new = sizes_over("resize_nearest", "sizes", sizes, x)
    for axis, m in enumerate(new, start=1):
        n = x.shape[axis]
        if m % n == 0:  # repeating is quicker than gathering, backwards above all
            x = jnp.repeat(x, m // n, axis=axis)
        else:
            x = jnp.take(x, np.arange(m) * n // m, axis=axis)
    return x


def resize_linear(
    x: Float[Array, "batch *old features"], sizes: Sizes
) -> Float[Array, "batch *new features"]:
    """Linear interpolation along each window axis: bilinear for images, trilinear for volumes.

    Output j of m lies at (j + 1/2) n / m - 1/2 among the n inputs, kept inside their range: the
    outer edges are aligned, not the centers of the outer entries (align_corners=False).

    Args:
      sizes: of the output, one for each window axis; (224, 224) for images. Smaller ones are
        sampled without smoothing first.

    Returns: (batch, *sizes, features) in the dtype of x, interpolated in at least float32.
    Raises: ValueError if `sizes` does not fit the axes of x.
    Source: PyTorch's interpolate(mode='linear', 'bilinear', 'trilinear', align_corners=False).

    >>> resize_linear(jnp.array([0.0, 4.0]).reshape(1, 2, 1), (4,)).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    new = sizes_over("resize_linear", "sizes", sizes, x)
    return map_axes(x, [_interpolation(n, m) for n, m in zip(x.shape[1:-1], new, strict=True)])


def upsample_nearest(
    x: Float[Array, "batch *old features"], scale: Sizes
) -> Float[Array, "batch *new features"]:
    """Each entry `scale` times along each window axis.

    Args:
      scale: a whole factor for each window axis; (2, 2) for images.

    Returns: (batch, *(sizes * scale), features).
    Raises: ValueError if `scale` does not fit the axes of x.

    >>> upsample_nearest(jnp.array([1.0, 2.0]).reshape(1, 2, 1), (2,)).ravel().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    return resize_nearest(x, _scaled("upsample_nearest", x, scale))


def upsample_linear(
    x: Float[Array, "batch *old features"], scale: Sizes
) -> Float[Array, "batch *new features"]:
    """`resize_linear` by a whole factor along each window axis.

    Args:
      scale: a whole factor for each window axis.

    Returns: (batch, *(sizes * scale), features).
    Raises: ValueError if `scale` does not fit the axes of x.

    >>> upsample_linear(jnp.array([0.0, 4.0]).reshape(1, 2, 1), (2,)).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    return resize_linear(x, _scaled("upsample_linear", x, scale))


def pixel_shuffle(
    x: Float[Array, "batch *old columns"], scale: Sizes
) -> Float[Array, "batch *new features"]:
    """Turn runs of features into blocks of pixels.

    Args:
      x: (batch, *sizes, features * prod(scale)). As in PyTorch, the places in the block vary
        within the run of an output feature: input feature c prod(scale) + place goes to feature c.
      scale: the block's size along each window axis; (2, 2) for images.

    Returns: (batch, *(sizes * scale), features).
    Raises: ValueError if the block does not divide the features.
    Source: Shi et al. 2016, arXiv:1609.05158, equation 4. `unpatchify` has the other order, with
      the features of a place together.

    >>> pixel_shuffle(jnp.array([[[1.0, 2.0]]]), (2,)).tolist()
    [[[1.0], [2.0]]]
    """
    block = sizes_over("pixel_shuffle", "scale", scale, x)
    size = math.prod(block)
    if x.shape[-1] % size:
        raise ValueError(
            f"pixel_shuffle: expected a number of features that {size} divides, got x of shape "
            f"{x.shape}; give {size} features for each one of the output"
        )
    by_feature = x.reshape(*x.shape[:-1], x.shape[-1] // size, size)
    return unpatchify(jnp.swapaxes(by_feature, -1, -2).reshape(x.shape), block)


def pixel_unshuffle(
    x: Float[Array, "batch *old features"], scale: Sizes
) -> Float[Array, "batch *new columns"]:
    """Turn blocks of pixels into runs of features: the inverse of `pixel_shuffle`.

    Args:
      scale: the block's size along each window axis; divides the sizes of x.

    Returns: (batch, *(sizes / scale), features * prod(scale)).
    Raises: ValueError if the block does not divide x.

    >>> pixel_unshuffle(jnp.array([[[1.0], [2.0]]]), (2,)).tolist()
    [[[1.0, 2.0]]]
    """
    block = sizes_over("pixel_unshuffle", "scale", scale, x)
    tiles = patchify(x, block)
    by_place = tiles.reshape(*tiles.shape[:-1], math.prod(block), x.shape[-1])
    return jnp.swapaxes(by_place, -1, -2).reshape(tiles.shape)


def map_axes(x: Array, matrices: Sequence[np.ndarray]) -> Array:
    """x multiplied along each window axis by a matrix (old, new), in at least float32.

    Products, because they are quick backwards too, where a gather becomes a scatter.

    >>> map_axes(jnp.array([1.0, 2.0]).reshape(1, 2, 1), [np.ones((2, 1))]).tolist()
    [[[3.0]]]
    """
    y = x.astype(at_least_float32(x))
    for axis, matrix in enumerate(matrices, start=1):
        weights = jnp.asarray(matrix, y.dtype)
        product = jnp.tensordot(y, weights, ((axis,), (0,)), precision=lax.Precision.HIGHEST)
        y = jnp.moveaxis(product, -1, axis)
    return y.astype(x.dtype)


def _interpolation(n: int, m: int) -> np.ndarray:
    """The (n, m) matrix that takes n entries to m between them."""
    place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    distance = np.abs(np.arange(n)[:, None] - place)
    return np.maximum(1 - distance, 0)


def _scaled(where: str, x: Array, scale: Sizes) -> tuple[int, ...]:
    factors = sizes_over(where, "scale", scale, x)
    return tuple(n * factor for n, factor in zip(x.shape[1:-1], factors, strict=True))


def patches(
    x: Float[Array, "batch *sizes features"],
    window: Sizes,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding | Sequence[tuple[int, int]] = Padding.VALID,
) -> Float[Array, "batch *places columns"]:
    """What the window sees at each place, as one row of features (unfold, im2col).

        y[b, p, (t, i)] = x[b, stride p + dilation t - before, i]

    Args:
      window: its size along each window axis; (3, 3) for images.
      stride, dilation, padding: as in `conv`.

    Returns: (batch, *places, prod(window) * features), the window's places in row-major order and
      the features of a place together. A convolution is a linear layer over these rows.
    Raises: ValueError as `conv` does.

    >>> patches(jnp.arange(4.0).reshape(1, 4, 1), (2,)).tolist()
    [[[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]]
    """
    sliding = make_window("patches", x, window, stride, dilation)
    x, pairs = extend("patches", x, sliding, padding)
    edges = [(0, 0, 0), *((before, after, 0) for before, after in pairs), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
    return jnp.concatenate(list(views(padded, sliding)), axis=-1)


def patchify(
    x: Float[Array, "batch *sizes features"], window: Sizes
) -> Float[Array, "batch *tiles columns"]:
    """Cut x into tiles and lay out each as one row of features.

    Args:
      window: the size of a tile along each window axis; divides the sizes of x.

    Returns: (batch, *tiles, prod(window) * features), in the order of `patches`. The tiles keep
      their grid; merge its axes for a sequence of tokens.
    Raises: ValueError if a tile does not divide x.
    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1.

    >>> patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), (2, 2)).tolist()
    [[[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]]
    """
    tile = sizes_over("patchify", "window", window, x)
    axes, sizes = len(tile), x.shape[1:-1]
    if any(n % size for n, size in zip(sizes, tile, strict=True)):
        raise ValueError(
            f"patchify: expected sizes that the tile {tile} divides, got {sizes}; pad or crop x "
            "first"
        )
    pairs = [m for n, size in zip(sizes, tile, strict=True) for m in (n // size, size)]
    split = x.reshape(x.shape[0], *pairs, x.shape[-1])
    grid, inside = range(1, 2 * axes + 1, 2), range(2, 2 * axes + 1, 2)
    ordered = split.transpose(0, *grid, *inside, 2 * axes + 1)
    return lax.collapse(ordered, axes + 1)


def unpatchify(
    x: Float[Array, "batch *tiles columns"], window: Sizes
) -> Float[Array, "batch *sizes features"]:
    """Put tiles together again: the inverse of `patchify`.

    Args:
      x: (batch, *tiles, prod(window) * features), with the grid of the tiles as its axes.

    Returns: (batch, *(tiles * window), features).
    Raises: ValueError if the tile does not divide the last axis of x.

    >>> x = jnp.arange(48.0).reshape(1, 4, 6, 2)
    >>> bool((unpatchify(patchify(x, (2, 3)), (2, 3)) == x).all())
    True
    """
    tile = sizes_over("unpatchify", "window", window, x)
    axes = len(tile)
    if x.shape[-1] % math.prod(tile):
        raise ValueError(
            f"unpatchify: expected a number of features that {math.prod(tile)} divides, got x of "
            f"shape {x.shape}; give the tiles' size and put a tile's row last"
        )
    features = x.shape[-1] // math.prod(tile)
    split = x.reshape(*x.shape[:-1], *tile, features)
    order = [axis for i in range(1, axes + 1) for axis in (i, i + axes)]
    ordered = split.transpose(0, *order, 2 * axes + 1)
    sizes = [n * size for n, size in zip(x.shape[1:-1], tile, strict=True)]
    return ordered.reshape(x.shape[0], *sizes, features)
