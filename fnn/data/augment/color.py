"""The colors of an image (height, width, 3): uint8 in [0, 255], or floats in [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fnn import dtypes
from fnn.data.augment.base import Augment, between, expect_image, round_like
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Image = Num[Array, "height width channels"]

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
    """Brightness, contrast, saturation and hue, each changed by a factor or an angle drawn evenly.

    Args:
      brightness, contrast, saturation: largest change: factors from 1 - c (at least 0) to 1 + c.
      hue: largest turn of the hue, as a share of the whole circle, in [0, 0.5].

    All may be traced. The result is cut to the range of the image's dtype.

    Raises: ValueError for an image without three channels.
    Source: Krizhevsky, Sutskever & Hinton 2012 (the idea). Deviates: the hue is turned in the YIQ
      space, a rotation, not in HSV; the order is always that of the arguments.

    >>> x = jnp.full((2, 2, 3), 0.5)
    >>> color_jitter(brightness=0.5)(jax.random.key(0), x).shape
    (2, 2, 3)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        _expect_colors("color_jitter", x)
        keys = jax.random.split(key, 4)
        factors = [
            _factor(k, c) for k, c in zip(keys[:3], (brightness, contrast, saturation), strict=True)
        ]
        turn = between(keys[3], -jnp.asarray(hue, jnp.float32), hue)
        y = brighten(x, factors[0])
        y = change_contrast(y, factors[1])
        y = saturate(y, factors[2])
        return turn_hue(y, turn)

    return augment


def brighten(x: Image, factor: Scalar) -> Image:
    """The image times a factor.

    >>> brighten(jnp.full((1, 1, 3), 0.25), 2.0).ravel().tolist()
    [0.5, 0.5, 0.5]
    """
    wide = dtypes.wide(x)
    return _cut(x, wide * jnp.asarray(factor, wide.dtype))


def change_contrast(x: Image, factor: Scalar) -> Image:
    """The distance of each number from the mean luma, times a factor.

    >>> x = jnp.stack([jnp.zeros((1, 3)), jnp.ones((1, 3))])
    >>> change_contrast(x, 0.0)[:, 0, 0].round(3).tolist()
    [0.5, 0.5]
    """
    expect_image("change_contrast", x)
    wide = dtypes.wide(x)
    return _blend(x, jnp.broadcast_to(luma(wide).mean(), wide.shape), factor)


def saturate(x: Image, factor: Scalar) -> Image:
    """The distance of each pixel from its luma, times a factor; 0 gives grays.

    >>> saturate(jnp.array([[[1.0, 0.0, 0.0]]]), 0.0).ravel().round(3).tolist()
    [0.29899999499320984, 0.29899999499320984, 0.29899999499320984]
    """
    expect_image("saturate", x)
    wide = dtypes.wide(x)
    return _blend(x, jnp.broadcast_to(luma(wide)[..., None], wide.shape), factor)


def turn_hue(x: Image, turns: Scalar) -> Image:
    """The colors turned around the gray axis, by a share of the whole circle.

    >>> x = jnp.array([[[0.6, 0.4, 0.4]]])
    >>> bool(jnp.allclose(turn_hue(turn_hue(x, 0.3), -0.3), x, atol=1e-5))
    True
    """
    expect_image("turn_hue", x)
    wide = dtypes.wide(x)
    angle = 2 * jnp.pi * jnp.asarray(turns, wide.dtype)
    c, s = jnp.cos(angle), jnp.sin(angle)
    one, none = jnp.ones_like(c), jnp.zeros_like(c)
    turn = jnp.array([[one, none, none], [none, c, -s], [none, s, c]])
    there, back = jnp.asarray(_TO_YIQ, wide.dtype), jnp.asarray(_FROM_YIQ, wide.dtype)
    # As a change to the image: no turn leaves it as it is, to the bit.
    change = back @ (turn - jnp.eye(3, dtype=wide.dtype)) @ there
    return _cut(x, wide + wide @ change.T)


def solarize(x: Image, threshold: Scalar) -> Image:
    """Numbers at and above a threshold, a share of the range, become the range less themselves.

    >>> solarize(jnp.array([[[0.2, 0.75, 1.0]]]), 0.5).ravel().tolist()
    [0.20000000298023224, 0.25, 0.0]
    """
    wide, top = dtypes.wide(x), _top(x)
    return round_like(
        jnp.where(wide >= jnp.asarray(threshold, wide.dtype) * top, top - wide, wide), x
    )


