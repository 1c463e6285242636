"""Patches: what a window sees at each place, and the cutting of images into tiles."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.layers.axes import Size, Sizes, sizes_over
from fnn.layers.window import Padding, extend, make_window, views


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
