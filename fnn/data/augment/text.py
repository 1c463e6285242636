"""Augmentations of token sequences: one example is an int array (length,), padded at its end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from fnn.data.augment._base import Augment
from fnn.dtypes import indices
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Tokens = Integer[Array, " length"]


@within(rate="[0, 1]")
def delete_tokens(rate: Scalar, *, pad: int) -> Augment:
    """Deletes each token with a probability, closes the gaps, and pads the end.

    Args:
      rate: probability in [0, 1]; may be traced.
      pad: the padding token. If all others would be deleted, the first is kept.

    Source: Wei & Zou 2019, arXiv:1901.11196, section 2.

    >>> delete_tokens(0.0, pad=0)(jax.random.key(0), jnp.array([5, 6, 7, 0])).tolist()
    [5, 6, 7, 0]
    """

    def augment(key: PRNGKey, x: Tokens) -> Tokens:
        fill = _token("delete_tokens", pad, x)
        real = x != fill
        kept = real & ~_bernoulli(key, rate, x)
        first = jnp.arange(x.size) == jnp.argmax(real)
        kept = jnp.where(kept.any(), kept, real & first)
        order = jnp.argsort(~kept, stable=True)
        return jnp.where(jnp.arange(x.size) < kept.sum(), x[order], fill)

    return augment


def swap_tokens(swaps: int, *, pad: int) -> Augment:
    """Swaps two random tokens, repeatedly.

    Args:
      swaps: number of swaps, at least 0.
      pad: the padding token, which stays at the end.

    Source: Wei & Zou 2019, arXiv:1901.11196, section 2.

    >>> sorted(swap_tokens(3, pad=0)(jax.random.key(0), jnp.array([5, 6, 7, 0])).tolist())
    [0, 5, 6, 7]
    """

    def augment(key: PRNGKey, x: Tokens) -> Tokens:
        length = jnp.maximum((x != _token("swap_tokens", pad, x)).sum(), 1)
        pairs = jax.random.randint(key, (swaps, 2), 0, length)

        def swap(x: Tokens, pair: Int[Array, "2"]) -> tuple[Tokens, None]:
            return x.at[pair].set(x[pair[::-1]]), None

        return jax.lax.scan(swap, x, pairs)[0]

    return augment


@within(rate="[0, 1]")
def replace_by_synonyms(rate: Scalar, synonyms: Integer[Array, "vocabulary choices"]) -> Augment:
    """Replaces each token by one of its synonyms with a probability.

    Args:
      rate: probability in [0, 1]; may be traced.
      synonyms: for each token its synonyms, padded with -1. Tokens without any are unchanged.

    Source: Wei & Zou 2019, arXiv:1901.11196, section 2.

    >>> table = jnp.array([[-1], [2], [1]])   # 1 and 2 are synonyms
    >>> replace_by_synonyms(1.0, table)(jax.random.key(0), jnp.array([0, 1, 2])).tolist()
    [0, 2, 1]
    """

    def augment(key: PRNGKey, x: Tokens) -> Tokens:
        coin, choice = jax.random.split(key)
        _expect_synonyms(synonyms, x)
        rows = indices(synonyms)[indices(x)]
        known = (rows >= 0).sum(axis=1)
        ordered = -jnp.sort(-rows, axis=1)  # the -1 come last
        drawn = jax.random.randint(choice, x.shape, 0, jnp.maximum(known, 1))
        new = jnp.take_along_axis(ordered, drawn[:, None], axis=1)[:, 0]
        return jnp.where(_bernoulli(coin, rate, x) & (known > 0), new.astype(x.dtype), x)

    return augment


@within(rate="[0, 1)", mean_length="[1, inf)")
def mask_spans(rate: Scalar, *, mean_length: Scalar = 3.0, mask: int, pad: int) -> Augment:
    """Replaces random spans of tokens by a mask token.

    Spans start at random positions, with lengths from a geometric distribution, and may overlap.

    Args:
      rate: expected fraction of masked tokens, in [0, 1); may be traced.
      mean_length: of the spans, at least 1; may be traced.
      mask: the mask token.
      pad: the padding token, which is never masked.

    Source: Joshi et al. 2020, arXiv:1907.10529, section 3.1. Deviates: lengths are unbounded, and
      the number of spans is random.

    >>> mask_spans(0.0, mask=1, pad=0)(jax.random.key(0), jnp.array([5, 6, 7, 0])).tolist()
    [5, 6, 7, 0]
    """

    def augment(key: PRNGKey, x: Tokens) -> Tokens:
        start_key, length_key = jax.random.split(key)
        mean = jnp.asarray(mean_length, jnp.float32)
        # A token is unmasked if no span that starts d before it is longer than d. Spans start with
        # probability s and are longer than d with (1 - 1 / mean)^d, which sums to the mean over d:
        # so 1 - rate = (1 - s)^mean, for small s.
        start_rate = 1 - (1 - jnp.asarray(rate, jnp.float32)) ** (1 / mean)
        starts = _bernoulli(start_key, start_rate, x)
        least = jnp.finfo(jnp.float32).tiny
        uniform = jax.random.uniform(length_key, x.shape, jnp.float32, minval=least)
        stop = jnp.log1p(-1 / jnp.maximum(mean, 1 + 1e-6))
        lengths = 1 + jnp.floor(jnp.log(uniform) / stop).astype(jnp.int32)
        ends = jnp.where(starts, jnp.arange(x.size) + lengths, 0)
        masked = jax.lax.cummax(ends) > jnp.arange(x.size)
        real = x != _token("mask_spans", pad, x)
        return jnp.where(masked & real, _token("mask_spans", mask, x), x)

    return augment


def _token(where: str, token: int, x: Tokens) -> Array:
    """A special token in the dtype of the others, which has to hold it."""
    limits = jnp.iinfo(x.dtype)
    if not limits.min <= token <= limits.max:
        raise ValueError(
            f"{where}: expected tokens in a dtype that holds {token}, got {x.dtype}; "
            "store them as int32"
        )
    return jnp.asarray(token, x.dtype)


def _expect_synonyms(synonyms: Any, x: Tokens) -> None:
    if not isinstance(synonyms, jax.core.Tracer) and np.size(synonyms):
        _token("replace_by_synonyms", int(np.asarray(synonyms).max()), x)


def _bernoulli(key: PRNGKey, rate: Scalar, x: Tokens) -> Bool[Array, " length"]:
    return jax.random.uniform(key, x.shape, jnp.float32) < jnp.asarray(rate, jnp.float32)
