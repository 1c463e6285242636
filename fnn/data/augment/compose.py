"""Composition of augmentations: pure functions `f(key, x)` of one example.

`per_example` lifts them to a function `f(key, batch)` of a batch, which runs inside the compiled
step. Their strengths may be traced, so they can be swept and learned.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fnn.data.augment._base import Augment, BatchAugment, bernoulli
from fnn.expect import within
from fnn.types import Pair, PRNGKey, Scalar


def chain(*augments: Augment) -> Augment:
    """Applies augmentations of examples, or of batches, one after another, each with its own key.

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
    """Applies augmentations to each x of a batch; the targets are unchanged.

    Example i gets the key `fold_in(key, i)`, so it does not depend on the rest of the batch.

    >>> flip = per_example(lambda key, x: x[::-1])
    >>> flip(jax.random.key(0), (jnp.array([[1, 2], [3, 4]]), jnp.array([0, 1])))[0].tolist()
    [[2, 1], [4, 3]]
    """
    one = chain(*augments)

    def augment(key: PRNGKey, batch: Pair) -> Pair:
        x, y = batch
        indices = jnp.arange(jax.tree.leaves(x)[0].shape[0])
        return jax.vmap(lambda i, x: one(jax.random.fold_in(key, i), x))(indices, x), y

    return augment


@within(rate="[0, 1]")
def sometimes(rate: Scalar, augment: Augment) -> Augment:
    """Applies an augmentation with a probability.

    Args:
      rate: probability in [0, 1]; may be traced.

    >>> sometimes(0.0, lambda key, x: -x)(jax.random.key(0), jnp.ones(2)).tolist()
    [1.0, 1.0]
    """

    def apply(key: PRNGKey, x: Any) -> Any:
        coin, rest = jax.random.split(key)
        chosen = bernoulli(coin, rate)
        return jax.tree.map(lambda new, old: jnp.where(chosen, new, old), augment(rest, x), x)

    return apply
