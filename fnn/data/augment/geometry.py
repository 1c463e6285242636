"""Geometric augmentations of an image (height, width, channels): flips, crops, affine maps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import dtypes
from fnn.data.augment._base import (
    Augment,
    Image,
    bernoulli,
    expect_image,
    log_uniform,
    round_like,
    symmetric,
)
from fnn.expect import within
from fnn.types import PRNGKey, Scalar


@within(rate="[0, 1]")
def flip(rate: Scalar = 0.5) -> Augment:
    """Horizontal flip with a probability.

    Args:
      rate: probability in [0, 1]; may be traced.

    >>> flip(1.0)(jax.random.key(0), jnp.array([[[1], [2]]])).ravel().tolist()
    [2, 1]
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("flip", x)
        return jnp.where(bernoulli(key, rate), x[:, ::-1], x)

    return augment


def alternating_flip(x: Image, index: Int[Array, ""] | int, epoch: Int[Array, ""] | int) -> Image:
    """Horizontal flip in every other epoch, so two epochs show both orientations of each image.

    A hash of the index decides which half of the images is flipped first. For a batch use
    `jax.vmap(alternating_flip, (0, 0, None))`.

    Args:
      index: of the example in the data.
      epoch: counted from 0.

    Source: Jordan 2024, arXiv:2404.00498, section 3.6.

    >>> x = jnp.array([[[1], [2]]])
    >>> a, b = (alternating_flip(x, 5, epoch).ravel().tolist() for epoch in (0, 1))
    >>> sorted([a, b])
    [[1, 2], [2, 1]]
    """
    expect_image("alternating_flip", x)
    mixed = jnp.asarray(index).astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    parity = (mixed >> jnp.uint32(31)) + jnp.asarray(epoch).astype(jnp.uint32)
    return jnp.where(parity % jnp.uint32(2) == 1, x[:, ::-1], x)


def crop(padding: int, *, reflect: bool = False) -> Augment:
    """Random crop of the padded image, to the size of the image.

    Args:
      padding: pixels on each side, at least 0.
      reflect: pad by reflection instead of zeros.

    Raises: ValueError for a negative padding, or a reflection larger than the image.

    >>> crop(1)(jax.random.key(0), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("crop", x)
        if reflect and padding >= min(x.shape[:2]):
            raise ValueError(
                f"crop: expected a padding below the size {x.shape[:2]}, got {padding}; pad less"
            )
        edges = ((padding, padding), (padding, padding), (0, 0))
        padded = jnp.pad(x, edges, mode="reflect" if reflect else "constant")
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), x.shape)

    return augment


def rotate(degrees: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """Rotation about the center by an angle from U[-degrees, degrees]; see `affine`.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> bool((rotate(0.0)(jax.random.key(0), x) == x).all())
    True
    """
    return affine(degrees=degrees, fill=fill)


def affine(
    *,
    degrees: Scalar = 0.0,
    shift: Scalar = 0.0,
    scale: Scalar = 0.0,
    shear: Scalar = 0.0,
    fill: Scalar = 0.0,
) -> Augment:
    """Random rotation, translation, scaling and shear about the center, with bilinear sampling.

    Args:
      degrees: largest angle of rotation, in either direction.
      shift: largest translation, as a fraction of the height and of the width.
      scale: largest change of size: factors from 1 / (1 + scale) to 1 + scale, uniform in their
        logarithm.
      shear: largest angle of shear, in degrees.
      fill: value outside of the image.

    All may be traced. With all strengths 0 the image is bitwise unchanged.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> affine(degrees=30.0, shift=0.1, scale=0.2, shear=10.0)(jax.random.key(0), x).shape
    (3, 3, 1)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("affine", x)
        keys = jax.random.split(key, 5)
        angle = jnp.deg2rad(symmetric(keys[0], degrees))
        slant = jnp.deg2rad(symmetric(keys[1], shear))
        factor = log_uniform(keys[2], scale)
        offsets = [n * symmetric(k, shift) for k, n in zip(keys[3:], x.shape[:2], strict=True)]
        slope = jnp.array([[1.0, 0.0], [jnp.tan(slant), 1.0]])
        return warp(x, rotation(angle) @ slope / factor, -jnp.stack(offsets), fill=fill)

    return augment


def rotation(angle: Float[Array, ""]) -> Float[Array, "2 2"]:
    """The matrix of a rotation by an angle in radians."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[c, -s], [s, c]])


def warp(
    x: Image, matrix: Float[Array, "2 2"], offset: Float[Array, "2"], *, fill: Scalar = 0.0
) -> Image:
    """Affine resampling: the pixel at p, from the center, is that of x at `matrix @ p + offset`.

    Bilinear; differentiable with respect to matrix and offset.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> warp(x, jnp.eye(2), jnp.array([1.0, 0.0]))[..., 0].tolist()   # shifts up by one row
    [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [0.0, 0.0, 0.0]]
    """
    expect_image("warp", x)
    height, width = x.shape[:2]
    center = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    grid = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    points = jnp.stack(grid, axis=-1).astype(jnp.float32) - center[None, None]
    source = points @ matrix.T + (offset + center)[None, None]
    low = jnp.floor(source)
    part = source - low
    y = jnp.zeros(x.shape, dtypes.wide(x).dtype)
    for down in (0, 1):
        for across in (0, 1):
            corner = low + jnp.array([[[down, across]]], jnp.float32)
            rows = part[..., 0] if down else 1 - part[..., 0]
            columns = part[..., 1] if across else 1 - part[..., 1]
            y = y + (rows * columns)[..., None].astype(y.dtype) * _pixels(x, corner, fill)
    return round_like(y, x)


def _pixels(x: Image, indices: Float[Array, "height width 2"], fill: Scalar) -> Array:
    """The pixels at integer positions, and `fill` outside of the image."""
    wide, sizes = dtypes.wide(x), jnp.array(x.shape[:2])
    at = jnp.clip(indices, -1.0, sizes.astype(jnp.float32)[None, None]).astype(jnp.int32)
    inside = ((at >= 0) & (at < sizes[None, None])).all(axis=-1)
    at = jnp.clip(at, 0, sizes[None, None] - 1)
    return jnp.where(inside[..., None], wide[at[..., 0], at[..., 1]], jnp.asarray(fill, wide.dtype))
