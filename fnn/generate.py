"""Sampling from language models: one compiled loop over a decoder's steps.

B batch, P length of the prompts, V vocabulary.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from fnn.activations import softmax
from fnn.advice import is_array, refuse
from fnn.arguments import check_exports
from fnn.dtypes import indices
from fnn.expect import within
from fnn.types import Decoder, Params, PRNGKey, Scalar


@within(temperature="[0, inf)", top_p="(0, 1]")
def generate(
    decoder: Decoder,
    params: Params,
    prompt: Any,
    key: PRNGKey,
    *,
    max_tokens: int,
    lengths: Any = None,
    temperature: Scalar = 1.0,
    top_k: int | Integer[Array, ""] | None = None,
    top_p: Scalar | None = None,
    stop: int | None = None,
) -> Int[Array, "b n"]:
    """Go on with each prompt, a token at a time, with the past in a cache.

        token ~ softmax(filter(logits) / temperature)

    The prompts are read together; where they are of unequal lengths, a shorter one begins to be
    continued while the others are still read, so each gets what it would get alone. Compiled once
    for a decoder, a shape of prompts and a number of tokens.

    Args:
      decoder: such as `models.gpt.gpt_decoder(config)`; make it once, and call with that one.
      prompt: (B, P) integers, at least one token each; what is beyond a prompt's length is ignored.
      key: consumed; token t of row b draws from its own stream, so the rows do not depend on each
        other, nor a token on how many are asked for.
      max_tokens: how many tokens each prompt gets.
      lengths: (B,), of the prompts, in [1, P]; P for all if None.
      temperature: at 0, the likeliest token is taken; may be traced.
      top_k: keep the k likeliest tokens; may be traced. None keeps all. Of equal logits, those of
        the lower ids are kept.
      top_p: of these, keep the fewest of the likeliest that have this probability together, in
        (0, 1]; may be traced. None and 1 keep all.
      stop: a token after which a row is filled with it.

    Returns: (B, max_tokens) int32: the new tokens alone.
    Raises: ValueError for prompts of another shape, and for numbers out of range that are known.
    Source: Fan et al. 2018, arXiv:1805.04833 (top_k); Holtzman et al. 2020, arXiv:1904.09751
      (top_p).

    >>> step = lambda params, tokens, carry: (jax.nn.one_hot(tokens + 1, 9), carry)
    >>> counting = Decoder(init=lambda params, batch, length: (), step=step)
    >>> prompt, key = jnp.array([[2, 3], [5, 0]]), jax.random.key(0)
    >>> generate(counting, {}, prompt, key, max_tokens=3, lengths=jnp.array([2, 1]),
    ...          temperature=0.0).tolist()
    [[4, 5, 6], [6, 7, 8]]
    """
    _expect_arguments(prompt, max_tokens, lengths, temperature, top_k, top_p)
    batch, length = prompt.shape
    lengths = np.full(batch, length, np.int32) if lengths is None else lengths
    return _generate(
        decoder,
        max_tokens,
        stop,
        _read_together(lengths, length),
        params,
        jnp.asarray(prompt, jnp.int32),
        jnp.asarray(lengths, jnp.int32),
        key,
        temperature,
        top_k,
        top_p,
    )


def sample(
    key: PRNGKey,
    logits: Float[Array, "v"],
    *,
    temperature: Scalar = 1.0,
    top_k: int | Integer[Array, ""] | None = None,
    top_p: Scalar | None = None,
) -> Int[Array, ""]:
    """One token from the logits (V,); the arguments are those of `generate`.

    >>> sample(jax.random.key(0), jnp.array([0.0, 2.0, 1.0]), temperature=0.0).item()
    1
    """
    kept = logits.astype(jnp.float32)
    hot = jnp.asarray(temperature, jnp.float32)
    likeliest = jnp.argmax(kept).astype(jnp.int32)
    kept = kept / jnp.where(hot > 0, hot, 1)
    if top_k is not None or top_p is not None:
        kept = jnp.where(_is_kept(kept, top_k, top_p), kept, -jnp.inf)
    drawn = jax.random.categorical(key, kept).astype(jnp.int32)
    return jnp.where(hot > 0, drawn, likeliest)


def _is_kept(logits: Float[Array, "v"], top_k: Any, top_p: Any) -> Bool[Array, "v"]:
    """Which tokens the filters keep: by rank, because a threshold keeps all equal ones."""
    order = jnp.argsort(logits, descending=True)  # stable: of equal ones the lower id first
    rank = jnp.arange(len(logits), dtype=jnp.int32)
    kept = rank >= 0
    if top_k is not None:
        kept = rank < jnp.clip(indices(top_k), 1, len(logits))
    if top_p is not None:
        kept = kept & (rank < _nucleus(jnp.where(kept, logits[order], -jnp.inf), top_p))
    return jnp.zeros_like(kept).at[order].set(kept)


def _nucleus(falling: Float[Array, "v"], top_p: Scalar) -> Int[Array, ""]:
    """How many of the likeliest tokens it takes to reach the probability `top_p`; at least one."""
    p = jnp.asarray(top_p, jnp.float32)
    # Seven probabilities of 0.1, rounded, add up to less than 0.7.
    short = jnp.cumsum(softmax(falling)) < p - 1e-6
    size = len(falling)
    return jnp.where(p < 1, jnp.minimum(1 + short.sum(dtype=jnp.int32), size), size)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(
    decoder: Decoder,
    max_tokens: int,
    stop: int | None,
    together: int,
    params: Params,
    prompt: Array,
    lengths: Array,
    key: PRNGKey,
    temperature: Scalar,
    top_k: Any,
    top_p: Any,
) -> Array:
    batch, length = prompt.shape
    rows = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch))

    def draw(logits: Array, place: Array) -> Array:
        """The tokens at `place`, (B,): counted from each row's first new one, for the key."""
        keys = jax.vmap(jax.random.fold_in)(rows, jnp.maximum(place - lengths, 0))
        one = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p)
        return jax.vmap(one)(keys, logits)

    def next_token(logits: Array, place: Array, done: Array) -> tuple[Array, Array]:
        """Of the prompt where it has one, else drawn; and which rows have stopped."""
        drawn = draw(logits, place)
        if stop is not None:
            drawn = jnp.where(done, stop, drawn)
        given = jax.lax.dynamic_index_in_dim(
            prompt, jnp.minimum(place, length - 1), axis=1, keepdims=False
        )
        is_given = place < lengths
        token = jnp.where(is_given, given, drawn)
        return token, done if stop is None else done | (~is_given & (token == stop))

    def one(state: Any, place: Array) -> tuple[Any, Array]:
        token, done, carry = state
        logits, carry = decoder.step(params, token[:, None], carry)
        token, done = next_token(logits[:, -1], place, done)
        return (token, done, carry), token

    carry = decoder.init(params, batch, length + max_tokens - 1)  # the last token is not read
    logits, carry = decoder.step(params, prompt[:, :together], carry)
    done = jnp.zeros(batch, bool)
    first, done = next_token(logits[:, -1], jnp.int32(together), done)
    places = jnp.arange(together + 1, length + max_tokens, dtype=jnp.int32)
    _, later = jax.lax.scan(one, (first, done, carry), places)
    tokens = jnp.concatenate([first[None], later])  # (places from `together` on, B)
    own = (lengths - together)[:, None] + jnp.arange(max_tokens, dtype=jnp.int32)[None]
    return jnp.take_along_axis(tokens.T, own, axis=1)


