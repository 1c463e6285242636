"""Embeddings and positions: against PyTorch, NumPy twins of the papers, and the laws they obey."""

import contextlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fnn import layers, nn

# Against another library or a float64 twin, as a share of the largest entry.
RTOL = {np.float32: 1e-5, np.float64: 1e-10}
SAME = 2e-6  # two ways to the same float32 numbers: some ten roundings of 6e-8
V, D = 7, 4


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def expect_close(got, expected, rtol):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= rtol * np.abs(expected).max()


TABLE = {"table": jnp.asarray(numbers(V, D))}

# One program instead of one for each operation.
sinusoidal_positions = jax.jit(layers.sinusoidal_positions, static_argnames=("features", "dtype"))
rope = jax.jit(layers.rope)
alibi = jax.jit(layers.alibi, static_argnums=0)


# Embedding.


@jax.jit
def read(params, ids, weights):
    """Rows, and the gradient of their weighted sum by the table."""

    def total(params):
        rows = layers.embedding(params, ids)
        return jnp.vdot(weights, rows), rows

    gradient, rows = jax.grad(total, has_aux=True)(params)
    return rows, gradient["table"]


@example(np.float32, (1, 1), 1, 1)
@example(np.float64, (3, 5), 4, 3)
@settings(max_examples=1, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.tuples(st.integers(1, 4), st.integers(1, 5)),
    st.integers(1, 9),
    st.integers(1, 5),
)
def test_rows_and_gradients_agree_with_torch(dtype, shape, vocabulary, features):
    ids = np.random.default_rng(0).integers(vocabulary, size=shape)
    table = numbers(vocabulary, features, dtype=dtype)
    weights = numbers(*shape, features, seed=1, dtype=dtype)
    theirs = torch.tensor(table, requires_grad=True)
    rows = torch.nn.functional.embedding(torch.tensor(ids), theirs)
    (torch.tensor(weights) * rows).sum().backward()
    with jax.enable_x64(dtype == np.float64):
        got, gradient = read(*jax.tree.map(jnp.asarray, ({"table": table}, ids, weights)))
        assert got.dtype == gradient.dtype == dtype
        np.testing.assert_array_equal(got, rows.detach().numpy())
        expect_close(gradient, theirs.grad.numpy(), RTOL[dtype])


def test_the_gradient_is_0_on_rows_that_no_id_reads():
    ids = jnp.array([[1, 3], [3, 6]])
    _, gradient = read(TABLE, ids, jnp.ones((2, 2, D)))
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 2, 0, 0, 1])


@pytest.mark.parametrize("wrong", [-1, -V, -100, V, 2**31 - 1])
def test_an_id_out_of_range_gives_nan_and_reads_no_other_row(wrong):
    ids = jnp.array([2, wrong])
    rows, gradient = read(TABLE, ids, jnp.ones((2, D)))
    assert np.isnan(rows[1]).all()
    np.testing.assert_array_equal(rows[0], TABLE["table"][2])
    np.testing.assert_array_equal(gradient[:, 0], [0, 0, 1, 0, 0, 0, 0])


def test_small_and_unsigned_ids_read_the_same_rows():
    for dtype in (jnp.int8, jnp.uint32):
        rows = layers.embedding(TABLE, jnp.array([6, 0], dtype))
        np.testing.assert_array_equal(rows, TABLE["table"][jnp.array([6, 0])])


def test_nothing_is_as_large_as_one_hot_vectors():
    # Of 50 ids and 1000 rows of 2: rows and the table are small, and one-hot vectors 50000 numbers.
    ids, table = jnp.zeros(50, jnp.int32), jnp.ones((1000, 2))
    program = read.lower({"table": table}, ids, jnp.ones((50, 2))).compile()
    assert program.memory_analysis().temp_size_in_bytes < 50 * 1000


def test_attend_is_the_product_with_each_row():
    x = numbers(2, 3, D, seed=1)
    expected = x.astype(np.float64) @ np.asarray(TABLE["table"], np.float64).T
    expect_close(layers.unembed(TABLE, jnp.asarray(x)), expected, SAME)


def test_a_tied_head_shares_the_sum_of_both_gradients():
    ids = jnp.array([0, 2, 2])

    def loss(embedding, head):
        return jnp.square(layers.unembed(head, jnp.sin(layers.embedding(embedding, ids)))).sum()

    @jax.jit
    def gradients(params):
        apart = jax.grad(loss, argnums=(0, 1))(params, params)
        return jax.grad(lambda params: loss(params, params))(params), apart

    tied, (embedding, head) = gradients(TABLE)
    expect_close(tied["table"], embedding["table"] + head["table"], SAME)


