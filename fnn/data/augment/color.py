"""Color augmentations of an image (height, width, 3): uint8 in [0, 255], or floats in [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn import dtypes
from fnn.data.augment._base import (
    Augment,
    Image,
    expect_image,
    expect_rgb,
    round_like,
    symmetric,
    uniform,
)
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

# Luma of ITU-R BT.601, and the two axes of color of the YIQ space (NTSC 1953).
_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]],
    np.float32,
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ.astype(np.float64)).astype(np.float32)


@within(brightness="[0, inf)", contrast="[0, inf)", saturation="[0, inf)", hue="[0, 0.5]")
def color_jitter(
    *,
    brightness: Scalar = 0.0,
    contrast: Scalar = 0.0,
    saturation: Scalar = 0.0,
    hue: Scalar = 0.0,
) -> Augment:
    """Random changes of brightness, contrast, saturation and hue, each drawn uniformly.

    Args:
      brightness, contrast, saturation: largest change c: factors from max(1 - c, 0) to 1 + c.
      hue: largest rotation of the hue, as a fraction of the circle, in [0, 0.5].

    All may be traced. The result is clipped to the range of the image's dtype.

    Raises: ValueError for an image without three channels.
    Source: Krizhevsky, Sutskever & Hinton 2012 (the idea). Deviates: the hue is rotated in the YIQ
      space, not in HSV; the order is always that of the arguments.

    >>> x = jnp.full((2, 2, 3), 0.5)
    >>> color_jitter(brightness=0.5)(jax.random.key(0), x).shape
    (2, 2, 3)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_rgb("color_jitter", x)
        keys = jax.random.split(key, 4)
        adjustments = (
            (adjust_brightness, brightness), (adjust_contrast, contrast),
            (adjust_saturation, saturation),
        )  # fmt: skip
        for k, (adjust, change) in zip(keys[:3], adjustments, strict=True):
            c = jnp.asarray(change, jnp.float32)
            x = adjust(x, uniform(k, jnp.maximum(1 - c, 0), 1 + c))
        return adjust_hue(x, symmetric(keys[3], hue))

    return augment


def adjust_brightness(x: Image, factor: Scalar) -> Image:
    """The image times a factor.

    >>> adjust_brightness(jnp.full((1, 1, 3), 0.25), 2.0).ravel().tolist()
    [0.5, 0.5, 0.5]
    """
    wide = dtypes.wide(x)
    return _clip(x, wide * jnp.asarray(factor, wide.dtype))


def adjust_contrast(x: Image, factor: Scalar) -> Image:
    """Scales the difference of each value from the mean luma by a factor.

    >>> x = jnp.stack([jnp.zeros((1, 3)), jnp.ones((1, 3))])
    >>> adjust_contrast(x, 0.0)[:, 0, 0].round(3).tolist()
    [0.5, 0.5]
    """
    expect_image("adjust_contrast", x)
    wide = dtypes.wide(x)
    return _blend(x, jnp.broadcast_to(_luma(wide).mean(), wide.shape), factor)


def adjust_saturation(x: Image, factor: Scalar) -> Image:
    """Scales the difference of each pixel from its luma by a factor; 0 gives grayscale.

    >>> bool(jnp.allclose(adjust_saturation(jnp.array([[[1.0, 0.0, 0.0]]]), 0.0), 0.299))
    True
    """
    expect_image("adjust_saturation", x)
    wide = dtypes.wide(x)
    return _blend(x, jnp.broadcast_to(_luma(wide)[..., None], wide.shape), factor)


def adjust_hue(x: Image, turns: Scalar) -> Image:
    """Rotates the colors about the gray axis by a fraction of the circle.

    >>> x = jnp.array([[[0.6, 0.4, 0.4]]])
    >>> bool(jnp.allclose(adjust_hue(adjust_hue(x, 0.3), -0.3), x, atol=1e-5))
    True
    """
    expect_image("adjust_hue", x)
    wide = dtypes.wide(x)
    angle = 2 * jnp.pi * jnp.asarray(turns, wide.dtype)
    c, s = jnp.cos(angle), jnp.sin(angle)
    one, zero = jnp.ones_like(c), jnp.zeros_like(c)
    turn = jnp.array([[one, zero, zero], [zero, c, -s], [zero, s, c]])
    to_yiq, from_yiq = jnp.asarray(_TO_YIQ, wide.dtype), jnp.asarray(_FROM_YIQ, wide.dtype)
    # Added to the image, so that an angle of 0 leaves it bitwise unchanged.
    change = from_yiq @ (turn - jnp.eye(3, dtype=wide.dtype)) @ to_yiq
    return _clip(x, wide + wide @ change.T)


