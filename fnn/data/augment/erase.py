"""Parts of an image taken away. One image is (height, width, channels)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from fnn import dtypes
from fnn.data.augment.base import Augment, between, expect_image, happens, round_like
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Image = Num[Array, "height width channels"]


def cutout(size: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """A square of one color somewhere on the image; a part of it may lie outside.

    Args:
      size: side of the square, in pixels; may be traced.
      fill: its color.

    Source: DeVries & Taylor 2017, arXiv:1708.04552.

    >>> x = cutout(2)(jax.random.key(0), jnp.ones((4, 4, 1)))
    >>> 0 < (x == 0).sum() <= 4
    Array(True, dtype=bool)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("cutout", x)
        height, width = x.shape[:2]
        row, column = jax.random.split(key)
        middle = jax.random.randint(row, (), 0, height), jax.random.randint(column, (), 0, width)
        side = jnp.asarray(size, jnp.float32)
        hole = _rectangle(
            x, tuple(m.astype(jnp.float32) - jnp.floor(side / 2) for m in middle), (side, side)
        )
        return jnp.where(hole[..., None], jnp.asarray(fill).astype(x.dtype), x)

    return augment


@within(rate="[0, 1]", area="[0, 1]", stretch="[1, inf)", std="[0, inf)")
def random_erasing(
    rate: Scalar = 0.5,
    *,
    area: tuple[Scalar, Scalar] = (0.02, 0.33),
    stretch: Scalar = 3.3,
    mean: Scalar = 0.0,
    std: Scalar = 1.0,
) -> Augment:
    """A rectangle of noise on the image, with a probability.

    Args:
      rate: probability in [0, 1].
      area: least and largest share of the image that it covers.
      stretch: largest ratio of its sides, at least 1; the ratio is even in its logarithm.
      mean, std: of the normal noise in it, in the unit of the image.

    All may be traced.

    Source: Zhong et al. 2020, arXiv:1708.04896. Deviates: a rectangle that is longer than the
      image is cut at its border, not drawn again.

    >>> random_erasing(0.0)(jax.random.key(0), jnp.ones((4, 4, 1))).sum().item()
    16.0
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("random_erasing", x)
        keys = jax.random.split(key, 6)
        height, width = x.shape[:2]
        size = between(keys[0], *area) * (height * width)
        reach = jnp.log(jnp.asarray(stretch, jnp.float32))
        ratio = jnp.exp(between(keys[1], -reach, reach))
        sides = [jnp.sqrt(size * ratio), jnp.sqrt(size / ratio)]
        sides = [
            jnp.clip(jnp.round(side), 1, n) for side, n in zip(sides, (height, width), strict=True)
        ]
        corner = tuple(
            jnp.floor(between(k, 0, n - side + 1))
            for k, n, side in zip(keys[2:4], (height, width), sides, strict=True)
        )
        hole = _rectangle(x, corner, tuple(sides)) & happens(keys[4], rate)
        wide = dtypes.wide(x)
        noise = jax.random.normal(keys[5], x.shape, wide.dtype)
        noise = jnp.asarray(mean, wide.dtype) + jnp.asarray(std, wide.dtype) * noise
        return jnp.where(hole[..., None], round_like(noise, x), x)

    return augment


def _rectangle(
    x: Image,
    corner: tuple[Float[Array, ""], ...],
    sides: tuple[Float[Array, ""], ...],
) -> Bool[Array, "height width"]:
    """Which pixels lie in it: its sizes may be traced, since nothing has a shape of its own."""
    axes = [jnp.arange(n, dtype=jnp.float32) for n in x.shape[:2]]
    rows, columns = (
        (places >= start) & (places < start + side)
        for places, start, side in zip(axes, corner, sides, strict=True)
    )
    return rows[:, None] & columns[None, :]
