"""Generation: what comes out is what decoding one prompt without a cache gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.generate import _is_kept, generate, sample
from fnn.models.gpt import gpt, gpt2, gpt_decoder, llama
from fnn.types import Decoder

SIZES = {"vocab_size": 11, "max_length": 16, "features": 8, "num_heads": 4}
CONFIGS = {
    "gpt2": gpt2(**SIZES, num_layers=1),
    "llama, scanned": llama(**SIZES, num_layers=2, num_kv_heads=2, hidden_features=12, scan=True),
}
DECODERS = {name: gpt_decoder(config) for name, config in CONFIGS.items()}
TABLE = jnp.asarray(np.random.default_rng(0).normal(scale=2, size=(11, 11)), jnp.float32)
PROMPT = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 1]], np.int32)
LENGTHS = np.array([4, 1, 2], np.int32)


def key(i=0):
    return jax.random.key(i)


def params_of(name):
    # Ten times the usual spread, so that the tokens before make a difference.
    params, _ = gpt(CONFIGS[name]).init(key(1), PROMPT)
    return jax.tree.map(lambda leaf: 10 * leaf if leaf.ndim > 1 else leaf, params)


def _fading(params, tokens, carry):
    """Logits that depend on all tokens so far, the less the longer ago; quick to compile."""

    def one(carry, token):
        carry = carry / 2 + params[token]
        return carry, carry

    carry, logits = jax.lax.scan(one, carry, tokens.T)
    return jnp.swapaxes(logits, 0, 1), carry


FADING = Decoder(init=lambda params, batch, length: jnp.zeros((batch, 11)), step=_fading)


def without_cache(config):
    """The same model, which reads all tokens so far again for each new one."""
    model = gpt(config)

    def init(params, batch, length):
        return jnp.zeros((batch, length), jnp.int32), jnp.int32(0)

    def step(params, tokens, carry):
        seen, position = carry
        seen = jax.lax.dynamic_update_slice_in_dim(seen, tokens, position, axis=1)
        logits, _ = model.apply(params, (), seen)
        new = jax.lax.dynamic_slice_in_dim(logits, position, tokens.shape[1], axis=1)
        return new, (seen, position + tokens.shape[1])

    return Decoder(init=init, step=step)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CONFIGS)
def test_generation_equals_decoding_without_the_cache(name):
    params, settings = params_of(name), {"max_tokens": 6, "lengths": LENGTHS}
    slow = without_cache(CONFIGS[name])
    for temperature in (0.0, 3.0):
        tokens, expected = (
            generate(d, params, PROMPT, key(2), temperature=temperature, **settings)
            for d in (DECODERS[name], slow)
        )
        np.testing.assert_array_equal(tokens, expected)
    assert len(np.unique(tokens)) > 3  # it says something


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["llama, scanned", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_pieces_of_any_lengths_give_the_logits_of_the_whole(name):
    params, decoder = params_of(name), DECODERS[name]
    whole, _ = gpt(CONFIGS[name]).apply(params, (), jnp.asarray(PROMPT))
    carry, parts = decoder.init(params, 3, 4), []
    for piece in (PROMPT[:, :1], PROMPT[:, 1:3], PROMPT[:, 3:]):
        logits, carry = decoder.step(params, jnp.asarray(piece), carry)
        parts.append(logits)
    # Sums of 8 to 16 float32 numbers in another order.
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_prompts_of_unequal_length_get_what_each_gets_alone():
    together = generate(FADING, TABLE, PROMPT, key(2), max_tokens=5, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        cut = np.where(np.arange(4) < length, PROMPT[row], 7)  # what is beyond is not looked at
        rows = np.repeat(cut[None], 3, axis=0)
        alone = generate(
            FADING, TABLE, rows, key(2), max_tokens=5, lengths=np.full(3, length, np.int32)
        )
        np.testing.assert_array_equal(alone[row], together[row])


def test_lengths_may_be_traced():
    known = generate(FADING, TABLE, PROMPT, key(2), max_tokens=3, lengths=LENGTHS)
    traced = jax.jit(
        lambda lengths: generate(FADING, TABLE, PROMPT, key(2), max_tokens=3, lengths=lengths)
    )(LENGTHS)
    np.testing.assert_array_equal(traced, known)


def test_more_tokens_begin_with_the_fewer():
    few, more = (generate(FADING, TABLE, PROMPT, key(2), max_tokens=n) for n in (3, 5))
    np.testing.assert_array_equal(more[:, :3], few)


@pytest.mark.slow
def test_temperature_to_zero_is_the_likeliest_token():
    best, cold, one, small = (
        generate(FADING, TABLE, PROMPT, key(2), max_tokens=4, **filters)
        for filters in (
            {"temperature": 0.0},
            {"temperature": 1e-6},
            {"top_k": 1},
            {"top_p": 1e-6},
        )
    )
    np.testing.assert_array_equal(best, cold)
    np.testing.assert_array_equal(best, one)
    np.testing.assert_array_equal(best, small)


def test_a_temperature_is_not_compiled_anew():
    traces = []

    def step(params, tokens, carry):
        traces.append(tokens.shape)
        return jax.nn.one_hot(tokens + 1, 5), carry

    decoder = Decoder(init=lambda params, batch, length: (), step=step)
    for temperature, top_p in ((0.5, 0.9), (0.7, 0.8), (0.9, 0.7)):
        generate(
            decoder, {}, PROMPT[:, :2], key(), max_tokens=3, temperature=temperature, top_p=top_p
        )
    assert traces == [(3, 2), (3, 1)]  # the prompt, and the loop


LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
DRAWS = 4000


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 0.5}, np.array([0.01, 0.16, 0.04, 0.09]) / 0.3),
    ],
)
def test_tokens_are_drawn_with_the_probabilities_that_the_filters_leave(filters, expected):
    keys = jax.random.split(key(3), DRAWS)
    drawn = jax.jit(jax.vmap(lambda k: sample(k, jnp.asarray(LOGITS), **filters)))(keys)
    shares = np.bincount(np.asarray(drawn), minlength=4) / DRAWS
    # Four standard deviations of a share of DRAWS draws.
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / DRAWS**0.5)
    assert (shares[np.asarray(expected) == 0] == 0).all()


@pytest.mark.sampled(12)
@pytest.mark.parametrize(
    ("logits", "filters", "kept"),
    [
        (np.zeros(2), {"top_k": 1}, [0]),
        (np.zeros(10), {"top_k": 3}, [0, 1, 2]),
        (np.array([1, 3, 3, 3, 2.0]), {"top_k": 2}, [1, 2]),
        (np.array([1, 3, 3, 3, 2.0]), {"top_k": 4}, [1, 2, 3, 4]),
        (np.zeros(10), {"top_p": 0.1}, [0]),
        (np.zeros(10), {"top_p": 0.7}, range(7)),  # seven times 0.1, rounded, is less than 0.7
        (np.zeros(10), {"top_p": 0.71}, range(8)),
        (np.zeros(10), {"top_p": 1.0}, range(10)),
        (np.zeros(10), {"top_k": 4, "top_p": 0.5}, [0, 1]),  # half of the four
        (np.log([0.2, 0.4, 0.2, 0.2]), {"top_p": 0.6}, [0, 1]),
        (np.array([0, -np.inf, 0.0]), {"top_k": 3}, [0, 2]),
        (np.array([np.inf, 0.0, np.inf]), {"top_k": 1}, [0]),
    ],
)
def test_of_equal_logits_no_more_are_kept_than_asked_for(logits, filters, kept):
    found = _is_kept(jnp.asarray(logits, jnp.float32), **{"top_k": None, "top_p": None, **filters})
    expected = set(kept) | set(np.flatnonzero(found & np.isneginf(logits)))  # which no draw gives
    assert set(np.flatnonzero(found)) == expected
    if np.isfinite(logits).all():
        keys = jax.random.split(key(4), 200)
        drawn = jax.vmap(lambda k: sample(k, jnp.asarray(logits, jnp.float32), **filters))(keys)
        assert set(np.asarray(drawn)) == set(kept)


@pytest.mark.slow
def test_filters_keep_what_torch_and_numpy_say():
    logits = np.round(np.random.default_rng(5).normal(size=(50, 12)), 1).astype(np.float32)
    for row in logits:
        order = np.argsort(-row, kind="stable")
        p = np.exp(row.astype(np.float64))[order]
        for top_p in (0.05, 0.3, 0.77, 0.95):
            size = 1 + (np.cumsum(p / p.sum()) < top_p).sum()
            found = _is_kept(jnp.asarray(row), None, top_p)
            assert set(np.flatnonzero(found)) == set(order[:size])


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_prompt_that_fills_the_context_gets_its_next_token(name):
    params = params_of(name)
    prompt = np.arange(32, dtype=np.int32).reshape(2, 16) % 11
    new = generate(DECODERS[name], params, prompt, key(), max_tokens=1, temperature=0.0)
    logits, _ = gpt(CONFIGS[name]).apply(params, (), jnp.asarray(prompt))
    np.testing.assert_array_equal(new[:, 0], logits[:, -1].argmax(axis=-1))


@pytest.mark.slow
def test_the_last_tokens_of_a_full_context_are_those_of_a_longer_one():
    room = gpt2(**{**SIZES, "max_length": 20}, num_layers=1)
    params, _ = gpt(room).init(key(1), PROMPT)
    params = jax.tree.map(lambda leaf: 10 * leaf if leaf.ndim > 1 else leaf, params)
    cut = {**params, "positions": {"table": params["positions"]["table"][:16]}}
    settings = {"max_tokens": 13, "lengths": LENGTHS, "temperature": 0.0}
    full = generate(DECODERS["gpt2"], cut, PROMPT, key(), **settings)
    longer = generate(gpt_decoder(room), params, PROMPT, key(), **settings)
    np.testing.assert_array_equal(full, longer)


def test_after_the_stop_token_a_row_is_filled_with_it():
    free = np.asarray(generate(FADING, TABLE, PROMPT, key(2), max_tokens=8))
    stop = int(free[0, 2])
    stopped = np.asarray(generate(FADING, TABLE, PROMPT, key(2), max_tokens=8, stop=stop))
    for before, after in zip(free, stopped, strict=True):
        end = list(before).index(stop) if stop in before else len(before)
        np.testing.assert_array_equal(after[:end], before[:end])
        assert (after[end:] == stop).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": PROMPT[0]}, r"expected a prompt of shape \(batch, time\)"),
        ({"prompt": PROMPT[:, :0]}, "with at least one token"),
        ({"max_tokens": 0}, "expected max_tokens to be a positive integer, got 0"),
        ({"lengths": np.array([4, 0, 2])}, r"expected lengths of shape \(3,\) in \[1, 4\]"),
        ({"lengths": np.array([4, 5, 2])}, r"in \[1, 4\], got \[4, 5, 2\]"),
        ({"temperature": -1.0}, "expected temperature .*, got -1.0"),
        ({"top_k": 0}, "expected top_k .* got 0"),
        ({"top_p": 0.0}, r"expected top_p in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"expected top_p in \(0, 1\], got 1.1"),
        ({"max_tokens": 14}, "at most max_length = 16 steps, got 17"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    asked = {"prompt": PROMPT, "max_tokens": 3, **arguments}
    params = {"tokens": {"table": TABLE}}  # the carry's first look is at its dtype
    with pytest.raises(ValueError, match=message):
        generate(DECODERS["gpt2"], params, asked.pop("prompt"), key(), **asked)
