"""Attention without parameters: against PyTorch, a NumPy twin of the paper, and its laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fnn.layers import (
    attention_weights,
    causal_mask,
    combine_masks,
    dot_product_attention,
    padding_mask,
    segment_mask,
    window_mask,
)
from tests.against_torch import expect_like_torch
from tests.compiled import compiled, expect_same, with_gradients
from tests.registry.rows import normal

attend = compiled(dot_product_attention)
weights_of = compiled(attention_weights)

SIZES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "queries": st.integers(1, 5),
        "keys": st.integers(1, 5),
        "groups": st.integers(1, 2),
        "kv_heads": st.integers(1, 3),
        "features": st.integers(1, 5),
        "value_features": st.integers(1, 3),
    }
)
LARGE = dict(
    batch=2, queries=5, keys=7, groups=3, kv_heads=2, features=5, value_features=3
)  # fmt: skip


def problem(*, batch, queries, keys, groups, kv_heads, features, value_features):
    heads = groups * kv_heads
    query = normal(batch, queries, heads, features, seed=1)
    key = normal(batch, keys, kv_heads, features, seed=2)
    value = normal(batch, keys, kv_heads, value_features, seed=3)
    bias = normal(1, heads, queries, keys, seed=4)
    mask = normal(batch, 1, queries, keys, seed=5) > -0.5  # of few keys, some rows see none
    return query, key, value, bias, mask


QUERY, KEY, VALUE, BIAS, MASK = problem(**LARGE)
GROUP = LARGE["groups"]


def of_torch(query, key, value, bias, mask):
    query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
    bias = bias.masked_fill(~mask, -torch.inf)
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)
    return y.transpose(1, 2)


def ours(query, key, value, bias, mask):
    return dot_product_attention(query, key, value, bias=bias, mask=mask)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, derandomize=True)
@given(SIZES)
@example(LARGE)
@example(dict.fromkeys(LARGE, 1))
def test_dot_product_attention_is_that_of_torch(sizes):
    cases = {"dot_product_attention": (ours, of_torch)}
    expect_like_torch(cases, *problem(**sizes), moving=4)


def twin(query, key, value, bias, mask, scale, cap):
    """Attention in float64 and loops, as Vaswani et al. write it."""
    y = np.zeros((*query.shape[:3], value.shape[3]))
    for b, t, h in np.ndindex(*query.shape[:3]):
        seen = np.flatnonzero(mask[b, 0, t])
        logits = scale * key[b, seen, h // GROUP].astype(np.float64) @ query[b, t, h]
        shares = np.exp(cap * np.tanh(logits / cap) + bias[0, h, t, seen])
        y[b, t, h] = shares / shares.sum() @ value[b, seen, h // GROUP]
    return y


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_dot_product_attention_is_the_formula_of_the_paper(dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        query, key, value, bias = (part.astype(dtype) for part in (QUERY, KEY, VALUE, BIAS))
        y = attend(query, key, value, bias=bias, mask=MASK, scale=dtype(0.7), softcap=dtype(1.5))
    assert y.dtype == dtype
    expect_same(y, twin(QUERY, KEY, VALUE, BIAS, MASK, 0.7, 1.5), rtol)


def test_a_query_that_sees_no_key_gives_zero_and_has_no_gradient():
    mask = np.ones((2, 1, 5, 7), bool)
    mask[1, :, 2] = False
    hidden = np.where(mask, 0, -np.inf).astype(np.float32)
    for how in ({"mask": mask}, {"bias": hidden}):
        whole = partial(dot_product_attention, **jax.tree.map(jnp.asarray, how))
        y, (dquery, dkey, dvalue) = with_gradients(whole, QUERY, KEY, VALUE)
        assert (y[1, 2] == 0).all() and (dquery[1, 2] == 0).all()
        assert all(np.isfinite(part).all() for part in (y, dquery, dkey, dvalue))
        assert (y[0] != 0).all() and (dquery[0] != 0).all()


def test_the_output_lies_in_the_convex_hull_of_the_values():
    mask = MASK.copy()
    mask[:, :, :, 0] = True  # everyone sees a key
    y = attend(100 * QUERY, KEY, VALUE, bias=BIAS, mask=mask)
    seen = np.where(mask[:, 0, :, :, None, None], VALUE[:, None], np.nan)  # (B, T, S, K, features)
    low, high = (f(seen, axis=2).repeat(GROUP, axis=2) for f in (np.nanmin, np.nanmax))
    # The weights sum to 1 within seven roundings of 6e-8.
    assert (y >= low - 1e-6).all() and (y <= high + 1e-6).all()
    weights = weights_of(100 * QUERY, KEY, bias=BIAS, mask=mask)
    np.testing.assert_allclose(weights.sum(axis=3), 1, rtol=1e-6)
    assert (weights[np.broadcast_to(~mask, weights.shape)] == 0).all()


def test_grouped_heads_are_heads_with_shared_keys_and_values():
    repeated = [heads.repeat(GROUP, axis=2) for heads in (KEY, VALUE)]
    expect_same(attend(QUERY, KEY, VALUE), attend(QUERY, *repeated))


def test_a_softcap_bounds_the_logits_and_a_large_one_changes_nothing():
    spread = np.log(weights_of(100 * QUERY, KEY, softcap=2.0))
    assert spread.max() - spread.min() > 3.9
    assert (spread.max(axis=3) - spread.min(axis=3)).max() <= 4 + 1e-5
    # cap tanh(l / cap) is l up to l (l / cap)^2 / 3: 1e-4 at a logit of 6 and a cap of 1000.
    expect_same(attend(QUERY, KEY, VALUE, softcap=1e3), attend(QUERY, KEY, VALUE), 1e-4)


def test_the_weights_can_be_dropped():
    y = compiled(partial(dot_product_attention, drop=lambda weights: 2 * weights))
    expect_same(y(QUERY, KEY, VALUE), 2 * attend(QUERY, KEY, VALUE))


def test_bfloat16_stays_bfloat16_with_the_softmax_in_float32():
    narrow = [part.astype(jnp.bfloat16) for part in (QUERY, KEY, VALUE)]
    got = with_gradients(dot_product_attention, *narrow)
    assert all(part.dtype == jnp.bfloat16 for part in jax.tree.leaves(got))
    wide = with_gradients(dot_product_attention, *[part.astype(np.float32) for part in narrow])
    # A bfloat16 is rounded by up to 2^-9; weights, output and gradients are each, a few times.
    expect_same(got, wide, 4 * 2**-8)
    # In bfloat16 the sum of 999 equal terms would stay below 512, and each be 1 / 512 or more.
    same = weights_of(np.ones((1, 1, 1, 4), jnp.bfloat16), np.ones((1, 999, 1, 4), jnp.bfloat16))
    np.testing.assert_allclose(same, 1 / 999, rtol=1e-6)


@compiled
def masks_of(offset):
    causal, padding = causal_mask(3, 5, offset=offset), padding_mask(jnp.array([2]), 5)
    return {
        "causal": causal,
        "window": window_mask(3, 5, before=1, after=2, offset=offset),
        "padding": padding,
        "segment": segment_mask(jnp.array([[0, 3, 3]]), jnp.array([[3, 0, 0, 7, 3]])),
        "combined": combine_masks(None, causal, padding),
    }


@pytest.mark.parametrize("offset", [0, 2, -1])
def test_masks_are_their_definitions(offset):
    t, s = np.arange(3)[:, None] + offset, np.arange(5)[None, :]
    expected = {
        "causal": s <= t,
        "window": (t - 1 <= s) & (s <= t + 2),
        "padding": s < 2,
        "segment": np.array([[0, 1, 1, 0, 0], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1]]),
        "combined": (s <= t) & (s < 2),
    }
    for name, mask in masks_of(offset).items():
        assert mask.dtype == bool and mask.ndim == 4
        np.testing.assert_array_equal(mask[0, 0], expected[name], err_msg=name)


def test_no_mask_shows_everything():
    assert combine_masks() is None and combine_masks(None, None) is None
    everyone = np.ones((1, 1, 1, 1), bool)
    expect_same(attend(QUERY, KEY, VALUE, mask=everyone), attend(QUERY, KEY, VALUE), 0.0)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_masks_take_any_integers_in_float64_mode(dtype):
    @compiled
    def seen(lengths, before, segments):
        window = window_mask(3, before=before, offset=before - 1)
        return combine_masks(padding_mask(lengths, 3), window, segment_mask(segments))

    with jax.enable_x64(True):
        mask = seen(np.array([2], dtype), dtype(1), np.array([[0, 0, 1]], dtype))
    np.testing.assert_array_equal(mask[0, 0], [[1, 0, 0], [1, 1, 0], [0, 0, 0]])


HEADS, THREE = jnp.ones((2, 3, 4, 5)), jnp.ones((2, 3, 3, 5))
UNFIT = {
    r"query, key and value of shape \(batch, time, heads, features\)": (HEADS, HEADS[0], HEADS),
    r"expected key \(2, keys, kv_heads, 5\) .* got \(2, 3, 4, 4\)": (HEADS, HEADS[..., :4], HEADS),
    "give each key one value": (HEADS, HEADS, HEADS[:, :2]),
    "multiple of the key-value heads, got 4 and 3": (HEADS, THREE, THREE),
}


@pytest.mark.parametrize("message, heads", UNFIT.items())
def test_heads_that_do_not_fit_are_refused(message, heads):
    with pytest.raises(ValueError, match=f"dot_product_attention: .*{message}"):
        dot_product_attention(*heads)


WHERE = {
    r"expected mask \(batch, heads, queries, keys\) = \(2, 4, 3, 3\)": dict(mask=HEADS[0] > 0),
    r"expected bias .* got \(1, 2, 3, 3\)": dict(bias=jnp.ones((1, 2, 3, 3))),
    "expected a mask of bool, .* got float32": dict(mask=jnp.zeros((1, 1, 3, 3))),
}


@pytest.mark.parametrize("message, how", WHERE.items())
def test_masks_and_biases_that_do_not_fit_are_refused(message, how):
    with pytest.raises(ValueError, match=f"attention_weights: {message}"):
        attention_weights(HEADS, HEADS, **how)


SENSELESS = {
    "window_mask: expected before of at least 0, got -1": lambda: window_mask(3, before=-1),
    "window_mask: expected after of at least 0, got -2": lambda: window_mask(3, before=1, after=-2),
    "segment_mask: expected the keys in 1 examples, got 2": lambda: segment_mask(
        jnp.zeros((1, 2), int), jnp.zeros((2, 2), int)
    ),
    "expected softcap in .0, inf., got 0.0": lambda: attention_weights(HEADS, HEADS, softcap=0.0),
    "combine_masks: expected masks of shape": lambda: combine_masks(HEADS[0] > 0),
}


@pytest.mark.parametrize("message, call", SENSELESS.items())
def test_what_makes_no_sense_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
