"""Laws of initializers: `initializer(key, shape, dtype) -> array`. `check_initializer` runs all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.testing._compare import expect_same

Initializer = Callable[..., Any]
Shape = tuple[int, ...]


def check_initializer(
    initializer: Initializer, shape: Shape, *, std: float, random: bool = True
) -> None:
    """All laws of an initializer.

    Args:
      shape: a suitable one, with a thousand elements or more if they are random.
      std: the standard deviation that it must have at that shape.
      random: whether it draws from its key.

    >>> check_initializer(jax.random.normal, (30, 40), std=1.0)
    """
    initializer_gives_shape_and_dtype(initializer, shape)
    if random:
        initializer_follows_the_key(initializer, shape)
        initializer_has_moments(initializer, shape, std=std)


def initializer_gives_shape_and_dtype(initializer: Initializer, shape: Shape) -> None:
    """The result has the requested shape and dtype, float32 by default; nothing is computed.

    >>> initializer_gives_shape_and_dtype(jax.random.normal, (2, 3))
    """
    for dtype in (None, jnp.float32, jnp.bfloat16):
        given = (shape,) if dtype is None else (shape, dtype)
        got = jax.eval_shape(lambda key, given=given: initializer(key, *given), jax.random.key(0))
        wanted = jnp.dtype(dtype or jnp.float32)
        if got.shape != shape or got.dtype != wanted:
            raise AssertionError(
                f"initializer_gives_shape_and_dtype: asked for {wanted}{list(shape)}, got "
                f"{got.dtype}{list(got.shape)}; pass shape and dtype on to the draw"
            )


def initializer_follows_the_key(initializer: Initializer, shape: Shape) -> None:
    """The result is a function of the key: bitwise for the same key, different for another.

    >>> initializer_follows_the_key(jax.random.normal, (2, 3))
    """
    law = "initializer_follows_the_key"
    first, again, other = (initializer(jax.random.key(seed), shape) for seed in (0, 0, 1))
    names = ("the first call", "the second")
    expect_same(law, first, again, names=names, hint="draw from the key alone")
    if bool((first == other).all()):
        raise AssertionError(f"{law}: two keys give the same values; draw from the key")


def initializer_has_moments(initializer: Initializer, shape: Shape, *, std: float) -> None:
    """Mean 0 and the given standard deviation, within four of their own standard errors.

    The standard errors are those of independent draws: std / sqrt(n) for the mean, and from the
    fourth moment of the sample for the variance.

    >>> initializer_has_moments(jax.random.normal, (30, 40), std=1.0)
    """
    draws = np.asarray(initializer(jax.random.key(2), shape), np.float64).ravel()
    variance, fourth = np.mean(draws**2), np.mean(draws**4)
    errors = {
        "mean": (draws.mean(), 0.0, std / np.sqrt(draws.size)),
        "variance": (variance, std**2, np.sqrt((fourth - variance**2) / draws.size)),
    }
    for moment, (got, expected, error) in errors.items():
        if not abs(got - expected) <= 4 * error:
            raise AssertionError(
                f"initializer_has_moments: the {moment} of {draws.size} draws is {got:.4g}, and "
                f"must be {expected:.4g} within 4 standard errors of {error:.2g}; check which fan "
                "the variance is divided by"
            )
