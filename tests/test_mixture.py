"""The order of several sources: fractions, epochs, and a twin in integers without limit."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.order import _uint64, mixture
from tests.test_order import MASK, hash_twin, is_uniform

BATCH = 64
GOLDEN = 0x9E3779B9
CASES = {
    "one source": ((7,), (2.0,)),
    "two": ((5, 100), (0.3, 0.7)),
    "skewed": ((1, 50, 2, 9, 6), (0.01, 8.0, 0.5, 1.49, 3)),
    "one unused": ((4, 5, 6, 7), (1, 0, 2, 0)),
}


def key(seed=0):
    return jax.random.key(seed)


@functools.cache
def compiled(sizes, batch_size=BATCH):
    """One program for every key, step and weights."""
    return jax.jit(lambda key, step, weights: mixture(key, step, sizes, weights, batch_size))


@functools.cache
def drawn(case, steps=16, seed=0):
    """The sources and examples of the first steps, laid end to end."""
    sizes, weights = CASES[case]
    weights = jnp.asarray(weights, jnp.float32)
    of_step = compiled(sizes)
    batches = [of_step(key(seed), jnp.int32(step), weights) for step in range(steps)]
    return tuple(np.concatenate([np.asarray(batch[i]) for batch in batches]) for i in (0, 1))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", CASES)
def test_every_prefix_holds_the_sources_by_their_weights(case):
    source, _ = drawn(case)
    weights = np.asarray(CASES[case][1], np.float64)
    counts = np.cumsum(source[:, None] == np.arange(len(weights)), axis=0)
    wanted = np.arange(1, len(source) + 1)[:, None] * weights / weights.sum()
    # The bound of the docstring; weights are cut at 2^-24, which 1,024 draws do not show.
    assert np.abs(counts - wanted).max() < max(1, math.ceil(math.log2(len(weights)))) + 1e-3
    assert (counts[-1][weights == 0] == 0).all()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES)
def test_every_example_comes_exactly_once_per_epoch_of_its_source(case):
    source, example = drawn(case)
    for k, n in enumerate(CASES[case][0]):
        own = example[source == k]
        assert ((own >= 0) & (own < n)).all()
        for epoch in range(len(own) // n):
            assert sorted(own[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_sources_and_keys_have_orders_of_their_own():
    source, example = drawn("two")
    large = example[source == 1]
    assert (large[:100] != large[100:200]).any()
    other_source, other = drawn("two", seed=1)
    assert (large[:100] != other[other_source == 1][:100]).any()
    assert (source != other_source).any()
    twins = compiled((40, 40), 80)(key(), 0, jnp.ones(2))
    first, second = (np.asarray(twins[1])[np.asarray(twins[0]) == k] for k in (0, 1))
    assert (first != second).any()


def test_the_size_of_the_batch_only_cuts_the_same_draws_elsewhere():
    sizes, weights = CASES["skewed"]
    source, example = drawn("skewed")
    of_step = compiled(sizes, 48)
    got = [of_step(key(), jnp.int32(i), jnp.asarray(weights, jnp.float32)) for i in range(4)]
    assert (np.concatenate([g[0] for g in got]) == source[:192]).all()
    assert (np.concatenate([g[1] for g in got]) == example[:192]).all()


def test_weights_may_be_numbers_arrays_traced_or_swept_and_have_any_scale():
    sizes, weights = CASES["two"]
    plain = jax.jit(lambda: mixture(key(), 5, sizes, weights, BATCH))()
    scaled = compiled(sizes)(key(), jnp.int32(5), 1024 * jnp.asarray(weights, jnp.float32))
    sweep = jnp.array([[1.0, 1.0], weights, [0.0, 1e-20]])
    swept = jax.vmap(lambda w: compiled(sizes)(key(), 5, w))(sweep)
    for i in (0, 1):
        assert (plain[i] == scaled[i]).all() and (plain[i] == swept[i][1]).all()
        assert plain[i].dtype == jnp.int32
    assert (swept[0][2] == 1).all()


def test_each_example_is_as_likely_at_each_place():
    of_key = jax.jit(jax.vmap(lambda k: mixture(k, 0, (3, 6), (1, 2), 9)))
    source, example = map(np.asarray, of_key(jax.vmap(jax.random.key)(jnp.arange(3000))))
    for k, n in ((0, 3), (1, 6)):
        orders = example[source == k].reshape(3000, n)
        for place in (0, n - 1):
            assert is_uniform(np.bincount(orders[:, place], minlength=n))
    # The turns begin anywhere: the first source has one of the first three draws, and any of them.
    assert is_uniform(np.bincount((source[:, :3] == 0).argmax(1), minlength=3))


# A twin in Python's integers, which have no limit.


def draw_twin(words, sizes, whole, t):
    """The source and example of draw t, for whole weights."""
    seed = 0
    for word in words:
        seed = hash_twin(seed ^ word)
    depth = (len(sizes) - 1).bit_length()
    whole = [*whole, *[0] * (2**depth - len(whole))]
    node = 0
    for level in range(depth):
        width = 2 ** (depth - level - 1)
        left = sum(whole[2 * node * width : (2 * node + 1) * width])
        right = sum(whole[(2 * node + 1) * width : (2 * node + 2) * width])
        share = 2**32 if right == 0 else left * 2**32 // (left + right)
        phase = hash_twin((hash_twin(seed ^ GOLDEN) + (2**level + node) * GOLDEN) & MASK)
        before, after = ((s * share + phase) >> 32 for s in (t, t + 1))
        node, t = (2 * node, before) if after > before else (2 * node + 1, t - before)
    n = sizes[node]
    epoch, x = divmod(t, n)
    own = hash_twin((seed + (node + 1) * GOLDEN) & MASK)
    epoch_seed = hash_twin(own ^ (epoch & MASK))
    for r in range(max(math.ceil(1.5 * math.log2(max(sizes))) + 2, 12)):
        salt = hash_twin((epoch_seed + r * GOLDEN) & MASK)
        partner = (hash_twin(salt) % n - x) % n
        if hash_twin(max(x, partner) ^ salt) >> 31:
            x = partner
    return node, x


@pytest.mark.sampled(2)
@pytest.mark.parametrize("batch_size", [3, 2**17])
def test_far_steps_agree_with_integers_without_limit(batch_size):
    sizes, weights = (7, 2**30 - 35, 60_000), (5, 7, 1)
    words = jax.random.key_data(key(5)).ravel().tolist()
    whole = [w << 21 for w in weights]  # the largest, 7, has 24 bits then
    of_step = jax.jit(lambda step: mixture(key(5), step, sizes, weights, batch_size))
    for step in (0, 1, 10**6 + 1, 2**31 - 1):
        source, example = (np.asarray(part)[:9].tolist() for part in of_step(jnp.int32(step)))
        twins = [draw_twin(words, sizes, whole, step * batch_size + i) for i in range(9)]
        assert list(zip(source, example, strict=True)) == twins[: len(source)]


@pytest.mark.parametrize(
    ("sizes", "weights", "batch_size", "message"),
    [
        ((), (), 1, "mixture: expected sources of 1 to 1073741824 examples, got sizes ()"),
        ((3, 0), (1, 1), 1, "expected sources of 1 to 1073741824 examples, got sizes (3, 0)"),
        ((2**30 + 1,), (1,), 1, "mixture: expected sources of 1 to 1073741824 examples"),
        ((3, 4), (1,), 1, "mixture: expected a weight for each of 2 sources, got 1"),
        ((3, 4), (1, -1), 1, "mixture: expected finite weights of at least 0, not all 0"),
        ((3, 4), (0, 0), 1, "mixture: expected finite weights of at least 0, not all 0"),
        ((3, 4), (1, math.inf), 1, "mixture: expected finite weights of at least 0, not all 0"),
        ((3, 4), (1, 1), 0, "mixture: expected batch_size to be a positive integer, got 0"),
    ],
)
def test_impossible_mixtures_are_refused(sizes, weights, batch_size, message):
    with pytest.raises(ValueError) as error:
        mixture(key(), 0, sizes, weights, batch_size)
    assert message in str(error.value)


@pytest.mark.slow
def test_arithmetic_of_64_bits_is_that_of_python():
    words = [0, 1, 5, 2**16, 2**31, 2**32 - 1]
    for a, b in itertools.product(words, words):
        x, y = jnp.uint32(a), jnp.uint32(b)
        assert as_int(_uint64.multiply(x, y)) == a * b
        assert as_int(_uint64.add((x, x), y)) == (a * 2**32 + a + b) % 2**64
        assert as_int(_uint64.subtract((x, x), (y, y))) == ((a - b) * (2**32 + 1)) % 2**64
        if 0 < b <= 2**31:
            quotient, rest = _uint64.divide((x, x), y)
            assert (int(quotient), int(rest)) == ((a * 2**32 + a) // b % 2**32, (a * 2**32 + a) % b)


def as_int(wide):
    return int(wide[0]) * 2**32 + int(wide[1])
