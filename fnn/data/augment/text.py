"""Sequences of tokens: one example is an int array (length,), padded at its end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from fnn.data.augment.base import Augment
from fnn.dtypes import indices
from fnn.expect import within
from fnn.types import PRNGKey, Scalar

Tokens = Integer[Array, " length"]


@within(rate="[0, 1]")
def delete_tokens(rate: Scalar, *, pad: int) -> Augment:
    """Each token is left out with a probability; the rest moves up, and padding fills the end.

    Args:
      rate: probability in [0, 1]; may be traced.
      pad: the token that pads. If every other token fell out, the first stays.

    Source: Wei & Zou 2019, arXiv:1901.11196, section 2.

    >>> delete_tokens(0.0, pad=0)(jax.random.key(0), jnp.array([5, 6, 7, 0])).tolist()
    [5, 6, 7, 0]
    """

    def augment(key: PRNGKey, x: Tokens) -> Tokens:
        fill = _token("delete_tokens", pad, x)
        real = x != fill
        stays = real & ~_chosen(key, rate, x)
        first = jnp.arange(x.size) == jnp.argmax(real)
        stays = jnp.where(stays.any(), stays, real & first)
        order = jnp.argsort(~stays, stable=True)
        return jnp.where(jnp.arange(x.size) < stays.sum(), x[order], fill)

    return augment


def swap_tokens(swaps: int, *, pad: int) -> Augment:
    """Two tokens change places, so many times over.

    Args:
      swaps: how often, at least 0.
      pad: the token that pads; it stays at the end.

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
    """Each token becomes one of its synonyms with a probability.

    Args:
      rate: probability in [0, 1]; may be traced.
      synonyms: for each token the tokens that may stand for it; -1 where there are fewer. Tokens
        without any stay.

    Source: Wei & Zou 2019, arXiv:1901.11196, section 2.

    >>> table = jnp.array([[-1], [2], [1]])   # 1 and 2 mean the same
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
        return jnp.where(_chosen(coin, rate, x) & (known > 0), new.astype(x.dtype), x)

    return augment


@within(rate="[0, 1)", mean_length="[1, inf)")
def mask_spans(rate: Scalar, *, mean_length: Scalar = 3.0, mask: int, pad: int) -> Augment:
    """Spans of tokens are hidden behind a mask token.

    Spans begin anywhere, with lengths from a geometric distribution, so often that the wanted share
    of the tokens is hidden in the mean; spans may overlap.

    Args:
      rate: share of the tokens to hide, in [0, 1); may be traced.
      mean_length: of the spans, at least 1; may be traced.
      mask: the token that hides.
      pad: the token that pads; it is not hidden.

    Source: Joshi et al. 2020, arXiv:1907.10529, section 3.1. Deviates: lengths have no limit, and
      the number of spans is random.

    >>> mask_spans(0.0, mask=1, pad=0)(jax.random.key(0), jnp.array([5, 6, 7, 0])).tolist()
    [5, 6, 7, 0]
    """

    def augment(key: PRNGKey, x: Tokens) -> Tokens:
        start_key, length_key = jax.random.split(key)
        mean = jnp.asarray(mean_length, jnp.float32)
        # A token stays if no span that begins d before it is longer than d, for all d. Spans begin
        # with probability s, and are longer than d with (1 - 1 / mean)^d, which adds up to the mean
        # over all d: so 1 - rate = (1 - s)^mean, for small s.
        begins = 1 - (1 - jnp.asarray(rate, jnp.float32)) ** (1 / mean)
        starts = _chosen(start_key, begins, x)
        least = jnp.finfo(jnp.float32).tiny
        uniform = jax.random.uniform(length_key, x.shape, jnp.float32, minval=least)
        stop = jnp.log1p(-1 / jnp.maximum(mean, 1 + 1e-6))
        lengths = 1 + jnp.floor(jnp.log(uniform) / stop).astype(jnp.int32)
        ends = jnp.where(starts, jnp.arange(x.size) + lengths, 0)
        hidden = jax.lax.cummax(ends) > jnp.arange(x.size)
        real = x != _token("mask_spans", pad, x)
        return jnp.where(hidden & real, _token("mask_spans", mask, x), x)

    return augment


def _token(where: str, token: int, x: Tokens) -> Array:
    """A special token in the dtype of the others.

    Raises: ValueError for one that their dtype cannot hold.
    """
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


def _chosen(key: PRNGKey, rate: Scalar, x: Tokens) -> Bool[Array, " length"]:
    return jax.random.uniform(key, x.shape, jnp.float32) < jnp.asarray(rate, jnp.float32)
