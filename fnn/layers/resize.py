"""Resizing, pixel shuffling and patches."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.layers._axes import Size, Sizes, sizes_for
from fnn.layers._window import Padding, make_window, pad_copies, pad_with, window_slices


def resize_nearest(
    x: Float[Array, "batch *old features"], sizes: Sizes
) -> Float[Array, "batch *new features"]:
    """Nearest-neighbor resizing: entry j of m is entry floor(j n / m) of n, along each axis.

    Args:
      sizes: of the output, one for each window axis; (224, 224) for images.

    Returns: (batch, *sizes, features).
    Raises: ValueError if `sizes` does not fit the axes of x.
    Source: PyTorch's interpolate(mode='nearest').

    >>> resize_nearest(jnp.array([1.0, 2.0]).reshape(1, 2, 1), (5,)).ravel().tolist()
    [1.0, 1.0, 1.0, 2.0, 2.0]
    """
    new = sizes_for("resize_nearest", sizes, x)
    for axis, m in enumerate(new, start=1):
        n = x.shape[axis]
        if m % n == 0:  # faster than a gather, in the backward pass above all
            x = jnp.repeat(x, m // n, axis=axis)
        else:
            x = jnp.take(x, np.arange(m) * n // m, axis=axis)
    return x


def resize_linear(
    x: Float[Array, "batch *old features"], sizes: Sizes
) -> Float[Array, "batch *new features"]:
    """Linear interpolation along each window axis: bilinear for images, trilinear for volumes.

    Output j of m lies at (j + 1/2) n / m - 1/2 among the n inputs, clipped to their range: the
    outer edges are aligned, not the centers of the outer entries (align_corners=False).

    Args:
      sizes: of the output, one for each window axis; (224, 224) for images. Downsampling is
        not antialiased.

    Returns: (batch, *sizes, features) in the dtype of x, interpolated in at least float32.
    Raises: ValueError if `sizes` does not fit the axes of x.
    Source: PyTorch's interpolate(mode='linear', 'bilinear', 'trilinear', align_corners=False).

    >>> resize_linear(jnp.array([0.0, 4.0]).reshape(1, 2, 1), (4,)).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    new = sizes_for("resize_linear", sizes, x)
    return map_axes(x, [_interpolation(n, m) for n, m in zip(x.shape[1:-1], new, strict=True)])


def upsample_nearest(
    x: Float[Array, "batch *old features"], scale: Sizes
) -> Float[Array, "batch *new features"]:
    """Repeats each entry `scale` times along each window axis.

    Args:
      scale: an integer factor for each window axis; (2, 2) for images.

    Returns: (batch, *(sizes * scale), features).
    Raises: ValueError if `scale` does not fit the axes of x.

    >>> upsample_nearest(jnp.array([1.0, 2.0]).reshape(1, 2, 1), (2,)).ravel().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    return resize_nearest(x, _scaled("upsample_nearest", x, scale))


def upsample_linear(
    x: Float[Array, "batch *old features"], scale: Sizes
) -> Float[Array, "batch *new features"]:
    """`resize_linear` by an integer factor along each window axis.

    Args:
      scale: an integer factor for each window axis; (2, 2) for images.

    Returns: (batch, *(sizes * scale), features).
    Raises: ValueError if `scale` does not fit the axes of x.

    >>> upsample_linear(jnp.array([0.0, 4.0]).reshape(1, 2, 1), (2,)).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    return resize_linear(x, _scaled("upsample_linear", x, scale))


def pixel_shuffle(
    x: Float[Array, "batch *old columns"], scale: Sizes
) -> Float[Array, "batch *new features"]:
    """Rearranges groups of features into blocks of pixels (depth to space).

    Args:
      x: (batch, *sizes, features * prod(scale)). As in PyTorch, the index in the block varies
        fastest: input feature c prod(scale) + index goes to output feature c.
      scale: size of the block along each window axis; (2, 2) for images.

    Returns: (batch, *(sizes * scale), features).
    Raises: ValueError if the block does not divide the features.
    Source: Shi et al. 2016, arXiv:1609.05158, equation 4. `unpatchify` has the other order, in
      which the feature varies fastest.

    >>> pixel_shuffle(jnp.array([[[1.0, 2.0]]]), (2,)).tolist()
    [[[1.0], [2.0]]]
    """
    block = sizes_for("pixel_shuffle", scale, x)
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
    """Rearranges blocks of pixels into groups of features: the inverse of `pixel_shuffle`.

    Args:
      scale: size of the block along each window axis; divides the sizes of x.

    Returns: (batch, *(sizes / scale), features * prod(scale)).
    Raises: ValueError if the block does not divide x.

    >>> pixel_unshuffle(jnp.array([[[1.0], [2.0]]]), (2,)).tolist()
    [[[1.0, 2.0]]]
    """
    block = sizes_for("pixel_unshuffle", scale, x)
    rows = patchify(x, block)
    by_index = rows.reshape(*rows.shape[:-1], math.prod(block), x.shape[-1])
    return jnp.swapaxes(by_index, -1, -2).reshape(rows.shape)


