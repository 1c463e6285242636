"""Maths and names on pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn import tree
from fnn.autodiff import safe_sqrt
from fnn.expect import expect_alike, spec

PARAMS = {"layers": [{"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}], "head": jnp.ones(2)}

# Finite, and small enough that their squares are finite in float32.
NUMBERS = st.floats(-(2.0**50), 2.0**50, width=32)


def test_paths_name_the_leaves_in_order():
    assert tree.paths(PARAMS) == ["head", "layers/0/bias", "layers/0/kernel"]


def test_a_function_of_path_and_leaves_maps_over_several_trees():
    got = tree.map_with_path(lambda path, x, y: (path, x + y), {"a": [1, 2]}, {"a": [3, 4]})
    assert got == {"a": [("a/0", 4), ("a/1", 6)]}


def test_a_mask_matches_any_of_its_patterns():
    mask = tree.matching("*bias", "hea?")(PARAMS)
    assert mask == {"layers": [{"kernel": False, "bias": True}], "head": True}


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"matching: expected '\*scale' to match a leaf"):
        tree.matching("*bias", "*scale")(PARAMS)


def test_the_count_is_the_number_of_numbers():
    assert tree.count(PARAMS) == 11
    assert tree.count({}) == 0


@pytest.mark.slow
@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_the_global_norm_is_that_of_one_long_vector(numbers):
    leaves = [jnp.float32(number) for number in numbers]
    twin = np.linalg.norm(np.array(numbers, np.float64))
    # Squares below 1e-38 vanish in float32.
    np.testing.assert_allclose(tree.global_norm(leaves), twin, rtol=1e-5, atol=1e-18)


def test_the_norm_of_zeros_has_a_slope_of_zero():
    zeros = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    norm, slope = jax.value_and_grad(tree.global_norm)(zeros)
    assert norm.item() == 0
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(slope))


def test_the_slope_of_the_norm_is_the_unit_vector():
    x = jnp.array([3.0, 4.0])
    np.testing.assert_allclose(jax.grad(tree.global_norm)(x), [0.6, 0.8], rtol=1e-6)


def test_sums_of_many_bfloat16_numbers_are_taken_in_float32():
    for count in (1000, 5000):  # small leaves are summed together, large ones alone
        squares = tree.squared_norms({"w": jnp.ones(count, jnp.bfloat16)})
        assert squares.dtype == jnp.float32
        assert squares.tolist() == [count]


def test_the_norms_of_several_trees_are_taken_at_once():
    one, other = (
        {"a": jnp.array([3.0]), "b": jnp.ones(5000)},
        {"a": jnp.ones(1), "b": jnp.zeros(5000)},
    )
    assert tree.squared_norms(one, other).tolist() == [5009, 1]


def test_the_norm_of_nothing_is_zero():
    assert tree.global_norm({}).item() == 0


def test_the_safe_root_is_the_root_with_a_slope_of_zero_at_zero():
    x = jnp.array([0.0, 4.0, 1e-30])
    np.testing.assert_allclose(safe_sqrt(x), np.sqrt(x), rtol=1e-6)
    slopes = jax.vmap(jax.grad(safe_sqrt))(x)
    np.testing.assert_allclose(slopes, [0, 0.25, 0.5e15], rtol=1e-6)
    assert jnp.isfinite(jax.vmap(jax.grad(jax.grad(safe_sqrt)))(x)[0])


def test_updates_are_added_in_float32_and_rounded_once():
    params = {"w": jnp.ones(1, jnp.bfloat16)}
    # Two halves of a bfloat16 step above 1: rounded to bfloat16 first, they would be half a step.
    updates = {"w": jnp.array([2.0**-8 + 2.0**-10])}
    after = tree.add(params, updates)["w"]
    assert after.dtype == jnp.bfloat16
    assert after.tolist() == [1 + 2.0**-7]


def test_zeros_for_moments_are_in_at_least_float32():
    zeros = tree.zeros_like({"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones((), jnp.float32)})
    assert jax.tree.map(spec, zeros) == {"a": "float32[2]", "b": "float32[]"}
    with jax.enable_x64(True):
        assert tree.zeros_like(jnp.ones(2, jnp.float64)).dtype == jnp.float64


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_one_bad_number_anywhere_is_not_finite(bad):
    leaves = {"a": jnp.ones(3), "b": [jnp.array([1.0, bad])]}
    assert not tree.all_finite(leaves)
    assert tree.all_finite({"a": jnp.ones(3), "n": jnp.arange(2)})


def test_trees_that_differ_are_told_apart_leaf_by_leaf():
    got = {"layers": [{"kernel": jnp.ones((3, 3)), "scale": jnp.ones(3)}], "head": jnp.ones(2)}
    with pytest.raises(ValueError) as error:
        expect_alike("checkpoint", PARAMS, got)
    assert str(error.value).splitlines() == [
        "checkpoint differ:",
        "  layers/0/bias: expected float32[3], got no such leaf",
        "  layers/0/scale: expected no such leaf, got float32[3]",
        "  layers/0/kernel: expected float32[2,3], got float32[3,3]",
    ]


def test_dtypes_are_compared_on_request():
    half = {"w": jnp.ones(2, jnp.bfloat16)}
    expect_alike("trees", half, {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"w: expected bfloat16\[2\], got float32\[2\]"):
        expect_alike("trees", half, {"w": jnp.ones(2)}, dtypes=True)


def test_the_norm_of_an_empty_leaf_is_zero():
    assert tree.global_norm([jnp.zeros((0, 3))]).item() == 0


def test_sums_of_squares_are_those_of_all_leaves_however_many_are_small():
    many = [jnp.full(100, 0.5), jnp.full((41, 100), 2.0), *(jnp.full(100, 0.5) for _ in range(50))]
    np.testing.assert_allclose(
        tree.squared_norms(many, jax.tree.map(jnp.sqrt, many)), [17675.0, 10750.0], rtol=1e-6
    )


SHAPES = {"matrix": (40, 300), "kernel": (3, 3, 16, 64), "vector": (5000,), "long rows": (2, 5000)}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", [*SHAPES.values(), (2, 3)], ids=[*SHAPES, "small"])
def test_sums_of_squares_are_those_in_float64(shape):
    leaf = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    trees = {"a": leaf, "b": jnp.bfloat16(2)}, {"a": 3 * leaf, "b": jnp.bfloat16(0)}
    sums = jax.jit(lambda *trees: tree.squared_norms(*trees))
    exact = np.square(leaf.astype(np.float64)).sum()
    found = sums(*trees)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [exact + 4, 9 * exact], rtol=2e-6)
    slope = jax.grad(lambda t: sums(t)[0])(trees[0])["a"]
    np.testing.assert_allclose(slope, 2 * leaf, rtol=1e-6)
    for strange in (np.inf, np.nan):
        spoiled = leaf.copy()
        spoiled.flat[-1] = strange
        np.testing.assert_equal(np.asarray(sums({"a": spoiled}))[0], np.float32(strange))


def test_in_float64_the_sums_of_squares_are_too():
    with jax.enable_x64(True):
        leaf = np.random.default_rng(0).normal(size=(40, 300))
        (found,) = tree.squared_norms({"a": jnp.asarray(leaf)})
        np.testing.assert_allclose(found, np.square(leaf).sum(), rtol=1e-14)
