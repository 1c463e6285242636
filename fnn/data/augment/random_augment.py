"""RandAugment: a few operations drawn from a list for each image, all of one strength."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.data.augment import color
from fnn.data.augment._base import Augment, Image, expect_rgb
from fnn.data.augment.geometry import rotation, warp
from fnn.expect import within
from fnn.types import PRNGKey, Scalar


@within(strength="[0, 1]")
def random_augment(operations: int = 2, strength: Scalar = 0.3, *, fill: Scalar = 0.0) -> Augment:
    """RandAugment: applies operations drawn from a list of thirteen.

    The list: identity, autocontrast, equalize, rotation, solarize, saturation, posterize, contrast,
    brightness, sharpness, two shears, a translation. Those with two directions draw one.

    Args:
      operations: number of operations applied to each image, at least 0.
      strength: in [0, 1], for magnitudes 0 to 10 of the paper; may be traced. At 0 all operations
        but autocontrast and equalize are the identity.
      fill: value outside of the image in rotations, shears and translations.

    Raises: ValueError for fewer than 0 operations, and for images without three channels.
    Source: Cubuk et al. 2020, arXiv:1909.13719, with the largest magnitudes of Cubuk et al. 2019,
      arXiv:1805.09501. Deviates: both translations are one operation with both directions drawn.
      Under `vmap` all thirteen are computed for every image, which is slow on a CPU.

    >>> jax.jit(random_augment(2))(jax.random.key(0), jnp.full((4, 4, 3), 0.5)).shape
    (4, 4, 3)
    """

    def augment(key: PRNGKey, x: Array) -> Image:
        expect_rgb("random_augment", x)
        for step_key in jax.random.split(key, operations):
            which, sign_key = jax.random.split(step_key)
            signs = jax.random.rademacher(sign_key, (2,), jnp.float32)
            branches = _operations(jnp.asarray(strength, jnp.float32), signs, fill)
            x = jax.lax.switch(jax.random.randint(which, (), 0, len(branches)), branches, x)
        return x

    return augment


def _operations(strength: Array, signs: Array, fill: Scalar) -> list[Callable[[Image], Image]]:
    signed = strength * signs[0]
    factor = 1 + 0.9 * signed
    shear_x = jnp.array([[1.0, 0.0], [0.3 * signed, 1.0]])
    shear_y = jnp.array([[1.0, 0.3 * signed], [0.0, 1.0]])
    no_offset = jnp.zeros(2)

    def translate(x: Image) -> Image:
        sizes = jnp.array(x.shape[:2], jnp.float32)
        return warp(x, jnp.eye(2), 0.45 * strength * signs * sizes, fill=fill)

    return [
        lambda x: x,
        color.autocontrast,
        color.equalize,
        lambda x: warp(x, rotation(jnp.deg2rad(30.0) * signed), no_offset, fill=fill),
        # Above the range nothing is solarized, not even white.
        lambda x: color.solarize(x, jnp.where(strength > 0, 1 - strength, 2.0)),
        lambda x: color.adjust_saturation(x, factor),
        lambda x: color.posterize(x, 8 - 4 * strength),
        lambda x: color.adjust_contrast(x, factor),
        lambda x: color.adjust_brightness(x, factor),
        lambda x: color.adjust_sharpness(x, factor),
        lambda x: warp(x, shear_x, no_offset, fill=fill),
        lambda x: warp(x, shear_y, no_offset, fill=fill),
        translate,
    ]
