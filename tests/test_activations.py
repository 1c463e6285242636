"""The first activations against float64 twins, and where they end."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.activations import gelu, relu, sigmoid, softmax, tanh

GRID = np.linspace(-10, 10, 401)

TWINS = {
    relu: lambda x: max(x, 0.0),
    gelu: lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    tanh: math.tanh,
    sigmoid: lambda x: 1 / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("function", TWINS, ids=lambda f: f.__name__)
def test_it_is_its_formula(function):
    twin = [TWINS[function](x) for x in GRID.tolist()]
    # The input is rounded to float32 too: 10 times 6e-8, and a few roundings of the result.
    np.testing.assert_allclose(function(jnp.asarray(GRID, jnp.float32)), twin, atol=2e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("function", "left", "right"),
    [(relu, 0, 1e4), (gelu, 0, 1e4), (tanh, -1, 1), (sigmoid, 0, 1)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_far_out_it_has_its_limits_and_a_finite_slope(function, left, right):
    far = jnp.array([-1e4, 1e4])
    assert function(far).tolist() == [left, right]
    assert jnp.isfinite(jax.grad(lambda x: function(x).sum())(far)).all()


def test_the_slope_of_relu_at_zero_is_zero():
    assert jax.grad(relu)(0.0).item() == 0


def test_the_slope_of_sigmoid_is_at_most_a_quarter():
    slopes = jax.vmap(jax.grad(sigmoid))(jnp.asarray(GRID, jnp.float32))
    assert slopes.max().item() == 0.25
    assert jax.grad(sigmoid)(0.0).item() == 0.25


def test_softmax_is_its_formula_along_any_axis():
    x = np.random.default_rng(0).normal(size=(3, 4)) * 5
    for axis in (-1, 0, 1):
        e = np.exp(x)
        twin = e / e.sum(axis=axis, keepdims=True)
        got = softmax(jnp.asarray(x, jnp.float32), axis)
        # exp turns an absolute error of the input, 10 times 6e-8, into a relative one.
        np.testing.assert_allclose(got, twin, rtol=5e-6)
        np.testing.assert_allclose(got.sum(axis=axis), 1, rtol=1e-6)


def test_softmax_does_not_see_a_number_added_to_all():
    x = jnp.array([1.0, 2.5, -3.0])
    assert softmax(x + 1024).tolist() == softmax(x).tolist()


def test_softmax_gives_nothing_to_minus_infinity_and_its_slopes_are_finite():
    x = jnp.array([[0.0, -jnp.inf, 0.0], [-jnp.inf, -jnp.inf, -jnp.inf]])
    assert softmax(x).tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]
    assert jnp.isfinite(jax.grad(lambda x: (softmax(x) ** 2).sum())(x)).all()


def test_softmax_of_bfloat16_is_the_rounded_softmax_of_float32():
    x = jnp.asarray(np.linspace(-3, 3, 300), jnp.bfloat16)
    assert (softmax(x) == softmax(x.astype(jnp.float32)).astype(jnp.bfloat16)).all()