def solarize(x: Image, threshold: Scalar) -> Image:
    """Inverts the values at and above a threshold, a fraction of the range.

    >>> solarize(jnp.array([[[0.25, 0.75, 1.0]]]), 0.5).ravel().tolist()
    [0.25, 0.25, 0.0]
    """
    wide, top = dtypes.wide(x), _top(x)
    bright = wide >= jnp.asarray(threshold, wide.dtype) * top
    return round_like(jnp.where(bright, top - wide, wide), x)


def posterize(x: Image, bits: Scalar) -> Image:
    """Quantizes to 2^bits levels, as if only the first bits of each byte were kept.

    >>> posterize(jnp.array([[[200, 100, 30]]], jnp.uint8), 1).ravel().tolist()
    [128, 0, 0]
    """
    wide, top = dtypes.wide(x), _top(x)
    step = jnp.exp2(8 - jnp.round(jnp.asarray(bits, wide.dtype)))
    level = jnp.floor(jnp.round(wide * (255 / top)) / step) * step
    return round_like(level * (top / 255), x)


def autocontrast(x: Image) -> Image:
    """Stretches each channel to the whole range, unless it is constant up to rounding.

    >>> autocontrast(jnp.array([[[0.25]], [[0.5]]])).ravel().tolist()
    [0.0, 1.0]
    """
    expect_image("autocontrast", x)
    wide, top = dtypes.wide(x), _top(x)
    low, high = wide.min(axis=(0, 1), keepdims=True), wide.max(axis=(0, 1), keepdims=True)
    span = high - low
    varies = span > jnp.maximum(jnp.abs(low), jnp.abs(high)) * jnp.finfo(wide.dtype).eps
    stretched = (wide - low) * (top / jnp.where(varies, span, 1))
    return _clip(x, jnp.where(varies, stretched, wide))


def equalize(x: Image) -> Image:
    """Histogram equalization of each channel over 256 levels.

    >>> equalize(jnp.array([[[10], [20], [20], [250]]], jnp.uint8)).ravel().tolist()
    [0, 170, 170, 255]
    """
    expect_image("equalize", x)
    wide, top = dtypes.wide(x), _top(x)
    levels = jnp.round(wide * (255 / top)).astype(jnp.int32)

    def channel(level: Array) -> Array:
        counts = jnp.zeros(256, jnp.int32).at[level.ravel()].add(1)
        first = counts[level.min()]
        rest = level.size - first
        ranks = (jnp.cumsum(counts) - first) * 255 // jnp.where(rest > 0, rest, 1)
        return jnp.where(rest > 0, jnp.maximum(ranks[level], 0), level)

    return round_like(jax.vmap(channel, -1, -1)(levels).astype(wide.dtype) * (top / 255), x)


def adjust_sharpness(x: Image, factor: Scalar) -> Image:
    """Scales the difference of each pixel from a 3 x 3 blur: 0 blurs, 1 changes nothing.

    >>> x = jnp.zeros((3, 3, 1)).at[1, 1, 0].set(1.0)
    >>> round(adjust_sharpness(x, 0.0)[1, 1, 0].item(), 3)
    0.385
    """
    expect_image("adjust_sharpness", x)
    wide = dtypes.wide(x)
    padded = jnp.pad(wide, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = x.shape[:2]
    total = jnp.zeros_like(wide)
    for i in range(3):
        for j in range(3):
            weight = 5.0 if (i, j) == (1, 1) else 1.0
            total = total + weight * padded[i : i + height, j : j + width]
    return _blend(x, total / 13, factor)


def _luma(x: Float[Array, "... channels"]) -> Float[Array, "..."]:
    """The perceived brightness of each pixel; the mean where there are not three channels."""
    return x @ jnp.asarray(_TO_YIQ[0], x.dtype) if x.shape[-1] == 3 else x.mean(axis=-1)


def _blend(x: Image, base: Float[Array, "..."], factor: Scalar) -> Image:
    """base + factor (x - base), rearranged so that the factor 1 changes nothing, bitwise."""
    wide = dtypes.wide(x)
    f = jnp.asarray(factor, wide.dtype)
    return _clip(x, wide + (1 - f) * (base - wide))


def _top(x: Image) -> float:
    return 1.0 if jnp.issubdtype(x.dtype, jnp.floating) else 255.0


def _clip(x: Image, y: Float[Array, "..."]) -> Image:
    return round_like(jnp.clip(y, 0, _top(x)), x)
