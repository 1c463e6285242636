"""Each workaround is the value of its textbook expression, and `plain` turns all of them off."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import xla
from tests import registry
from tests.registry.rows import normal

# Small leaves, a large matrix and a long vector: each is summed in another way.
SHAPES = [(3,), (5, 2), (), (100, 70), (5000,), (3, 5000)]
LEAVES = [jnp.asarray(normal(*shape, seed=i)) for i, shape in enumerate(SHAPES)]


def key():
    return jax.random.key(0)


def both(function, *args):
    """The value and the gradient, with the workarounds and without."""

    def scalar(*args):
        return jnp.sum(jnp.asarray(function(*args)) * 2)

    program = jax.jit(lambda *args: (function(*args), jax.grad(scalar)(*args)))
    found = program(*args)
    with xla.plain():
        return found, program(*args)


def expect_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # float32 sums of up to 15,000 positive terms.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_plain_turns_workarounds_off_and_on_again():
    assert not xla.is_plain() or os.environ.get("FNN_XLA_PLAIN") == "1"
    with xla.plain():
        assert xla.is_plain()


def test_a_compiled_function_is_compiled_again_where_it_is_plain():
    traced = []

    @jax.jit
    def function(x):
        traced.append(xla.is_plain())
        return x

    function(1.0), function(1.0)
    with xla.plain():
        function(1.0), function(1.0)
    function(1.0)
    assert traced == [xla.is_plain(), True][: 1 + (not xla.is_plain())]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("value", "expected"), [("1", "True"), ("0", "False"), ("", "False")])
def test_the_environment_makes_a_whole_process_plain(value, expected):
    program = "from fnn import xla; print(xla.is_plain())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FNN_XLA_PLAIN": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_joined_sums_of_squares_are_those_leaf_by_leaf():
    def sums(leaves):
        return xla.sums_of_squares(leaves, [2 * leaf for leaf in leaves])

    found, expected = both(sums, LEAVES)
    expect_close(found, expected)
    np.testing.assert_allclose(found[0][0], sum(np.square(x).sum() for x in LEAVES), rtol=1e-5)
    np.testing.assert_allclose(found[0][1], 4 * found[0][0], rtol=1e-6)


def test_sums_of_squares_are_infinite_or_nan_where_an_element_is():
    for bad in (jnp.inf, jnp.nan):
        for i, leaf in enumerate(LEAVES):
            broken = [*LEAVES[:i], leaf.at[(0,) * leaf.ndim].set(bad), *LEAVES[i + 1 :]]
            assert not np.isfinite(xla.sums_of_squares(broken)).any()


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 4, 3), (1, 2, 4, 3)])
def test_products_by_rows_are_products_over_the_last_axis(shape):
    matrix = jnp.asarray(normal(3, 5))
    found, expected = both(lambda x: xla.rows_times(x, matrix), jnp.asarray(normal(*shape)))
    expect_close(found, expected)
    expect_close(found[0], np.asarray(normal(*shape)) @ np.asarray(matrix))


@pytest.mark.parametrize("value", [3.0, jnp.inf, jnp.nan])
@pytest.mark.parametrize("reader", [2.0, jnp.inf, jnp.nan])
def test_what_is_written_after_its_readers_is_bitwise_identical(value, reader):
    x, after = jnp.full((2, 3), value), jnp.full((4,), reader)
    found, expected = both(lambda x: xla.written_after(x, after, after), x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(found[0], x)
    empty = jax.jit(xla.written_after)(x, jnp.zeros((0, 3)))
    np.testing.assert_array_equal(empty, x)


def test_slices_in_memory_are_the_slices_and_so_are_their_derivatives():
    stacked = {"small": jnp.asarray(normal(3, 4)), "large": jnp.asarray(normal(3, 70, 70))}

    def scanned(stacked):
        def body(total, i):
            here = xla.in_memory(i, jax.tree.map(lambda a: a[i], stacked))
            return total + jnp.square(here["small"]).sum() + here["large"].sum(), None

        return jax.lax.scan(body, jnp.float32(0), jnp.arange(3))[0]

    found, expected = both(scanned, stacked)
    expect_close(found, expected)
    tangent = jax.tree.map(jnp.ones_like, stacked)
    _, change = jax.jit(lambda s, t: jax.jvp(scanned, (s,), (t,)))(stacked, tangent)
    np.testing.assert_allclose(change, sum(g.sum() for g in jax.tree.leaves(found[1])) / 2, 1e-4)


def test_draws_one_after_another_are_the_draws_of_a_vmap():
    draw = jax.jit(partial(xla.draw_each, lambda key: jax.random.normal(key, (3,))))
    found = draw(key(), jnp.arange(4))
    with xla.plain():
        np.testing.assert_array_equal(found, draw(key(), jnp.arange(4)))
    np.testing.assert_array_equal(found[2], jax.random.normal(jax.random.fold_in(key(), 2), (3,)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("shape", [(3, 10), (5, 1, 7), (40,), (2, 200), (0, 4), ()])
def test_a_flat_draw_is_the_draw_of_the_shape(shape, dtype):
    for draw in (
        partial(jax.random.normal, dtype=dtype),
        partial(jax.random.uniform, dtype=dtype, minval=-1.0, maxval=2.0),
    ):
        found, expected = xla.draw_flat(draw, key(), shape), draw(key(), shape)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_array_equal(
            np.asarray(found, np.float32), np.asarray(expected, np.float32)
        )


@pytest.mark.skipif(xla.is_plain(), reason="plain draws have their own shapes")
def test_a_short_axis_is_drawn_as_one_vector():
    drawn = []

    def draw(key, shape):
        drawn.append(shape)
        return jax.random.normal(key, shape)

    for shape in ((784, 10), (784, 128), (2**18, 8)):
        jax.eval_shape(lambda key, shape=shape: xla.draw_flat(draw, key, shape), key())
    assert drawn == [(7872,), (784, 128), (2**18, 8)]


QUICK = ("linear", "layer_norm", "mlp", "cnn", "gpt", "rnn_lm", "stack with state and noise")


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.name not in QUICK))
        for row in registry.MODELS
    ],
)
def test_a_model_and_its_gradient_are_the_plain_ones(row):
    model, x = row.make(), jax.tree.map(jnp.asarray, row.x)
    params, model_state = jax.jit(model.init)(key(), x)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        outputs, new_state = model.apply(params, model_state, x, key=key(), train=True)
        floats = [y for y in jax.tree.leaves(outputs) if jnp.issubdtype(y.dtype, jnp.floating)]
        return sum(jnp.sin(y.astype(jnp.float32)).sum() for y in floats), (outputs, new_state)

    found = loss(params)
    with xla.plain():
        expected = loss(params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Sums of hundreds of float32 terms in another order, through a dozen layers.
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(b).max()))