def test_rows_have_length_1_on_average():
    table = jax.jit(lambda key: layers.embedding_init(key, 500, 64))(jax.random.key(0))["table"]
    # The mean of 500 squared lengths, each with variance 2 / 64, is within five deviations.
    assert abs(np.square(table).sum(axis=1).mean() - 1) <= 5 * np.sqrt(2 / 64 / 500)


# Learned positions.


def test_learned_positions_are_the_rows_from_the_start():
    table = TABLE["table"]
    np.testing.assert_array_equal(layers.learned_positions(TABLE, 3), table[:3])
    np.testing.assert_array_equal(layers.learned_positions(TABLE, 3, start=4), table[4:7])
    traced = jax.jit(lambda start: layers.learned_positions(TABLE, 3, start=start))
    np.testing.assert_array_equal(traced(4), table[4:7])
    beyond = np.asarray(traced(5))
    np.testing.assert_array_equal(beyond[:2], table[5:])
    assert np.isnan(beyond[2]).all()


def test_models_of_positions_add_them_to_each_sequence():
    x = jnp.asarray(numbers(2, 3, D, seed=1))
    y, _ = nn.learned_positions(V).apply(TABLE, (), x)
    np.testing.assert_array_equal(y, x + TABLE["table"][None, :3])
    y, _ = nn.sinusoidal_positions(base=50.0).apply({}, (), x)
    expect_close(y, x + sinusoidal_positions(jnp.arange(3), D, base=50.0)[None], SAME)


# Sinusoidal positions.


def sinusoidal_twin(positions, features, base):
    """Section 3.5 of the paper, entry by entry, in float64."""
    pairs = np.arange(features) // 2
    angles = np.asarray(positions, np.float64)[..., None] / base ** (2 * pairs / features)
    return np.where(np.arange(features) % 2 == 0, np.sin(angles), np.cos(angles))


@pytest.mark.parametrize("features", [1, 6])
def test_sinusoidal_positions_are_those_of_the_paper(features):
    positions = np.array([[0, 1, 2], [7, 500, 1000]])
    got = sinusoidal_positions(jnp.asarray(positions), features)
    # The angle 1000, rounded to float32, is off by 3e-5.
    assert np.abs(got - sinusoidal_twin(positions, features, 1e4)).max() <= 4e-5
    with jax.enable_x64(True):
        wide = sinusoidal_positions(jnp.asarray(positions), features, base=100.0, dtype=jnp.float64)
        expect_close(wide, sinusoidal_twin(positions, features, 100.0), 1e-12)


def test_the_base_of_positions_may_be_traced():
    positions, x = jnp.arange(5), jnp.asarray(numbers(5, 1, 6))

    @jax.jit
    def both(base):
        sines = layers.sinusoidal_positions(positions, 6, base=base)
        return sines, layers.rope(x, positions, base=base)

    for got, expected in zip(both(500.0), jax.jit(lambda: both.__wrapped__(500.0))(), strict=True):
        expect_close(got, expected, SAME)


def test_positions_that_bfloat16_cannot_tell_apart_are_told_apart():
    positions = jnp.array([4096, 4097])
    sines = sinusoidal_positions(positions, 2, dtype=jnp.bfloat16)
    expected = sinusoidal_twin([4096, 4097], 2, 1e4)
    # 2^-9 for bfloat16, and 2.5e-4 for the angle in float32.
    assert np.abs(sines.astype(jnp.float32) - expected).max() <= 2**-8
    turned = rope(jnp.ones((2, 1, 2), jnp.bfloat16), positions)
    assert turned.dtype == jnp.bfloat16 and (turned[0] != turned[1]).all()


# RoPE.


def rope_twin(x, positions, base):
    """Complex multiplication of feature i and i + D/2, in float64."""
    half = x.shape[-1] // 2
    angles = np.asarray(positions, np.float64)[..., None] * base ** (-np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[..., None, :]
    return np.concatenate([z.real, z.imag], axis=-1)


@pytest.mark.parametrize("per_example", [False, True])
def test_rope_rotates_the_pairs_of_halves(per_example):
    x = numbers(2, 3, 2, 6, dtype=np.float64)
    positions = np.array([[0, 1, 5], [3, 200, 4]])
    positions = positions if per_example else positions[1]
    with jax.enable_x64(True):
        got = rope(jnp.asarray(x), jnp.asarray(positions), base=300.0)
        assert got.dtype == np.float64
        expect_close(got, rope_twin(x, positions, 300.0), 1e-12)
    narrow = rope(jnp.asarray(x, jnp.float32), jnp.asarray(positions), base=300.0)
    expect_close(narrow, rope_twin(x, positions, 300.0), 2e-5)  # the angle 200 is off by 8e-6


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200)))
def test_scores_after_rope_depend_on_the_distance_alone(positions):
    i, j, shift = positions
    q, k = jnp.asarray(numbers(2, 1, 1, 8))
    here = score(q, k, jnp.array([i]), jnp.array([j]))
    there = score(q, k, jnp.array([i + shift]), jnp.array([j + shift]))
    # Angles up to 400 in float32 are off by 1.5e-5 each.
    assert abs(here - there) <= 6e-5 * np.linalg.norm(q) * np.linalg.norm(k)


