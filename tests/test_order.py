"""The order of the data: a permutation for every epoch, whatever the sizes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.order import order, order_block

SIZES = [(1, 1), (2, 1), (5, 5), (7, 3), (10, 5), (13, 4), (16, 7), (31, 30)]
MASK = 2**32 - 1


def key(seed=0):
    return jax.random.key(seed)


@functools.cache
def positions(n, batch_size, seed=0, steps=None):
    """What the steps of three epochs, and a little more, see, one after another."""
    steps = steps or math.ceil(3 * n / batch_size)
    of_step = jax.jit(jax.vmap(lambda step: order(key(seed), step, n, batch_size)))
    return np.asarray(of_step(jnp.arange(steps))).ravel()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_every_example_comes_exactly_once_per_epoch(n, batch_size):
    seen = positions(n, batch_size)
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


@pytest.mark.parametrize("n", [13, 31])
def test_another_epoch_or_key_has_another_order(n):
    seen, other = positions(n, 4), positions(n, 4, seed=1)
    assert (seen[:n] != seen[n : 2 * n]).any()
    assert (seen[:n] != other[:n]).any()


def test_the_size_of_the_batch_only_cuts_the_same_order_elsewhere():
    assert (positions(13, 4)[:39] == positions(13, 13)[:39]).all()


def test_a_step_may_be_a_number_an_array_or_traced():
    traced = jax.jit(lambda step: order(key(), step, 7, 3))
    for step in (0, 2**31 - 1):
        known = jax.jit(lambda step=step: order(key(), step, 7, 3))()
        assert (traced(jnp.int32(step)) == known).all()
        assert (traced(step) == known).all()
        assert known.dtype == jnp.int32
    assert (order(key(), 2**31 - 1, 7, 3) == known).all()


def test_steps_at_once_are_the_steps_one_by_one():
    block = order_block(key(), jnp.int32(2), 13, 3, 4)
    one_by_one = [order(key(), step, 13, 3) for step in range(2, 6)]
    assert (block == jnp.stack(one_by_one)).all()


def test_the_key_is_not_consumed():
    one = key()
    order(one, 0, 7, 3)
    order(one, 1, 7, 3)


# A twin in Python's integers, which have no limit, from the paper's figure 1.


def hash_twin(h):
    h = ((h ^ h >> 16) * 0x7FEB352D) & MASK
    h = ((h ^ h >> 15) * 0x846CA68B) & MASK
    return h ^ h >> 16


def position_twin(words, n, p):
    """The example at place p of the epochs laid end to end."""
    epoch, x = divmod(p, n)
    seed = 0
    for word in words:
        seed = hash_twin(seed ^ word)
    seed = hash_twin(seed ^ epoch)
    for r in range(max(math.ceil(1.5 * math.log2(n)) + 2, 12)):
        salt = hash_twin((seed + r * 0x9E3779B9) & MASK)
        partner = (hash_twin(salt) % n - x) % n
        if hash_twin(max(x, partner) ^ salt) >> 31:
            x = partner
    return x


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("n", "batch_size"), [(7, 3), (60_000, 128), (2**30, 2**9), (2**30 - 35, 1000)]
)
def test_far_steps_agree_with_integers_without_limit(n, batch_size):
    words = jax.random.key_data(key(5)).ravel().tolist()
    of_step = jax.jit(lambda step: order(key(5), step, n, batch_size))
    for step in (0, 1, 10**6 + 1, 2**31 - 1):
        got = of_step(jnp.int32(step))[:3].tolist()
        assert got == [position_twin(words, n, step * batch_size + i) for i in range(3)]


def is_uniform(counts):
    """Whether Pearson's chi-squared of equally likely counts is within 4 deviations of its mean."""
    expected, freedom = counts.mean(), counts.size - 1
    return ((counts - expected) ** 2 / expected).sum() < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [3, 6, 16])
def test_every_example_is_as_likely_at_every_place_and_beside_every_other(n):
    orders = positions(n, n, seed=2, steps=6000).reshape(-1, n)
    for place in (0, n // 2, n - 1):
        assert is_uniform(np.bincount(orders[:, place], minlength=n))
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    assert (np.diag(pairs) == 0).all()
    assert is_uniform(pairs[~np.eye(n, dtype=bool)])


def test_an_order_that_favors_some_is_found():
    lazy = np.random.default_rng(0).choice(6, size=6000, p=[0.2, 0.15, 0.15, 0.15, 0.15, 0.2])
    assert not is_uniform(np.bincount(lazy))


@pytest.mark.parametrize(
    ("n", "batch_size", "message"),
    [
        (0, 1, "order: expected at least one example, got an empty dataset"),
        (-1, 1, "order: expected n to be a non-negative integer, got -1"),
        (2**30 + 1, 1, "order: expected at most 1073741824 examples, got 1073741825"),
        (5, 6, "order: expected batch_size from 1 to the 5 examples, got 6"),
        (5, 0, "order: expected batch_size to be a positive integer, got 0"),
    ],
)
def test_impossible_sizes_are_refused(n, batch_size, message):
    with pytest.raises(ValueError, match=message):
        order(key(), 0, n, batch_size)
