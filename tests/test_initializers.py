"""Bounds, fans and orthogonality of the initializers; the moments are laws of the registry."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.initializers import (
    Fan,
    fans,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    zeros,
)


def key(seed=0):
    return jax.random.key(seed)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 4), (3, 4)), ((5, 3, 4), (15, 20)), ((3, 3, 16, 32), (144, 288))],
)
def test_fans_count_the_inputs_and_outputs_of_a_unit(shape, expected):
    assert fans(shape) == expected


@pytest.mark.parametrize(
    "initializer", [fans, lambda s: he_normal()(key(), s), lambda s: orthogonal()(key(), s)]
)
def test_a_vector_has_no_fans(initializer):
    with pytest.raises(ValueError, match=r"fans: expected a kernel of shape \(..., in, out\)"):
        initializer((3,))


@pytest.mark.parametrize(
    ("initializer", "bound"),
    [
        (lecun_uniform(), math.sqrt(3 / 50)),
        (glorot_uniform(), math.sqrt(6 / 90)),
        (he_uniform(), math.sqrt(6 / 50)),
        (he_uniform(Fan.OUT), math.sqrt(6 / 40)),
        (lecun_normal(), 2 * math.sqrt(1 / 50) / 0.8796),
    ],
)
def test_the_draws_fill_their_bounds_and_stay_inside(initializer, bound):
    draws = np.abs(initializer(key(), (50, 40)))
    assert draws.max() <= bound * (1 + 1e-4)  # 0.8796 is rounded
    assert draws.max() > 0.9 * bound  # of 2000 draws, some come near


def test_the_fan_of_outputs_is_the_fan_of_inputs_of_the_transposed_shape():
    by_outputs = he_normal(Fan.OUT)(key(), (20, 30)).std()
    assert math.isclose(by_outputs, math.sqrt(2 / 30), rel_tol=0.1)  # 600 draws: 3 % a deviation


@pytest.mark.sampled(3)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (3, 2, 4), (2, 2, 9)])
def test_orthogonal_kernels_have_orthonormal_rows_or_columns(shape):
    q = np.asarray(orthogonal(2.0)(key(), shape), np.float64).reshape(-1, shape[-1])
    small = q @ q.T if q.shape[0] < q.shape[1] else q.T @ q
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_orthogonal_matrices_are_not_all_rotations_of_one_half():
    signs = [np.sign(np.linalg.det(orthogonal()(key(i), (2, 2)))) for i in range(12)]
    assert set(signs) == {-1.0, 1.0}


@pytest.mark.slow
def test_orthogonal_numbers_are_centered():
    # Without the signs of R's diagonal, the diagonal of Q would lean to one side.
    corners = [orthogonal()(key(i), (3, 3))[0, 0].item() for i in range(100)]
    assert abs(np.mean(corners)) < 4 * math.sqrt(1 / 3 / 100)  # four standard errors


def test_zeros_and_ones_need_no_key():
    assert zeros(None, (2,), jnp.bfloat16).dtype == jnp.bfloat16
    assert ones(None, (2,)).tolist() == [1, 1]


def test_the_deviation_of_a_normal_may_be_traced():
    draw = jax.jit(lambda std: normal(std)(key(1), (100,)))
    np.testing.assert_allclose(draw(3.0), 3 * draw(1.0), rtol=1e-6)
