"""Linear maps over several axes, einsum and bilinear, beside NumPy and torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fnn import layers, nn
from tests.against_torch import expect_like_torch
from tests.registry.rows import normal
from tests.shapes import unchecked


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("axes", "x", "kernel", "equation"),
    [
        (-1, (2, 3, 4), (4, 2, 5), "abi,ixy->abxy"),
        ((-2, -1), (2, 3, 4), (3, 4, 5), "aij,ijx->ax"),
        ((3, 1), (2, 3, 4, 5), (5, 3, 2), "ajbi,ijx->abx"),
        ((1,), (2, 3), (3,), "ai,i->a"),
    ],
)
def test_axes_are_summed_and_made_as_in_an_einsum(axes, x, kernel, equation):
    made = kernel[(1 if isinstance(axes, int) else len(axes)) :]
    cases = {
        "linear_general": (
            lambda x, k, b: layers.linear_general({"kernel": k, "bias": b}, x, axes=axes),
            lambda x, k, b: torch.einsum(equation, x, k) + b,
        )
    }
    expect_like_torch(cases, normal(*x), normal(*kernel, seed=1), normal(*made, seed=2), moving=3)


def test_with_one_axis_each_it_is_the_linear_layer():
    x, params = jnp.asarray(normal(4, 3)), layers.linear_init(jax.random.key(0), 3, 2)
    same = layers.linear_general_init(jax.random.key(0), (3,), (2,))
    assert jax.tree.map(jnp.array_equal, params, same) == {"kernel": True, "bias": True}
    np.testing.assert_array_equal(layers.linear_general(params, x), layers.linear(params, x))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("equation", "x", "sizes", "kernel", "bias"),
    [
        ("btd,dhk->bthk", (2, 3, 4), {"h": 2, "k": 5}, (4, 2, 5), (2, 5)),
        ("...d,hd->...h", (2, 3, 4), {"h": 5}, (5, 4), (5,)),
        ("bgi,gio->gbo", (2, 3, 4), {"o": 5}, (3, 4, 5), (3, 1, 5)),
        ("b...c,ac->ba...", (2, 3, 4, 5), {"a": 2}, (2, 5), (2, 1, 1)),
        ("bhk,k->bhk", (2, 3, 4), {}, (4,), (4,)),
    ],
)
def test_an_equation_gives_the_shapes_and_the_numbers(equation, x, sizes, kernel, bias):
    model = nn.einsum(equation, **sizes)
    like = jax.ShapeDtypeStruct(x, jnp.float32)
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), like))
    kept = tuple(n for n in bias if n > 1)  # the ones only put the others in their place
    assert params["kernel"].shape == kernel and params["bias"].shape == kept
    cases = {
        "einsum": (
            lambda x, k, b: layers.einsum({"kernel": k, "bias": b}, equation, x),
            lambda x, k, b: torch.einsum(equation, x, k) + b.reshape(bias),
        )
    }
    expect_like_torch(cases, normal(*x), normal(*kernel, seed=1), normal(*kept, seed=2), moving=3)


def test_the_kernel_of_an_equation_keeps_the_variance_of_its_input():
    # 64 inputs, 3 * 100 outputs and 2 maps of their own: 38400 numbers, whose deviation is within
    # 1/sqrt(2 * 38400) = 0.4 % of the true one; 2 % is five deviations.
    params = layers.einsum_init(jax.random.key(0), "bgi,iogp->bgop", dict(g=2, i=64, o=3, p=100))
    assert params["kernel"].shape == (64, 3, 2, 100)
    np.testing.assert_allclose(params["kernel"].std(), 1 / 8, rtol=0.02)
    params = layers.linear_general_init(jax.random.key(0), (4, 16), (3, 200))
    np.testing.assert_allclose(params["kernel"].std(), 1 / 8, rtol=0.02)


def test_bilinear_is_that_of_torch():
    cases = {
        "bilinear": (
            lambda a, b, k, c: layers.bilinear({"kernel": k, "bias": c}, a, b),
            lambda a, b, k, c: F.bilinear(a, b, k.movedim(-1, 0).contiguous(), c),
        )
    }
    left, right = normal(2, 5, 3), normal(2, 5, 4, seed=1)
    expect_like_torch(cases, left, right, normal(3, 4, 2, seed=2), normal(2, seed=3), moving=4)


def refused(match, function, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as error:
        unchecked(function)(*args, **kwargs)
    assert "expected" in str(error.value) and "got" in str(error.value)


def test_bad_input_is_refused_with_what_was_expected():
    x, params = jnp.ones((2, 3, 4)), {"kernel": jnp.ones((3, 4, 5))}
    refused("sizes of the kernel", layers.linear_general, params, x, axes=(2, 1))
    refused("axes of x", layers.linear_general, params, x, axes=3)
    refused("leading axes", layers.bilinear, params, jnp.ones((2, 3)), jnp.ones((1, 4)))
    refused("leading axes", layers.bilinear, params, jnp.ones((2, 4)), jnp.ones((2, 3)))
    init = functools.partial(layers.einsum_init, jax.random.key(0))
    for equation in ("ab,bc", "ab,bc->ad", "aab,bc->ac", "ab,bcd->ac", "a...b,bc->ac", "ab->a"):
        refused("an equation", init, equation, {"b": 1, "c": 1, "d": 1})
    refused("the size of every axis", init, "ab,bc->ac", {"b": 2})
    refused("one axis for each letter", layers.einsum, params, "ab,bcd->acd", x)
    refused("to fit", layers.einsum, params, "abd,bdc->ac", jnp.ones((2, 4, 3)))
    contradicted = nn.einsum("ab,bc->ac", b=3, c=2)
    refused("drop the sizes", contradicted.init, jax.random.key(0), jnp.ones((1, 2)))
