"""Where pixels are: flips, crops, turns. One image is (height, width, channels)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from fnn import dtypes
from fnn.data.augment.base import Augment, between, expect_image, happens, round_like
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Image = Num[Array, "height width channels"]


@within(rate="[0, 1]")
def flip(rate: Scalar = 0.5) -> Augment:
    """Left becomes right, with a probability.

    Args:
      rate: probability in [0, 1]; may be traced.

    >>> flip(1.0)(jax.random.key(0), jnp.array([[[1], [2]]])).ravel().tolist()
    [2, 1]
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("flip", x)
        return jnp.where(happens(key, rate), x[:, ::-1], x)

    return augment


def alternating_flip(x: Image, index: Int[Array, ""] | int, epoch: Int[Array, ""] | int) -> Image:
    """Left becomes right in every other epoch, so that two epochs show each image both ways.

    Half of the images, by a hash of their index, begin with the other side. For a batch use
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
    odd = (mixed >> jnp.uint32(31)) + jnp.asarray(epoch).astype(jnp.uint32)
    return jnp.where(odd % jnp.uint32(2) == 1, x[:, ::-1], x)


def crop(padding: int, *, reflect: bool = False) -> Augment:
    """A random part of the padded image, as large as the image was.

    Args:
      padding: pixels on each side, at least 0.
      reflect: fill the border with a mirror image instead of zeros.

    Raises: ValueError for a negative padding, or a mirror image larger than the image.

    >>> crop(1)(jax.random.key(0), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """
    if padding < 0:
        raise ValueError(f"crop: expected a padding of at least 0, got {padding}")

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
    """A turn around the middle by an angle from -degrees to degrees; see `affine`.

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
    """A turn, a shift, a scaling and a shear around the middle, each drawn evenly.

    Args:
      degrees: largest angle, either way.
      shift: largest shift, as a share of the height and of the width.
      scale: largest change of size: factors from 1 / (1 + scale) to 1 + scale, even in their
        logarithm.
      shear: largest shear, in degrees.
      fill: what comes in from outside.

    All may be traced. Pixels between pixels are interpolated bilinearly; at 0 strengths the image
    comes back as it was, to the bit.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> affine(degrees=30.0, shift=0.1, scale=0.2, shear=10.0)(jax.random.key(0), x).shape
    (3, 3, 1)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("affine", x)
        keys = jax.random.split(key, 5)
        angle, slant = (
            jnp.deg2rad(between(k, -jnp.asarray(a, jnp.float32), a))
            for k, a in ((keys[0], degrees), (keys[1], shear))
        )
        growth = jnp.log1p(jnp.asarray(scale, jnp.float32))
        factor = jnp.exp(between(keys[2], -growth, growth))
        down, across = (
            n * between(k, -jnp.asarray(shift, jnp.float32), shift)
            for k, n in ((keys[3], x.shape[0]), (keys[4], x.shape[1]))
        )
        turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        slope = jnp.array([[1.0, 0.0], [jnp.tan(slant), 1.0]])
        return warp(x, turn @ slope / factor, -jnp.stack([down, across]), fill=fill)

    return augment


def warp(
    x: Image, matrix: Float[Array, "2 2"], offset: Float[Array, "2"], *, fill: Scalar = 0.0
) -> Image:
    """The image whose pixel at p, from the middle, is that of x at `matrix p + offset`.

    Interpolated bilinearly; differentiable by matrix and offset.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> warp(x, jnp.eye(2), jnp.array([1.0, 0.0]))[..., 0].tolist()   # everything one row up
    [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [0.0, 0.0, 0.0]]
    """
    expect_image("warp", x)
    height, width = x.shape[:2]
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    grid = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = jnp.stack(grid, axis=-1).astype(jnp.float32) - middle[None, None]
    wanted = places @ matrix.T + (offset + middle)[None, None]
    low = jnp.floor(wanted)
    part = wanted - low
    y = jnp.zeros(x.shape, dtypes.wide(x).dtype)
    for down in (0, 1):
        for across in (0, 1):
            corner = low + jnp.array([[[down, across]]], jnp.float32)
            rows = part[..., 0] if down else 1 - part[..., 0]
            columns = part[..., 1] if across else 1 - part[..., 1]
            share = rows * columns
            y = y + share[..., None].astype(y.dtype) * _pixels(x, corner, fill)
    return round_like(y, x)


def _pixels(x: Image, places: Float[Array, "height width 2"], fill: Scalar) -> Array:
    """The pixels at whole places, `fill` outside of the image."""
    wide, sizes = dtypes.wide(x), jnp.array(x.shape[:2])
    at = jnp.clip(places, -1.0, sizes.astype(jnp.float32)[None, None]).astype(jnp.int32)
    inside = ((at >= 0) & (at < sizes[None, None])).all(axis=-1)
    at = jnp.clip(at, 0, sizes[None, None] - 1)
    return jnp.where(inside[..., None], wide[at[..., 0], at[..., 1]], jnp.asarray(fill, wide.dtype))
