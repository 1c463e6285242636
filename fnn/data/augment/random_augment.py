"""A few operations drawn from a list for each image, all of one strength."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from fnn.data.augment import color
from fnn.data.augment.base import Augment
from fnn.data.augment.geometry import warp
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Image = Num[Array, "height width channels"]


@within(strength="[0, 1]")
def random_augment(operations: int = 2, strength: Scalar = 0.3, *, fill: Scalar = 0.0) -> Augment:
    """So many operations one after another, each drawn from a list of thirteen.

    The list: nothing, autocontrast, equalize, a turn, solarize, saturation, posterize, contrast,
    brightness, sharpness, two shears, a shift. What has two directions takes either.

    Args:
      operations: how many are applied to each image, at least 0.
      strength: in [0, 1], for magnitudes 0 to 10 of the paper; may be traced. At 0 all operations
        but autocontrast and equalize change nothing.
      fill: what comes in from outside in turns, shears and shifts.

    Raises: ValueError for fewer than 0 operations, and for images without three channels.
    Source: Cubuk et al. 2020, arXiv:1909.13719, with the largest magnitudes of Cubuk et al. 2019,
      arXiv:1805.09501. Deviates: both shifts are one operation with both directions drawn. Under
      `vmap` every image pays for all thirteen: on a CPU they cost more than a small model.

    >>> jax.jit(random_augment(2))(jax.random.key(0), jnp.full((4, 4, 3), 0.5)).shape
    (4, 4, 3)
    """
    if operations < 0:
        raise ValueError(f"random_augment: expected at least 0 operations, got {operations}")

    def augment(key: PRNGKey, x: Array) -> Image:
        if x.ndim != 3 or x.shape[-1] != 3:
            raise ValueError(f"random_augment: expected an image (height, width, 3), got {x.shape}")
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
    angle = jnp.deg2rad(30.0) * signed
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    across = jnp.array([[1.0, 0.0], [0.3 * signed, 1.0]])
    down = jnp.array([[1.0, 0.3 * signed], [0.0, 1.0]])
    nowhere = jnp.zeros(2)

    def shift(x: Image) -> Image:
        sizes = jnp.array(x.shape[:2], jnp.float32)
        return warp(x, jnp.eye(2), 0.45 * strength * signs * sizes, fill=fill)

    return [
        lambda x: x,
        color.autocontrast,
        color.equalize,
        lambda x: warp(x, turn, nowhere, fill=fill),
        # Above the range nothing is solarized, not even white.
        lambda x: color.solarize(x, jnp.where(strength > 0, 1 - strength, 2.0)),
        lambda x: color.saturate(x, factor),
        lambda x: color.posterize(x, 8 - 4 * strength),
        lambda x: color.change_contrast(x, factor),
        lambda x: color.brighten(x, factor),
        lambda x: color.sharpen(x, factor),
        lambda x: warp(x, across, nowhere, fill=fill),
        lambda x: warp(x, down, nowhere, fill=fill),
        shift,
    ]