def posterize(x: Image, bits: Scalar) -> Image:
    """Only 2^bits levels, as if all but the first bits of a byte were 0.

    >>> posterize(jnp.array([[[200, 100, 30]]], jnp.uint8), 1).ravel().tolist()
    [128, 0, 0]
    """
    wide, top = dtypes.wide(x), _top(x)
    step = jnp.exp2(8 - jnp.round(jnp.asarray(bits, wide.dtype)))
    level = jnp.floor(jnp.round(wide * (255 / top)) / step) * step
    return round_like(level * (top / 255), x)


def autocontrast(x: Image) -> Image:
    """Each channel stretched so that it uses the whole range; one that is constant up to rounding
    stays.

    >>> autocontrast(jnp.array([[[0.25]], [[0.5]]])).ravel().tolist()
    [0.0, 1.0]
    """
    expect_image("autocontrast", x)
    wide, top = dtypes.wide(x), _top(x)
    low, high = wide.min(axis=(0, 1), keepdims=True), wide.max(axis=(0, 1), keepdims=True)
    span = high - low
    varies = span > jnp.maximum(jnp.abs(low), jnp.abs(high)) * jnp.finfo(wide.dtype).eps
    stretched = (wide - low) * (top / jnp.where(varies, span, 1))
    return _cut(x, jnp.where(varies, stretched, wide))


def equalize(x: Image) -> Image:
    """Each channel's numbers replaced by their rank: a flat histogram of 256 levels.

    >>> equalize(jnp.array([[[10], [20], [20], [250]]], jnp.uint8)).ravel().tolist()
    [0, 170, 170, 255]
    """
    expect_image("equalize", x)
    wide, top = dtypes.wide(x), _top(x)
    levels = jnp.round(wide * (255 / top)).astype(jnp.int32)

    def channel(level: Array) -> Array:
        counts = jnp.zeros(256, jnp.int32).at[level.ravel()].add(1)
        below = jnp.cumsum(counts)
        first = counts[level.min()]
        rest = level.size - first
        ranks = (below - first) * 255 // jnp.where(rest > 0, rest, 1)
        return jnp.where(rest > 0, jnp.maximum(ranks[level], 0), level)

    return round_like(jax.vmap(channel, -1, -1)(levels).astype(wide.dtype) * (top / 255), x)


def sharpen(x: Image, factor: Scalar) -> Image:
    """The distance of each pixel from a blur, times a factor: 0 blurs, 1 changes nothing.

    >>> x = jnp.zeros((3, 3, 1)).at[1, 1, 0].set(1.0)
    >>> round(sharpen(x, 0.0)[1, 1, 0].item(), 3)
    0.385
    """
    expect_image("sharpen", x)
    wide = dtypes.wide(x)
    padded = jnp.pad(wide, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = x.shape[:2]
    around = sum(
        (
            (5.0 if (i, j) == (1, 1) else 1.0) * padded[i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        ),
        jnp.zeros_like(wide),
    )
    return _blend(x, around / 13, factor)


def luma(x: Float[Array, "... channels"]) -> Float[Array, "..."]:
    """The brightness of each pixel as eyes see it; the mean of channels that are not three.

    >>> luma(jnp.ones((2, 2, 3))).round(3).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return x @ jnp.asarray(_TO_YIQ[0], x.dtype) if x.shape[-1] == 3 else x.mean(axis=-1)


def _factor(key: PRNGKey, change: Scalar) -> Float[Array, ""]:
    c = jnp.asarray(change, jnp.float32)
    return between(key, jnp.maximum(1 - c, 0), 1 + c)


def _blend(x: Image, base: Float[Array, "..."], factor: Scalar) -> Image:
    """base + factor (x - base), written so that the factor 1 changes nothing, to the bit."""
    wide = dtypes.wide(x)
    f = jnp.asarray(factor, wide.dtype)
    return _cut(x, wide + (1 - f) * (base - wide))


def _top(x: Image) -> float:
    return 1.0 if jnp.issubdtype(x.dtype, jnp.floating) else 255.0


def _cut(x: Image, y: Float[Array, "..."]) -> Image:
    return round_like(jnp.clip(y, 0, _top(x)), x)


def _expect_colors(where: str, x: Array) -> None:
    if x.ndim != 3 or x.shape[-1] != 3:
        raise ValueError(
            f"{where}: expected an image (height, width, 3), got {x.shape}; for a batch use "
            "per_example"
        )
