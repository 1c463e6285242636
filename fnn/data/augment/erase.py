"""Random erasing of parts of an image (height, width, channels)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes
from fnn.data.augment._base import (
    Augment,
    Image,
    bernoulli,
    expect_image,
    interval_mask,
    round_like,
    symmetric,
    uniform,
)
from fnn.expect import within
from fnn.types import PRNGKey, Scalar


def cutout(size: Scalar, *, fill: Scalar = 0.0) -> Augment:
    """Fills a random square, which may extend beyond the image, with one value.

    Args:
      size: side of the square, in pixels; may be traced.
      fill: value of its pixels.

    Source: DeVries & Taylor 2017, arXiv:1708.04552.

    >>> x = cutout(2)(jax.random.key(0), jnp.ones((4, 4, 1)))
    >>> 0 < int((x == 0).sum()) <= 4
    True
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("cutout", x)
        side = jnp.asarray(size, jnp.float32)
        inside = []
        for k, n in zip(jax.random.split(key), x.shape[:2], strict=True):
            center = jax.random.randint(k, (), 0, n).astype(jnp.float32)
            inside.append(interval_mask(n, center - jnp.floor(side / 2), side))
        hole = inside[0][:, None] & inside[1][None, :]
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
    """Fills a random rectangle with normal noise, with a probability.

    Args:
      rate: probability in [0, 1].
      area: least and largest fraction of the image that it covers.
      stretch: largest ratio of its sides, at least 1; the ratio is uniform in its logarithm.
      mean, std: of the noise, in the unit of the image.

    All may be traced.

    Source: Zhong et al. 2020, arXiv:1708.04896. Deviates: a rectangle longer than the image is cut
      at its border, not redrawn.

    >>> random_erasing(0.0)(jax.random.key(0), jnp.ones((4, 4, 1))).sum().item()
    16.0
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_image("random_erasing", x)
        keys = jax.random.split(key, 6)
        height, width = x.shape[:2]
        size = uniform(keys[0], *area) * (height * width)
        ratio = jnp.exp(symmetric(keys[1], jnp.log(jnp.asarray(stretch, jnp.float32))))
        inside = []
        for k, n, side in ((keys[2], height, size * ratio), (keys[3], width, size / ratio)):
            side = jnp.clip(jnp.round(jnp.sqrt(side)), 1, n)
            inside.append(interval_mask(n, jnp.floor(uniform(k, 0, n - side + 1)), side))
        hole = inside[0][:, None] & inside[1][None, :] & bernoulli(keys[4], rate)
        wide = dtypes.wide(x)
        noise = jax.random.normal(keys[5], x.shape, wide.dtype)
        noise = jnp.asarray(mean, wide.dtype) + jnp.asarray(std, wide.dtype) * noise
        return jnp.where(hole[..., None], round_like(noise, x), x)

    return augment