def map_axes(x: Array, matrices: Sequence[np.ndarray]) -> Array:
    """x multiplied along each window axis by a matrix (old, new), in at least float32."""
    # Products are fast in the backward pass too, where a gather becomes a scatter.
    y = x.astype(at_least_float32(x))
    for axis, matrix in enumerate(matrices, start=1):
        weights = jnp.asarray(matrix, y.dtype)
        product = jnp.tensordot(y, weights, ((axis,), (0,)), precision=lax.Precision.HIGHEST)
        y = jnp.moveaxis(product, -1, axis)
    return y.astype(x.dtype)


def _interpolation(n: int, m: int) -> np.ndarray:
    """The (n, m) matrix of linear interpolation from n entries to m."""
    position = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    distance = np.abs(np.arange(n)[:, None] - position)
    return np.maximum(1 - distance, 0)


def _scaled(where: str, x: Array, scale: Sizes) -> tuple[int, ...]:
    factors = sizes_for(where, scale, x)
    return tuple(n * factor for n, factor in zip(x.shape[1:-1], factors, strict=True))


def patches(
    x: Float[Array, "batch *sizes features"],
    kernel_size: Sizes,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    padding: Padding = "VALID",
) -> Float[Array, "batch *out_sizes columns"]:
    """The entries of each window as one row of features (unfold, im2col).

        y[b, p, (t, i)] = x[b, stride p + dilation t - before, i]

    Args:
      kernel_size: of the window, along each window axis; (3, 3) for images.
      stride, dilation, padding: as in `conv`.

    Returns: (batch, *out_sizes, prod(kernel_size) * features), the entries of the window in
      row-major order, the feature varying fastest. A convolution is a linear layer over these rows.
    Raises: ValueError as `conv` does.

    >>> patches(jnp.arange(4.0).reshape(1, 4, 1), (2,)).tolist()
    [[[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]]
    """
    window = make_window("patches", x, kernel_size, stride, dilation)
    x, pairs = pad_copies("patches", x, window, padding)
    return jnp.concatenate(list(window_slices(pad_with(x, pairs), window)), axis=-1)


def patchify(
    x: Float[Array, "batch *sizes features"], patch_size: Sizes
) -> Float[Array, "batch *grid columns"]:
    """Cuts x into patches and flattens each to one row of features.

    Args:
      patch_size: along each window axis; divides the sizes of x.

    Returns: (batch, *grid, prod(patch_size) * features), in the order of `patches`; merge the axes
      of the grid for a sequence of tokens.
    Raises: ValueError if a patch does not divide x.
    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1.

    >>> patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), (2, 2)).tolist()
    [[[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]]
    """
    patch = sizes_for("patchify", patch_size, x)
    axes, sizes = len(patch), x.shape[1:-1]
    if any(n % size for n, size in zip(sizes, patch, strict=True)):
        raise ValueError(
            f"patchify: expected sizes that the patch {patch} divides, got {sizes}; pad or crop x "
            "first"
        )
    pairs = [m for n, size in zip(sizes, patch, strict=True) for m in (n // size, size)]
    split = x.reshape(x.shape[0], *pairs, x.shape[-1])
    grid, inside = range(1, 2 * axes + 1, 2), range(2, 2 * axes + 1, 2)
    ordered = split.transpose(0, *grid, *inside, 2 * axes + 1)
    return lax.collapse(ordered, axes + 1)


def unpatchify(
    x: Float[Array, "batch *grid columns"], patch_size: Sizes
) -> Float[Array, "batch *sizes features"]:
    """Assembles patches: the inverse of `patchify`.

    Args:
      x: (batch, *grid, prod(patch_size) * features).

    Returns: (batch, *(grid * patch_size), features).
    Raises: ValueError if the patch does not divide the last axis of x.

    >>> x = jnp.arange(48.0).reshape(1, 4, 6, 2)
    >>> bool((unpatchify(patchify(x, (2, 3)), (2, 3)) == x).all())
    True
    """
    patch = sizes_for("unpatchify", patch_size, x)
    axes = len(patch)
    if x.shape[-1] % math.prod(patch):
        raise ValueError(
            f"unpatchify: expected a number of features that {math.prod(patch)} divides, got x of "
            f"shape {x.shape}; give the size of the patches, each a row of the last axis"
        )
    features = x.shape[-1] // math.prod(patch)
    split = x.reshape(*x.shape[:-1], *patch, features)
    order = [axis for i in range(1, axes + 1) for axis in (i, i + axes)]
    ordered = split.transpose(0, *order, 2 * axes + 1)
    sizes = [n * size for n, size in zip(x.shape[1:-1], patch, strict=True)]
    return ordered.reshape(x.shape[0], *sizes, features)