def _read_together(lengths: Any, length: int) -> int:
    """How many tokens all prompts have: they are read in one go. One, where that is not known."""
    if isinstance(lengths, jax.core.Tracer):
        return 1
    return int(np.clip(np.asarray(lengths, np.int64).min(initial=length), 1, length))


def _expect_arguments(
    prompt: Any, max_tokens: int, lengths: Any, temperature: Any, top_k: Any, top_p: Any
) -> None:
    if not is_array(prompt) or not jnp.issubdtype(prompt.dtype, jnp.integer):
        words = "a prompt of integers of shape (batch, time)"
        refuse("generate", words, prompt, "convert it: np.asarray(tokens)[None] for one prompt")
    if prompt.ndim != 2 or 0 in prompt.shape:
        raise ValueError(
            f"generate: expected a prompt of shape (batch, time) with at least one token, got "
            f"{prompt.shape}; start with a token that begins a text"
        )
    if lengths is not None and not isinstance(lengths, jax.core.Tracer):
        known = np.asarray(lengths, np.int64)
        if known.shape != prompt.shape[:1] or known.min() < 1 or known.max() > prompt.shape[1]:
            raise ValueError(
                f"generate: expected lengths of shape {prompt.shape[:1]} in [1, {prompt.shape[1]}],"
                f" got {known.tolist()}; they count the tokens of each prompt"
            )
    limits = {"temperature": (temperature, 0, None), "top_k": (top_k, 1, None)}
    for name, (value, least, most) in {**limits, "top_p": (top_p, 0, 1)}.items():
        is_known = isinstance(value, (int, float))
        if is_known and (value < least or (most is not None and not least < value <= most)):
            bound = f"at least {least}" if most is None else f"in ({least}, {most}]"
            raise ValueError(f"generate: expected {name} {bound}, got {value}")


check_exports(__name__)
