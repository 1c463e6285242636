"""Pooling beside torch's: outputs, gradients, and which of equal entries has the gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn import layers
from tests.against_torch import expect_like_torch
from tests.registry.rows import normal
from tests.shapes import unchecked

torch.set_num_threads(1)


@st.composite
def geometries(draw):
    """Sizes, window, stride and pairs of padding below the window, with room for a place."""
    axes = draw(st.integers(1, 3))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    pairs = tuple((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))) for n in window)
    return {
        "sizes": tuple(n + draw(st.integers(0, 4)) for n in window),
        "window": window,
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(axes)),
        "padding": pairs,
        "batch": draw(st.integers(1, 2)),
    }


def torch_pool(name, x, window, stride, padding, fill=0.0, **options):
    pool = getattr(F, f"{name}_pool{len(window)}d")
    padded = F.pad(x.movedim(-1, 1), [n for p in reversed(padding) for n in p], value=fill)
    return pool(padded, window, stride=stride, **options).movedim(1, -1)


@pytest.mark.slow
@settings(max_examples=8)  # each compiles two programs
@given(geometries())
def test_pools_and_their_gradients_are_those_of_torch(g):
    window, options = g["window"], {"stride": g["stride"], "padding": g["padding"]}

    def torch_average(x):
        total = torch_pool("avg", x, window, **options)
        return total / torch_pool("avg", torch.ones_like(x), window, **options)

    def torch_sum(x):
        return torch_pool("avg", x, window, **options) * math.prod(window)

    cases = {
        "max": (
            lambda x: layers.max_pool(x, window, **options),
            lambda x: torch_pool("max", x, window, fill=-math.inf, **options),
        ),
        "average": (lambda x: layers.average_pool(x, window, **options), torch_average),
        "sum": (lambda x: layers.sum_pool(x, window, **options), torch_sum),
    }
    expect_like_torch(cases, normal(g["batch"], *g["sizes"], 2))


def test_symmetric_padding_is_torchs_own():
    def reference(x):
        y = F.avg_pool2d(x.movedim(-1, 1), 3, 2, padding=1, count_include_pad=False)
        return y.movedim(1, -1)

    pairs = ((1, 1), (1, 1))
    case = lambda x: layers.average_pool(x, (3, 3), stride=2, padding=pairs)  # noqa: E731
    expect_like_torch({"average": (case, reference)}, normal(2, 5, 6, 2))


@pytest.mark.slow
@settings(max_examples=6)  # each compiles two programs
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5)), min_size=1, max_size=2))
def test_adaptive_pools_and_their_gradients_are_those_of_torch(axes):
    sizes, places = zip(*axes, strict=True)

    def reference(name):
        pool = getattr(F, f"adaptive_{name}_pool{len(axes)}d")
        return lambda x: pool(x.movedim(-1, 1), places).movedim(1, -1)

    cases = {
        "max": (lambda x: layers.adaptive_max_pool(x, places), reference("max")),
        "average": (lambda x: layers.adaptive_average_pool(x, places), reference("avg")),
    }
    expect_like_torch(cases, normal(2, *sizes, 2))


def test_global_pools_are_those_of_torch():
    cases = {
        "max": (layers.global_max_pool, lambda x: x.amax((1, 2))),
        "average": (layers.global_average_pool, lambda x: x.mean((1, 2))),
    }
    expect_like_torch(cases, normal(2, 3, 4, 2))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("window", [(2, 2), (3, 2)])  # at once, and an axis at a time
def test_of_equal_entries_the_first_has_the_gradient_as_in_torch(window):
    cases = {
        "max": (
            lambda x: layers.max_pool(x, window, stride=1),
            lambda x: torch_pool("max", x, window, 1, ((0, 0), (0, 0))),
        ),
        "adaptive": (
            lambda x: layers.adaptive_max_pool(x, (2, 2)),
            lambda x: F.adaptive_max_pool2d(x.movedim(-1, 1), 2).movedim(1, -1),
        ),
    }
    few = np.random.default_rng(0).integers(2, size=(2, 5, 5, 1)).astype(np.float32)
    expect_like_torch(cases, few)
    expect_like_torch(cases, np.zeros((2, 5, 5, 1), np.float32))


def test_nan_wins_over_every_number():
    x = jnp.array([1.0, jnp.nan, 3.0, 2.0, 0.0]).reshape(1, 5, 1)
    assert np.isnan(layers.max_pool(x, (3,), stride=1)).ravel().tolist() == [True, True, False]


@pytest.mark.parametrize("size", [4, 5])
def test_a_constant_stays_what_it_is_under_every_padding(size):
    pools = (layers.max_pool, layers.average_pool)
    choices = [
        (pool, stride, p)
        for pool in pools
        for stride in (1, 2)
        for p in ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT")
    ]
    every = jax.jit(lambda x: [f(x, (3,), stride=s, padding=p) for f, s, p in choices])
    for y, choice in zip(every(jnp.full((1, size, 2), 3.0)), choices, strict=True):
        assert y.size and (np.asarray(y) == 3.0).all(), choice


def test_half_precision_is_summed_in_single():
    x = jnp.array([256, 1, 1], jnp.bfloat16).reshape(1, 3, 1)
    y = layers.sum_pool(x, (3,))
    assert y.dtype == jnp.bfloat16 and y.item() == 258  # in bfloat16, 256 + 1 is 256


def test_the_stride_is_the_window_unless_it_is_given():
    x = jnp.arange(6.0).reshape(1, 6, 1)
    assert layers.max_pool(x, (3,)).ravel().tolist() == [2.0, 5.0]
    assert layers.max_pool(x, (3,), stride=1).ravel().tolist() == [2.0, 3.0, 4.0, 5.0]


def test_no_pool_uses_a_window_reduction_which_is_slow_on_a_cpu():
    def total(x):
        pools = (layers.max_pool, layers.average_pool, layers.sum_pool)
        return sum(pool(x, (3, 3), stride=2, padding="SAME").sum() for pool in pools)

    text = jax.jit(jax.grad(total)).lower(jnp.zeros((1, 5, 5, 1))).as_text()
    assert "reduce_window" not in text and "select_and_scatter" not in text


def refused(match, pool, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as error:
        unchecked(pool)(*args, **kwargs)
    assert "expected" in str(error.value) and "got" in str(error.value)


def test_bad_input_is_refused_with_what_was_expected():
    x = jnp.ones((1, 4, 4, 2))
    refused("1 window axis", layers.max_pool, x, (2,))
    refused("kernel_size to be a positive", layers.max_pool, x, (0, 2))
    refused("stride to be a positive", layers.average_pool, x, (2, 2), stride=(1, 0))
    refused("at least", layers.sum_pool, x, (5, 5))
    refused("padding below the window", layers.max_pool, x, (2, 2), padding=((2, 0), (0, 0)))
    refused("one pair", layers.average_pool, x, (2, 2), padding=((1, 0),))
    refused("longer than their padding", layers.max_pool, x[:, :1], (3, 3), padding="REFLECT")
    refused("no axis", layers.global_average_pool, jnp.ones((2, 3)))
    refused("no axis", layers.global_max_pool, jnp.ones((2, 3)))
    refused("2 window axes", layers.adaptive_max_pool, jnp.ones((2, 3)), (2, 2))
    refused("3 window axes", layers.adaptive_average_pool, x, (1, 2, 3))
    refused("output_size to be a positive", layers.adaptive_average_pool, x, (1, 0))
