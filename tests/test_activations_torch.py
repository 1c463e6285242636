"""Activations against torch, and against float64 twins of those that torch lacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from fnn import activations, layers
from tests.against_torch import TOLERANCE, cotangent, expect_close, expect_like_torch, of_torch
from tests.draws import drawn, numbers, ordinary

IN_TORCH = {
    "relu": (activations.relu, F.relu),
    "relu6": (activations.relu6, F.relu6),
    "squared_relu": (activations.squared_relu, lambda x: F.relu(x) ** 2),
    "leaky_relu": (activations.leaky_relu, F.leaky_relu),
    "leaky_relu at 0.2": (lambda x: activations.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2)),
    "elu": (activations.elu, F.elu),
    "elu to -2": (lambda x: activations.elu(x, 2.0), lambda x: F.elu(x, 2.0)),
    "celu": (activations.celu, F.celu),
    "celu to -0.5": (lambda x: activations.celu(x, 0.5), lambda x: F.celu(x, 0.5)),
    "selu": (activations.selu, F.selu),
    "gelu": (activations.gelu, F.gelu),
    "gelu_tanh": (activations.gelu_tanh, lambda x: F.gelu(x, approximate="tanh")),
    "silu": (activations.silu, F.silu),
    # Not F.softplus, which is x above a threshold.
    "softplus": (activations.softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "softsign": (activations.softsign, F.softsign),
    "mish": (activations.mish, F.mish),
    "tanh": (activations.tanh, torch.tanh),
    "sigmoid": (activations.sigmoid, torch.sigmoid),
    "log_sigmoid": (activations.log_sigmoid, F.logsigmoid),
    "hard_tanh": (activations.hard_tanh, F.hardtanh),
    # Not F.hardsigmoid, whose gradient has a sixth in float32 even for float64.
    "hard_sigmoid": (activations.hard_sigmoid, lambda x: F.relu6(x + 3) / 6),
    "hard_silu": (activations.hard_silu, F.hardswish),
}
OVER_ROWS = {
    "glu": (activations.glu, F.glu),
    "softmax": (activations.softmax, lambda x: F.softmax(x, dim=-1)),
    "log_softmax": (activations.log_softmax, lambda x: F.log_softmax(x, dim=-1)),
}
SNAKES = {
    "snake": (activations.snake, None),
    "snake at frequency 0": (lambda x: activations.snake(x, 0.0), None),
}
SPARSEMAX = {"sparsemax": (activations.sparsemax, None)}
ALL = IN_TORCH | OVER_ROWS | SNAKES | SPARSEMAX
SHAPE = (3, 6)  # one shape, and so one compilation of all functions for each dtype


@jax.jit
def _values_and_gradients(x):
    """Every function at x, alone and with the gradient of its outputs weighted by `cotangent`."""
    results = {}
    for name, (function, _) in ALL.items():
        y, pull = jax.vjp(function, x)
        results[name] = function(x), y, pull(jnp.asarray(cotangent(y.shape), y.dtype))[0]
    return results


def at(name, x, dtype="float32"):
    """Value and gradient of an activation, as NumPy arrays."""
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(np.resize(np.asarray(x, np.float64), SHAPE), dtype)
        alone, y, gradient = _values_and_gradients(x)[name]
        np.testing.assert_array_equal(alone, y)  # with and without a derivative
        assert y.dtype == gradient.dtype == x.dtype
        return np.asarray(y, np.float64), np.asarray(gradient, np.float64)


def expect_as_in_torch(name, x):
    expected = of_torch(ALL[name][1], (np.resize(x, SHAPE),), moving=1)
    for dtype, rtol in TOLERANCE.items():
        got = at(name, x, dtype.__name__)
        for what, a, b in zip(("output", "gradient"), got, expected, strict=True):
            expect_close(f"{what} of {name} in {dtype.__name__}", a, b, rtol)


def over(cases):
    return pytest.mark.parametrize("name", cases)


@pytest.mark.sampled(6)
@over(IN_TORCH | OVER_ROWS)
@drawn
@given(x=numbers(*SHAPE))
def test_outputs_and_gradients_are_those_of_torch(name, x):
    expect_as_in_torch(name, x)


@over(IN_TORCH)
def test_zero_and_what_is_next_to_it_are_as_in_torch(name):
    expect_as_in_torch(name, np.array([1.0, 0.0, 1e-7, -1e-7], np.float32))


@over(IN_TORCH)
def test_numbers_of_1e4_give_what_torch_gives(name):
    expect_as_in_torch(name, np.array([1e4, -1e4, 1.0, 88.0, -88.0], np.float32))


@over(IN_TORCH | SNAKES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_number_gives_a_nan_in_value_or_gradient(name, dtype):
    largest = float(jnp.finfo(dtype).max) / 2  # the weights of the gradient go up to 1.4
    y, gradient = at(name, [0, 1e4, -1e4, largest, -largest, np.inf, -np.inf], dtype)
    assert not np.isnan(y).any()
    assert not np.isnan(gradient).any()


@over(IN_TORCH | SNAKES)
def test_a_nan_is_passed_on(name):
    assert np.isnan(at(name, [np.nan])[0]).all()


LIMITS = {  # at -inf and at inf: values, then derivatives
    "gelu": ([0, np.inf], [0, 1]),
    "gelu_tanh": ([0, np.inf], [0, 1]),
    "silu": ([0, np.inf], [0, 1]),
    "mish": ([0, np.inf], [0, 1]),
    "hard_silu": ([0, np.inf], [0, 1]),
    "softplus": ([0, np.inf], [0, 1]),
    "softsign": ([-1, 1], [0, 0]),
    "elu": ([-1, np.inf], [0, 1]),
    "celu to -0.5": ([-0.5, np.inf], [0, 1]),
    "squared_relu": ([0, np.inf], [0, np.inf]),
    "log_sigmoid": ([-np.inf, 0], [1, 0]),
    "hard_sigmoid": ([0, 1], [0, 0]),
    "snake": ([-np.inf, np.inf], [1, 1]),
}


@over(LIMITS)
def test_infinity_gives_the_limit(name):
    y, gradient = at(name, [-np.inf, np.inf])
    values, slopes = LIMITS[name]
    np.testing.assert_array_equal(y[0, :2], values)
    np.testing.assert_allclose(gradient[0, :2], slopes * cotangent(SHAPE)[0, :2], rtol=1e-6)


ROWS_WITH_INFINITIES = np.array([[-np.inf] * 6, [-np.inf, 1] * 3, [np.inf, 1, 1, 1, 1, 1]])


@over(["softmax", "log_softmax", "sparsemax"])
def test_rows_with_infinities_are_defined(name):
    y, gradient = at(name, ROWS_WITH_INFINITIES)
    p = np.exp(y) if name == "log_softmax" else y
    expected = [[0] * 6, [0, 1 / 3] * 3, [1, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(p, expected, rtol=1e-6)  # an exp and a log of float32
    assert np.isfinite(gradient).all()


@over(["softmax", "sparsemax"])
@drawn
@given(x=numbers(*SHAPE, size=1e4))
def test_rows_of_probabilities_sum_to_one(name, x):
    y, _ = at(name, x)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=-1), 1, atol=1e-6)  # six roundings of 6e-8


@jax.jit
def _along(x):
    """Of each function over rows, what it gives along each axis, moved to the last."""
    functions = (activations.softmax, activations.log_softmax, activations.sparsemax)
    return [
        [jnp.moveaxis(f(jnp.moveaxis(x, -1, axis), axis=axis), axis, -1) for axis in (0, 1, -1)]
        for f in functions
    ]


def test_any_axis_may_be_the_one_of_the_rows():
    for first, second, last in _along(ordinary(2, 3, 4)):
        np.testing.assert_allclose(first, last, rtol=1e-6)  # sums in another order
        np.testing.assert_allclose(second, last, rtol=1e-6)


def test_softmax_statistics_of_bfloat16_are_kept_in_float32():
    x = jnp.asarray(ordinary(20, 50), jnp.bfloat16)
    once = activations.softmax(x.astype(jnp.float32)).astype(jnp.bfloat16)
    assert (activations.softmax(x) == once).all()  # rounded at the end, and nowhere else


def _sparsemax_twin(z, weights):
    """Algorithm 1 of the paper for one row, and its Jacobian (section 2.5) times the weights."""
    descending = np.sort(z)[::-1]
    k = max(k for k in range(1, len(z) + 1) if 1 + k * descending[k - 1] > descending[:k].sum())
    threshold = (descending[:k].sum() - 1) / k
    support = (z > threshold).astype(float)
    jacobian = np.diag(support) - np.outer(support, support) / support.sum()
    return np.maximum(z - threshold, 0), jacobian @ weights


@drawn
@given(x=numbers(*SHAPE, size=3.0))
def test_sparsemax_and_its_gradient_follow_the_paper(x):
    twins = map(_sparsemax_twin, x.astype(float), cotangent(SHAPE))
    p, slope = map(np.stack, zip(*twins, strict=True))
    for dtype, rtol in TOLERANCE.items():
        y, gradient = at("sparsemax", x, dtype.__name__)
        expect_close("output", y, p, rtol)
        # Where the threshold meets an entry the gradient jumps, and rounding decides the side.
        if np.array_equal(y > 0, p > 0):
            expect_close("gradient", gradient, slope, rtol)


def test_the_hand_written_derivative_can_be_differentiated_again():
    x = jnp.linspace(-4, 4, 9)
    second = jax.jit(jax.vmap(jax.grad(jax.grad(activations.gelu))))(x)
    density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(second, density * (2 - x**2), atol=1e-6)  # of about 0.8


def test_gelu_tanh_is_not_gelu():
    x = np.linspace(-3, 3, 18)
    apart = np.abs(at("gelu", x)[0] - at("gelu_tanh", x)[0]).max()
    assert 3e-4 < apart < 5e-4  # as both docstrings say


def _snake_layer(x, a):
    return layers.snake({"frequency": a}, x)


def _snake_twin(x, a):
    return x + torch.sin(a * x) ** 2 / a


@drawn
@given(x=numbers(4, 3, size=5.0), a=numbers(2, 3, size=2.0))
def test_snake_and_its_frequencies_follow_the_paper(x, a):
    a = np.where(np.abs(a[1]) < 0.1, np.float32(0.7), a[1])  # the formula is 0 / 0 at 0
    expect_like_torch({"snake": (_snake_layer, _snake_twin)}, x, a, moving=2)


def test_snake_goes_to_its_limit_where_the_frequency_goes_to_0():
    slopes = jax.jit(jax.value_and_grad(activations.snake, argnums=(0, 1)))
    value, (dx, da) = slopes(3.0, 0.0)
    assert (value, dx, da) == (3.0, 1.0, 9.0)  # x + a x^2, at a = 0
    value, (dx, da) = slopes(3.0, 1e-6)
    np.testing.assert_allclose([value, dx, da], [3.0, 1.0, 9.0], rtol=1e-5)  # linear in a


def _prelu_layer(x, slope):
    return layers.prelu({"slope": slope}, x)


@drawn
@given(x=numbers(4, 3), slope=numbers(2, 3, size=2.0))
def test_prelu_and_its_slopes_are_those_of_torch(x, slope):
    cases = {"prelu": (_prelu_layer, F.prelu)}
    expect_like_torch(cases, x, slope[1], moving=2)
    expect_like_torch(cases, x, slope[1, :1], moving=2)  # one for all


def test_prelu_takes_any_number_of_leading_axes():
    x = jnp.asarray(ordinary(2, 3, 4, 5))
    params = {"slope": jnp.arange(5.0)}
    rows = layers.prelu(params, x.reshape(-1, 5))
    np.testing.assert_array_equal(layers.prelu(params, x), rows.reshape(x.shape))


@pytest.mark.parametrize("layer", ["prelu", "snake"])
def test_learned_activations_refuse_other_features(layer):
    params = getattr(layers, f"{layer}_init")(3)
    with pytest.raises(ValueError, match=rf"{layer}: expected x with 3 features .* \(2, 4\)"):
        getattr(layers, layer)(params, jnp.zeros((2, 4)))


def test_glu_refuses_an_odd_length():
    with pytest.raises(ValueError, match=r"glu: expected an even size along axis -1.*\(2, 3\)"):
        activations.glu(jnp.zeros((2, 3)))


def test_constructors_take_traced_scalars():
    def total(slope, alpha, frequency):
        x = jnp.asarray(ordinary(5))
        y = activations.leaky_relu(x, slope) + activations.elu(x, alpha)
        return (y + activations.celu(x, alpha) + activations.snake(x, frequency)).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(0.1, 1.0, 2.0)
    assert all(np.isfinite(g) and g != 0 for g in gradients)
