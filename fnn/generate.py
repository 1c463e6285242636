"""Sampling from language models in one compiled loop over a decoder's steps.

B batch, P length of the prompts, V vocabulary.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from fnn._arguments import check_exports
from fnn._messages import is_array, refuse
from fnn.activations import softmax
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
    """Samples `max_tokens` tokens after each prompt, autoregressively with a cache.

        token ~ softmax(filter(logits / temperature))

    Prompts of unequal lengths need no padding convention: a shorter one is continued while the
    others are still read, and each gets the tokens that it would get alone. Compiled once per
    decoder, shape of the prompts and `max_tokens`.

    Args:
      decoder: such as `models.gpt.gpt_decoder(config)`; reuse it, since it is static.
      prompt: (B, P) integers, at least one token each; tokens beyond a prompt's length are ignored.
      key: token t of row b has its own key, so that it depends neither on other rows nor on
        `max_tokens`.
      lengths: of the prompts, (B,), in [1, P]; all P by default.
      temperature: 0 is greedy decoding; may be traced.
      top_k: keeps the k most likely tokens (of equal ones the lower ids); may be traced. None keeps
        all.
      top_p: of these, keeps the smallest set of most likely tokens whose probability reaches top_p,
        in (0, 1]; may be traced. None and 1 keep all.
      stop: the token that ends a row; the rest of the row is filled with it.

    Returns: the new tokens, (B, max_tokens) int32.
    Raises: ValueError for prompts of the wrong shape and for known numbers out of range.
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
    """Samples one token from logits (V,); arguments as in `generate`.

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
    """Mask of the tokens that the filters keep: by rank, since a threshold would keep all ties."""
    order = jnp.argsort(logits, descending=True)  # stable: ties by id
    rank = jnp.arange(len(logits), dtype=jnp.int32)
    kept = rank >= 0
    if top_k is not None:
        kept = rank < jnp.clip(indices(top_k), 1, len(logits))
    if top_p is not None:
        kept = kept & (rank < _nucleus(jnp.where(kept, logits[order], -jnp.inf), top_p))
    return jnp.zeros_like(kept).at[order].set(kept)


def _nucleus(descending: Float[Array, "v"], top_p: Scalar) -> Int[Array, ""]:
    """The least number of most likely tokens whose probability reaches `top_p`."""
    p = jnp.asarray(top_p, jnp.float32)
    # With a tolerance: seven rounded probabilities of 0.1 sum to less than 0.7.
    below = jnp.cumsum(softmax(descending)) < p - 1e-6
    size = len(descending)
    return jnp.where(p < 1, jnp.minimum(1 + below.sum(dtype=jnp.int32), size), size)


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

    sample_one = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p)

    def next_token(logits: Array, position: Array, done: Array) -> tuple[Array, Array]:
        """The tokens at a position, (B,), from the prompt or sampled; and the stopped rows."""
        # Keys count from a row's first new token.
        keys = jax.vmap(jax.random.fold_in)(rows, jnp.maximum(position - lengths, 0))
        drawn = jax.vmap(sample_one)(keys, logits)
        if stop is not None:
            drawn = jnp.where(done, stop, drawn)
        given = jax.lax.dynamic_index_in_dim(
            prompt, jnp.minimum(position, length - 1), axis=1, keepdims=False
        )
        in_prompt = position < lengths
        token = jnp.where(in_prompt, given, drawn)
        return token, done if stop is None else done | (~in_prompt & (token == stop))

    def step(state: Any, position: Array) -> tuple[Any, Array]:
        token, done, carry = state
        logits, carry = decoder.step(params, token[:, None], carry)
        token, done = next_token(logits[:, -1], position, done)
        return (token, done, carry), token

    carry = decoder.init(params, batch, length + max_tokens - 1)  # the last token is not read
    logits, carry = decoder.step(params, prompt[:, :together], carry)
    done = jnp.zeros(batch, bool)
    first, done = next_token(logits[:, -1], jnp.int32(together), done)
    positions = jnp.arange(together + 1, length + max_tokens, dtype=jnp.int32)
    _, later = jax.lax.scan(step, (first, done, carry), positions)
    tokens = jnp.concatenate([first[None], later])  # (positions from `together` on, B)
    own = (lengths - together)[:, None] + jnp.arange(max_tokens, dtype=jnp.int32)[None]
    return jnp.take_along_axis(tokens.T, own, axis=1)


def _read_together(lengths: Any, length: int) -> int:
    """The length of the shortest prompt, up to which all are read at once; 1 if unknown."""
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
            raise ValueError(
                f"generate: expected {name} {bound}, got {value}; choose a value in that range"
            )


check_exports(__name__)
