"""What augmentations are, and how they are put together.

An augmentation is a pure function `f(key, x)` of one example; `per_example` makes of some of them a
function `f(key, batch)` of a whole batch, which runs inside the compiled step. Its strengths may be
traced, so they can be swept and even learned.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import within
from fnn.types import Pair, PRNGKey, Scalar

Augment = Callable[[PRNGKey, Any], Any]  # (key, one example) -> an example of its shape and dtype
BatchAugment = Callable[[PRNGKey, Pair], Pair]  # (key, (x, y)) -> (x, y)


def chain(*augments: Callable[[PRNGKey, Any], Any]) -> Callable[[PRNGKey, Any], Any]:
    """Augmentations one after another, each with a key of its own; of examples, or of batches.

    >>> double = chain(lambda key, x: x + 1, lambda key, x: 2 * x)
    >>> double(jax.random.key(0), 1)
    4
    """

    def augment(key: PRNGKey, x: Any) -> Any:
        for i, each in enumerate(augments):
            x = each(jax.random.fold_in(key, i), x)
        return x

    return augment


def per_example(*augments: Augment) -> BatchAugment:
    """The augmentations applied to each x of a batch; the targets stay as they are.

    Example i of the batch gets the key `fold_in(key, i)`, so it does not depend on the others.

    >>> flip = per_example(lambda key, x: x[::-1])
    >>> flip(jax.random.key(0), (jnp.array([[1, 2], [3, 4]]), jnp.array([0, 1])))[0].tolist()
    [[2, 1], [4, 3]]
    """
    one = chain(*augments)

    def augment(key: PRNGKey, batch: Pair) -> Pair:
        x, y = batch
        places = jnp.arange(jax.tree.leaves(x)[0].shape[0])
        return jax.vmap(lambda i, x: one(jax.random.fold_in(key, i), x))(places, x), y

    return augment


@within(rate="[0, 1]")
def sometimes(rate: Scalar, augment: Augment) -> Augment:
    """The augmentation with a probability, else the example as it is.

    Args:
      rate: probability in [0, 1]; may be traced.

    >>> sometimes(0.0, lambda key, x: -x)(jax.random.key(0), jnp.ones(2)).tolist()
    [1.0, 1.0]
    """

    def apply(key: PRNGKey, x: Any) -> Any:
        coin, rest = jax.random.split(key)
        heads = happens(coin, rate)
        return jax.tree.map(lambda new, old: jnp.where(heads, new, old), augment(rest, x), x)

    return apply


def expect_image(where: str, x: Array) -> None:
    """Check that x is one image with a channel axis.

    Raises: ValueError, which begins with `where`, for another number of axes.

    >>> expect_image('flip', jnp.zeros((28, 28, 1)))
    """
    if x.ndim != 3:
        raise ValueError(
            f"{where}: expected an image of shape (height, width, channels), got {x.shape}; add a "
            "channel axis to the images, x[..., None], and give a batch to per_example"
        )


def happens(key: PRNGKey, rate: Scalar) -> Array:
    """Whether an event of probability `rate` comes to pass; never at 0, always at 1.

    >>> happens(jax.random.key(0), 0.0).item(), happens(jax.random.key(0), 1.0).item()
    (False, True)
    """
    return jax.random.uniform(key, (), jnp.float32) < jnp.asarray(rate, jnp.float32)


def between(key: PRNGKey, low: Scalar, high: Scalar) -> Float[Array, ""]:
    """A number drawn evenly from [low, high), float32; both may be traced, and equal.

    >>> between(jax.random.key(0), 2.0, 2.0).item()
    2.0
    """
    first, last = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    return first + (last - first) * jax.random.uniform(key, (), jnp.float32)


def round_like(values: Float[Array, "..."], x: Array) -> Array:
    """`values` in the dtype of x; for integers rounded, and clipped to what the dtype holds.

    >>> round_like(jnp.array([-3.0, 2.6, 300.0]), jnp.array([1], jnp.uint8)).tolist()
    [0, 3, 255]
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return values.astype(x.dtype)
    limits = jnp.iinfo(x.dtype)
    return jnp.clip(jnp.round(values), limits.min, limits.max).astype(x.dtype)
