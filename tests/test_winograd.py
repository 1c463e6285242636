"""Winograd's convolution beside XLA's own, in value and in both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.layers import _winograd as winograd
from fnn.layers._convolve import _by_xla, convolve
from fnn.layers._window import Window, output_sizes
from tests.compiled import compiled, expect_same
from tests.registry.rows import normal

THREE = Window(shape=(3, 3), stride=(1, 1), dilation=(1, 1))

# Sizes, zeros, features in and out: even and odd, with and without a border, uneven and cut.
GEOMETRIES = {
    "even": ((4, 6), ((1, 1), (1, 1)), 3, 2),
    "odd": ((5, 3), ((1, 1), (1, 1)), 2, 4),
    "inside": ((6, 5), ((0, 0), (0, 0)), 2, 3),
    "full": ((2, 3), ((2, 2), (2, 2)), 1, 2),
    "uneven": ((5, 4), ((0, 2), (3, 1)), 2, 2),
    "cut": ((7, 6), ((-1, 0), (1, -2)), 2, 2),
}


def example(geometry, batch=4):
    sizes, zeros, ins, outs = GEOMETRIES[geometry]
    x, kernel = normal(batch, *sizes, ins), normal(3, 3, ins, outs, seed=1)
    places = output_sizes("test", sizes, THREE, zeros)
    return zeros, x, kernel, normal(batch, *places, outs, seed=2)


def by_winograd(zeros, x, kernel, g):
    pairs = tuple((2 - before, 2 - after) for before, after in zeros)
    return (
        winograd.winograd(zeros, x, kernel),
        winograd.winograd(pairs, g, kernel, mirrored=True),
        winograd.winograd_kernel_gradient(zeros, x, g),
    )


def by_xla(zeros, x, kernel, g):
    y, pull = jax.vjp(lambda x, kernel: _by_xla(THREE, zeros, 1, x, kernel), x, kernel)
    return (y, *pull(g))


def both(zeros):
    return (compiled(lambda *a, f=f: f(zeros, *a)) for f in (by_winograd, by_xla))


@pytest.mark.sampled(12)
@pytest.mark.parametrize("room", [winograd._BYTES, 1])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_value_and_gradients_are_those_of_xlas_own_convolution(geometry, room, monkeypatch):
    monkeypatch.setattr(winograd, "_BYTES", room)  # all at once, and one example after another
    zeros, *arrays = example(geometry)
    with jax.enable_x64(True):
        ours, xlas = both(zeros)
        wide = [a.astype(np.float64) for a in arrays]
        expect_same(ours(*wide), xlas(*wide), rtol=1e-13)  # of float64's sixteen digits


def test_it_is_as_exact_as_xlas_own_convolution():
    zeros, x, kernel = ((1, 1), (1, 1)), normal(2, 8, 8, 64) + 3, normal(3, 3, 64, 64, seed=1)
    g = normal(2, 8, 8, 64, seed=2)
    ours, xlas = both(zeros)
    with jax.enable_x64(True):
        exact = xlas(*(a.astype(np.float64) for a in (x, kernel, g)))
    for got, expected in zip(ours(x, kernel, g), exact, strict=True):
        # XLA's own: 3e-7 at most.
        assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("batch", "room", "parts"), [(12, 12, 1), (12, 5, 3), (12, 2, 6), (7, 3, 7)]
)
def test_the_batch_is_cut_into_equal_parts_of_bounded_size(batch, room, parts, monkeypatch):
    of_one = 16 * 6 * 5 * 4  # bytes: sums, tiles of 4 x 5 places, features, float32
    monkeypatch.setattr(winograd, "_BYTES", room * of_one)
    assert winograd._parts(jnp.zeros((batch, 6, 7, 2)), (4, 5), 5) == parts


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "taken"),
    [
        ((8, 8, 8, 32), (3, 3, 32, 32), 1, True),
        ((8, 8, 8, 32), (3, 3, 32, 16), 1, False),  # features too few
        ((1, 8, 8, 32), (3, 3, 32, 32), 1, False),  # tiles too few
        ((64, 3, 3, 32), (3, 3, 32, 32), 1, False),  # most tiles reach beyond the edge
        ((8, 8, 8, 32), (3, 2, 32, 32), 1, False),
        ((8, 8, 8, 32), (3, 3, 32, 32), 2, False),
    ],
)
def test_it_is_taken_where_there_is_enough_to_multiply(x, kernel, stride, taken):
    window = Window(shape=kernel[:2], stride=(stride,) * 2, dilation=(1, 1))
    arguments = (jnp.zeros(x), jnp.zeros(kernel))
    conv = jax.jit(lambda x, kernel: convolve(x, kernel, window, ((1, 1), (1, 1)), 1))
    text = conv.lower(*arguments).as_text()
    assert (text.count("dot_general") == 16) == taken
