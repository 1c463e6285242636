"""Resizing and shuffling beside torch's, and the inverses."""

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
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.slow
@settings(max_examples=8)  # each compiles two programs
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=3))
def test_resizing_and_its_gradients_are_those_of_torch(axes):
    old, new = zip(*axes, strict=True)

    def reference(mode, **options):
        call = lambda x: F.interpolate(x.movedim(-1, 1), new, mode=mode, **options)  # noqa: E731
        return lambda x: call(x).movedim(1, -1)

    linear = reference(LINEAR[len(axes)], align_corners=False)
    cases = {
        "nearest": (lambda x: layers.resize_nearest(x, new), reference("nearest")),
        "linear": (lambda x: layers.resize_linear(x, new), linear),
    }
    expect_like_torch(cases, normal(2, *old, 2))


def test_scaling_up_and_its_gradients_are_those_of_torch():
    def reference(mode, **options):
        call = lambda x: F.interpolate(x.movedim(-1, 1), scale_factor=3, mode=mode, **options)  # noqa: E731
        return lambda x: call(x).movedim(1, -1)

    cases = {
        "nearest": (lambda x: layers.upsample_nearest(x, (3, 3)), reference("nearest")),
        "linear": (
            lambda x: layers.upsample_linear(x, (3, 3)),
            reference("bilinear", align_corners=False),
        ),
    }
    expect_like_torch(cases, normal(1, 3, 2, 2))


def test_shuffling_pixels_is_that_of_torch():
    first = lambda f: lambda x: f(x.movedim(-1, 1), 2).movedim(1, -1)  # noqa: E731
    cases = {"shuffle": (lambda x: layers.pixel_shuffle(x, (2, 2)), first(F.pixel_shuffle))}
    expect_like_torch(cases, normal(2, 2, 3, 8))
    cases = {"unshuffle": (lambda x: layers.pixel_unshuffle(x, (2, 2)), first(F.pixel_unshuffle))}
    expect_like_torch(cases, normal(2, 4, 6, 3))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("block", [(2,), (2, 3), (1, 3, 2)])
def test_shuffling_and_cutting_have_inverses(block):
    sizes = tuple(2 * n for n in block)
    x = jnp.asarray(normal(2, *sizes, 3))
    for there, back in [
        (layers.pixel_unshuffle, layers.pixel_shuffle),
        (layers.patchify, layers.unpatchify),
    ]:
        y = there(x, block)
        assert y.shape == (2, *(2,) * len(block), 3 * np.prod(block))
        np.testing.assert_array_equal(back(y, block), x)


@pytest.mark.parametrize("block", [(2,), (2, 3)])
def test_tiles_are_the_patches_that_do_not_overlap(block):
    x = jnp.asarray(normal(2, *(2 * n for n in block), 3))
    expected = layers.patches(x, block, stride=block)
    np.testing.assert_array_equal(layers.patchify(x, block), expected)


def test_a_line_stays_a_line_between_the_outer_entries():
    x = jnp.arange(5.0).reshape(1, 5, 1)
    y = np.asarray(layers.resize_linear(x, (15,))).ravel()
    # Steps of 1/3 where both neighbors exist; float32 rounds numbers below 4 to 2.4e-7.
    np.testing.assert_allclose(np.diff(y[1:-1]), 1 / 3, atol=1e-6)
    assert y[0] == y[1] - y[1] and y[-1] == 4.0


def test_the_same_size_gives_the_same_bits():
    x = jnp.asarray(normal(2, 3, 4, 2))
    for resize in (layers.resize_nearest, layers.resize_linear):
        np.testing.assert_array_equal(resize(x, (3, 4)), x)


def refused(match, function, *args):
    with pytest.raises(ValueError, match=match) as error:
        unchecked(function)(*args)
    assert "expected" in str(error.value) and "got" in str(error.value)


def test_bad_input_is_refused_with_what_was_expected():
    x = jnp.ones((1, 4, 4, 3))
    refused("1 window axis", layers.resize_nearest, jnp.ones((2, 3)), (4,))
    refused("positive integer", layers.resize_linear, x, (4, 0))
    refused("3 window axes", layers.upsample_linear, x, (2, 2, 2))
    refused("positive integer", layers.upsample_nearest, x, (0, 2))
    refused("that 4 divides", layers.pixel_shuffle, x, (2, 2))
    refused("that the patch", layers.pixel_unshuffle, x, (3, 3))
    refused("that the patch", layers.patchify, x, (3, 3))
    refused("that 4 divides", layers.unpatchify, x, (2, 2))
