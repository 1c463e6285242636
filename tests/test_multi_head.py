"""Multi-head attention: against PyTorch, and the laws of causality, caches, masks and positions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fnn import layers, nn
from fnn.layers import (
    attend_with_cache,
    causal_mask,
    combine_masks,
    init_cache,
    padding_mask,
    rope,
    segment_mask,
    window_mask,
)
from fnn.layers.attention import project_query
from tests.against_torch import expect_like_torch
from tests.compiled import compiled, expect_same, with_gradients
from tests.registry.rows import normal

B, T, E = 2, 6, 8
X = normal(B, T, E)


def make(heads=2, **options):
    """Parameters of the shapes that init gives, with random numbers in every leaf."""
    init = partial(layers.multi_head_attention_init, num_heads=heads, in_features=E, **options)
    shapes, tree = jax.tree.flatten(jax.eval_shape(init, jax.random.key(0)))
    leaves = [normal(*leaf.shape, seed=i) / 2 for i, leaf in enumerate(shapes)]
    return jax.tree.unflatten(tree, leaves)


# A layer with everything in it, so that each law is about the whole.
PARAMS = make(4, num_kv_heads=2, qk_norm=True)
plain = compiled(layers.multi_head_attention)
full = compiled(partial(layers.multi_head_attention, rotate=rope))


@compiled
def causal(x):
    mask = causal_mask(x.shape[1])
    return layers.multi_head_attention(PARAMS, x, mask=mask, rotate=rope)


@compiled
def reach(mask):
    """Whether the output of the first example at each token depends on the input at each."""

    def output(x):
        return layers.multi_head_attention(PARAMS, x, mask=mask, rotate=rope)[0].sum(axis=1)

    return (jax.jacobian(output)(jnp.asarray(X))[:, 0] != 0).any(axis=2)


# The memory has four tokens, of which the first example has three; the second query of the three
# does not see the first of them.
LENGTHS, HIDDEN = np.array([3, 4]), np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def of_torch(x, memory, query, key, value, out, biases, out_bias):
    same = x.shape[2] == memory.shape[2]
    other = {} if same else {"kdim": memory.shape[2], "vdim": memory.shape[2]}
    layer = torch.nn.MultiheadAttention(E, 2, batch_first=True, dtype=x.dtype, **other)
    matrices = [kernel.flatten(1).T for kernel in (query, key, value)]
    names = [f"{name}_proj_weight" for name in "qkv"]
    params = dict(zip(names, matrices, strict=True))
    params = {"in_proj_weight": torch.cat(matrices)} if same else params
    params["in_proj_bias"] = biases.flatten()
    params |= {"out_proj.weight": out.flatten(0, 1).T, "out_proj.bias": out_bias}
    padded = torch.tensor(np.arange(4) >= LENGTHS[:, None])
    how = {"key_padding_mask": padded, "attn_mask": torch.tensor(HIDDEN)}
    return torch.func.functional_call(layer, params, (x, memory, memory), how)[0]


def ours(x, memory, query, key, value, out, biases, out_bias):
    params = {
        "query": {"kernel": query, "bias": biases[0]},
        "key": {"kernel": key, "bias": biases[1]},
        "value": {"kernel": value, "bias": biases[2]},
        "out": {"kernel": out, "bias": out_bias},
    }
    mask = combine_masks(padding_mask(jnp.asarray(LENGTHS), 4), jnp.asarray(~HIDDEN)[None, None])
    return layers.multi_head_attention(params, x, memory, mask=mask)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("memory_features", [E, 5])
def test_multi_head_attention_is_that_of_torch(memory_features):
    params = make(memory_features=memory_features)
    kernels = [params[name]["kernel"] for name in ("query", "key", "value", "out")]
    # The biases as one array: the gradient by that of the keys is 0, and thus all rounding.
    biases = np.stack([params[name]["bias"] for name in ("query", "key", "value")])
    inputs = (X[:, :3], normal(B, 4, memory_features, seed=1), *kernels, biases)
    inputs = (*inputs, params["out"]["bias"])
    cases = {"multi_head_attention": (ours, of_torch)}
    expect_like_torch(cases, *inputs, moving=len(inputs))


def test_a_future_token_never_changes_a_past_output():
    # A gradient that is not exactly 0 counts.
    np.testing.assert_array_equal(reach(causal_mask(T)), np.tri(T, dtype=bool))
    changed = np.concatenate([X[:, :3], -2 * X[:, 3:]], axis=1)
    before, after = causal(X), causal(changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(axis=2).all()


def test_a_prefix_gives_the_prefix_of_the_output():
    expect_same(causal(X[:, :4]), causal(X)[:, :4])


LENGTH = T + 2  # more room than tokens
TRACES = []


@compiled
def decode(x, cache):
    TRACES.append(x.shape[1])
    mask = window_mask(x.shape[1], LENGTH, before=2, offset=cache.position)
    steps = cache.position + jnp.arange(x.shape[1])
    bias = layers.alibi(4, steps, jnp.arange(LENGTH))[None]
    return attend_with_cache(PARAMS, x, cache, mask=mask, bias=bias, rotate=rope)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("pieces", [[1] * T, [3, 1, 2], [T]])
def test_decoding_with_a_cache_is_the_full_pass(pieces):
    TRACES.clear()
    cache, outputs = jax.tree.map(np.asarray, init_cache(PARAMS, B, LENGTH)), []
    for end, n in zip(np.cumsum(pieces), pieces, strict=True):
        y, cache = decode(X[:, end - n : end], cache)
        outputs.append(y)
    mask = combine_masks(causal_mask(T), window_mask(T, before=2))
    bias = layers.alibi(4, jnp.arange(T), jnp.arange(T))[None]
    expected = full(PARAMS, X, mask=mask, bias=bias)
    expect_same(np.concatenate(outputs, axis=1), expected)
    assert cache.position == T
    assert len(TRACES) <= len(set(pieces))  # the position is traced: one program for every step


def test_a_cache_that_is_full_is_refused_or_gives_nan():
    step = jax.jit(attend_with_cache)
    _, cache = step(PARAMS, X[:, :2], init_cache(PARAMS, B, 3))
    assert np.isnan(step(PARAMS, X[:, 2:4], cache)[0]).all()
    with pytest.raises(ValueError, match="expected at most 1 more tokens, got 2"):
        attend_with_cache(PARAMS, jnp.asarray(X[:, 2:4]), cache)


def test_a_narrow_cache_keeps_its_dtype_and_the_output_that_of_the_input():
    cache = init_cache(PARAMS, B, LENGTH, jnp.bfloat16)
    y, after = jax.eval_shape(attend_with_cache, PARAMS, X, cache)
    assert y.dtype == jnp.float32
    assert after == jax.eval_shape(lambda: cache)


def test_no_key_visible_to_anyone_leaves_the_bias_of_the_output():
    params, nobody = make(), padding_mask(jnp.zeros(B, jnp.int32), T)
    whole = partial(layers.multi_head_attention, mask=nobody)
    y, (dparams, dx) = with_gradients(whole, params, X)
    np.testing.assert_array_equal(y, np.broadcast_to(params["out"]["bias"], y.shape))
    assert (dx == 0).all() and all((leaf == 0).all() for leaf in jax.tree.leaves(dparams["key"]))


ORDER = np.array([4, 0, 5, 2, 1, 3])


def test_without_positions_attention_is_permutation_equivariant():
    expect_same(plain(PARAMS, X[:, ORDER]), plain(PARAMS, X)[:, ORDER])


def test_tokens_that_keep_their_positions_may_come_in_any_order():
    y = full(PARAMS, X)[:, ORDER]
    expect_same(full(PARAMS, X[:, ORDER], positions=ORDER), y)
    assert np.abs(full(PARAMS, X[:, ORDER]) - y).max() > 1e-3


def test_segments_are_isolated_and_alone():
    packed = jnp.array([[5, 5, 7, 7, 7, 7], [1, 1, 2, 2, 2, 2]])
    mask = combine_masks(segment_mask(packed), causal_mask(T))
    how = {"mask": mask, "positions": np.array([0, 1, 0, 1, 2, 3])}
    y = full(PARAMS, X, **how)
    for part in (slice(0, 2), slice(2, T)):
        expect_same(y[:, part], causal(X[:, part]))
        others = np.full_like(X, 9.0)
        others[:, part] = X[:, part]
        np.testing.assert_array_equal(y[:, part], full(PARAMS, others, **how)[:, part])


def test_padding_changes_nothing():
    lengths = jnp.array([4, 4])
    y = full(PARAMS, X, mask=padding_mask(lengths, T))
    padded = np.concatenate([X[:, :4], np.full_like(X[:, 4:], 1e3)], axis=1)
    again = full(PARAMS, padded, mask=padding_mask(lengths, T))
    np.testing.assert_array_equal(y[:, :4], again[:, :4])
    expect_same(y[:, :4], full(PARAMS, X[:, :4], mask=padding_mask(lengths, 4)))


@pytest.mark.parametrize("before, after", [(0, 0), (1, 0), (2, 1), (0, 3), (9, 9)])
def test_a_window_limits_the_reach(before, after):
    distance = np.arange(T)[None, :] - np.arange(T)[:, None]
    expected = (-before <= distance) & (distance <= after)
    np.testing.assert_array_equal(reach(window_mask(T, before=before, after=after)), expected)


def test_as_many_key_value_heads_as_heads_is_multi_head():
    jax.tree.map(np.testing.assert_array_equal, make(4, num_kv_heads=4), make(4))
    shared = make(4, num_kv_heads=1)
    assert shared["key"]["kernel"].shape == shared["value"]["kernel"].shape == (E, 1, 2)
    repeated = {
        name: {n: leaf.repeat(4, axis=-2) for n, leaf in shared[name].items()}
        for name in ("key", "value")
    }
    expect_same(plain(shared, X), plain({**shared, **repeated}, X))


def test_initial_kernels_have_the_fans_of_a_matrix():
    init = partial(layers.multi_head_attention_init, head_features=200, out_features=99)
    params = compiled(init, static_argnums=(1, 2))(jax.random.key(0), E, 2)
    # 3200 draws or more: a deviation is off by 1.3% at one sigma.
    for name, fan_in in (("query", E), ("value", E), ("out", 400)):
        np.testing.assert_allclose(params[name]["kernel"].std(), fan_in**-0.5, rtol=0.06)


def test_queries_and_keys_are_normed_before_they_are_turned():
    large = {**PARAMS, **{n: jax.tree.map(lambda p: 1e3 * p, PARAMS[n]) for n in ("query", "key")}}
    expect_same(full(large, X), full(PARAMS, X), 1e-4)  # where eps has no say
    query = compiled(project_query, static_argnums=3)
    heads = query(large, X, np.arange(T), rope)
    turned_back = (
        np.asarray(rope(jnp.asarray(heads), -jnp.arange(T))) / PARAMS["query_norm"]["scale"]
    )
    np.testing.assert_allclose(np.square(turned_back).mean(axis=3), 1, rtol=1e-4)


def test_only_distances_count_under_a_rotation():
    expect_same(full(PARAMS, X, positions=np.arange(T) + 11), full(PARAMS, X))


def test_cross_attention_reads_the_memory_alone():
    memory = normal(B, 4, E, seed=7)
    expect_same(plain(PARAMS, X, memory[:, ::-1]), plain(PARAMS, X, memory))
    expect_same(full(PARAMS, X, X), full(PARAMS, X), 0.0)
    one = full(PARAMS, X, memory[:, :1])  # a single key: every query reads the same
    expect_same(one, np.broadcast_to(one[:, :1], one.shape))


def test_dropout_acts_on_the_weights():
    apply = nn.self_attention(2, rate=0.5).apply

    @compiled
    def both(params, key):
        def attend(query, heads, value, *, mask, bias):
            weights = layers.attention_weights(query, heads)
            weights = layers.dropout(jax.random.clone(key), weights, 0.5)
            return jnp.einsum("bhts,bshd->bthd", weights, value)

        y, _ = apply(params, (), jnp.asarray(X), key=key, train=True)
        return y, layers.multi_head_attention(params, jnp.asarray(X), attend=attend)

    expect_same(*both(make(), jax.random.key(1)))


def test_dropout_needs_a_key_in_training_unless_the_rate_is_0():
    half, none = (nn.self_attention(2, rate=rate).apply for rate in (0.5, 0.0))
    with pytest.raises(ValueError, match="self_attention: expected a key with train=True"):
        jax.eval_shape(partial(half, train=True), make(), (), X)
    jax.eval_shape(partial(none, train=True), make(), (), X)
    jax.eval_shape(half, make(), (), X)


def test_models_are_the_functions():
    y, state = compiled(nn.self_attention(4, mask=causal_mask, rotate=rope).apply)(PARAMS, (), X)
    assert state == ()
    expect_same(y, causal(X))
    memory, params = normal(B, 3, 5), make(memory_features=5)
    y, _ = compiled(nn.cross_attention(2).apply)(params, (), (X, memory))
    expect_same(y, plain(params, X, memory))


KEY, WHOLE = jax.random.key(0), jnp.asarray(X)
UNFIT = {
    "init: expected num_heads to be a multiple of num_kv_heads, got 4 and 3": lambda: (
        layers.multi_head_attention_init(KEY, 8, 4, num_kv_heads=3)
    ),
    "init: expected in_features to be a multiple of num_heads, got 8 and 3": lambda: (
        layers.multi_head_attention_init(KEY, 8, 3)
    ),
    r"expected the query from \(batch, time, 8\), got \(2, 6, 7\)": lambda: (
        layers.multi_head_attention(PARAMS, WHOLE[..., :7])
    ),
    r"expected the key from \(batch, time, 8\), got \(2, 6, 7\)": lambda: (
        layers.multi_head_attention(PARAMS, WHOLE, WHOLE[..., :7])
    ),
    "attend_with_cache: expected a batch of 1, got": lambda: attend_with_cache(
        PARAMS, WHOLE, init_cache(PARAMS, 1, 8)
    ),
    r"self_attention: expected x of shape \(batch, time, features\), got \(2, 8\)": lambda: (
        nn.self_attention(2).init(KEY, WHOLE[:, 0])
    ),
    r"cross_attention: expected the pair \(x, memory\), got ArrayImpl": lambda: nn.cross_attention(
        2
    ).init(KEY, WHOLE),
    r"cross_attention: expected the pair \(x, memory\), got 3": lambda: nn.cross_attention(2).init(
        KEY, (WHOLE, WHOLE, WHOLE)
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("message, call", UNFIT.items())
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