@jax.jit
def score(q, k, i, j):
    return jnp.vdot(rope(q, i), rope(k, j))


def test_rope_keeps_norms_and_leaves_position_0_as_it_is():
    x = jnp.asarray(numbers(2, 5, 3, 4))
    turned = rope(x, jnp.arange(5))
    expect_close(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), SAME)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    assert (np.abs(turned - x)[:, 1:] > 1e-6).all()


# ALiBi.


def test_the_slopes_are_those_of_the_paper():
    np.testing.assert_array_equal(layers.alibi_slopes(8), [1 / 2**i for i in range(1, 9)])
    sixteen = layers.alibi_slopes(16)
    np.testing.assert_allclose(sixteen, [2 ** (-i / 2) for i in range(1, 17)], rtol=1e-15)
    # The authors' code: the slopes of 8 heads, then every second one of 16.
    np.testing.assert_allclose(
        layers.alibi_slopes(12), [*layers.alibi_slopes(8), *sixteen[:8:2]], rtol=1e-15
    )


@pytest.mark.parametrize("heads", [1, 5])
def test_the_bias_is_minus_the_slope_times_the_distance(heads):
    queries, keys = np.array([[3, 4]]), np.array([[0, 1, 2, 3, 4]])
    bias = alibi(heads, jnp.asarray(queries), jnp.asarray(keys))
    assert bias.shape == (1, heads, 2, 5)
    for h, slope in enumerate(layers.alibi_slopes(heads)):
        expect_close(bias[0, h], -slope * np.array([[3, 2, 1, 0, 1], [4, 3, 2, 1, 0]]), 1e-7)


def test_unsigned_positions_do_not_wrap_around():
    small = jnp.arange(3, dtype=jnp.uint8)
    np.testing.assert_array_equal(alibi(2, small, small), alibi(2, jnp.arange(3), jnp.arange(3)))


# Bad input.


@contextlib.contextmanager
def refused(match):
    """ValueError, as a user sees it who does not check the annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=match) as error:
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert "expected" in str(error.value) and ";" in str(error.value)


def test_ids_that_are_no_integers_are_refused():
    with refused(
        r"embedding: expected (integer ids|ids to be an array of integers), got float32\[2\]"
    ):
        layers.embedding(TABLE, jnp.zeros(2))
    with refused(r"embedding: expected integer ids, got float32\[2\]"):
        nn.embedding(V, D).init(jax.random.key(0), jax.ShapeDtypeStruct((2,), jnp.float32))


def test_vectors_that_do_not_fit_the_table_are_refused():
    with refused(r"unembed: expected x with 4 features in its last axis, got shape \(2, 3\)"):
        layers.unembed(TABLE, jnp.zeros((2, 3)))


def test_positions_beyond_the_table_are_refused():
    with refused(r"learned_positions: expected positions in \[0, 7\), got 0 to 7"):
        layers.learned_positions(TABLE, V + 1)
    with refused(r"learned_positions: expected positions in \[0, 7\), got 5 to 7"):
        layers.learned_positions(TABLE, 3, start=5)
    with refused(r"learned_positions: expected positions in \[0, 7\), got -1 to 1"):
        layers.learned_positions(TABLE, 3, start=-1)


def test_rope_refuses_what_it_cannot_rotate():
    with refused(r"rope: expected an even number of features, got x of shape \(3, 1, 5\)"):
        layers.rope(jnp.zeros((3, 1, 5)), jnp.arange(3))
    with refused(r"rope: expected positions of shape \(3,\) or \(2, 3\) .* got \(2,\)"):
        layers.rope(jnp.zeros((2, 3, 1, 4)), jnp.arange(2))


def test_alibi_refuses_no_heads():
    with refused("alibi_slopes: expected heads to be a positive integer, got 0"):
        layers.alibi_slopes(0)


@pytest.mark.parametrize("make", [lambda: nn.learned_positions(V), nn.sinusoidal_positions])
def test_models_of_positions_refuse_inputs_without_time(make):
    with refused(r"positions: expected x of shape \(batch, time, features\), got \(3, 5\)"):
        make().init(jax.random.key(0), jnp.zeros((3, 5)))
