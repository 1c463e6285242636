"""The fused cross-entropy is the plain one, without its logits in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn import losses
from tests.draws import drawn, ordinary, products

N, D, V = 10, 3, 7
KEPT = np.arange(N) != 4
OPTIONS = {
    "plain": {},
    "smoothed, with z-loss": {"label_smoothing": 0.2, "z_loss": 0.1},
    "masked, one ignored": {"where": KEPT, "ignore_index": 2, "label_smoothing": 0.2},
}


def fused(x, kernel, bias, labels, **options):
    return losses.fused_cross_entropy(x, kernel, labels, bias=bias, **options)


def plain(x, kernel, bias, labels, **options):
    z = x @ kernel if bias is None else x @ kernel + bias[None]
    return losses.cross_entropy(z, labels, **options)


@functools.cache
def _compiled(loss, chunk_rows=None):
    """Values and gradients of all the options in one program."""
    chunks = {} if chunk_rows is None else {"chunk_rows": chunk_rows}

    def all_of_them(x, kernel, bias, labels):
        def one(options):
            options = {k: jnp.asarray(v) if k == "where" else v for k, v in options.items()}
            point = x, kernel, bias
            direction = x, kernel, None if bias is None else jnp.where(bias < 0, 0, bias)

            def values(*p):
                return products(loss(*p, labels, **options, **chunks))

            y, pull = jax.vjp(values, *point)
            weights = 0.5 + jnp.arange(N, dtype=y.dtype) / N
            return y, pull(weights), jax.jvp(values, point, direction)[1]

        return {name: one(options) for name, options in OPTIONS.items()}

    return jax.jit(all_of_them)


def expect_equal(got, expected, rtol, what):
    """At most `rtol` of the largest expected entry apart."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        apart, allowed = np.abs(a - b).max(), rtol * np.abs(b).max()
        assert a.dtype == b.dtype and apart <= allowed, f"{what}: {apart:.2e} > {allowed:.2e}"


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("chunk_rows", [4, 1024])  # 10 rows in chunks of 4, 4 and 2, or in one
@drawn
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.1, 1.0, 3.0]))
def test_values_and_gradients_are_those_of_the_plain_form(chunk_rows, seed, size):
    x, kernel = size * ordinary(N, D, seed=seed), ordinary(D, V, seed=seed + 1)
    bias = ordinary(V, seed=seed + 2)
    bias[seed % V] = -np.inf if seed % 2 else 0.0  # as on a padded vocabulary
    labels = np.random.default_rng(seed).integers(V, size=N).astype(np.int32)
    labels = np.where(labels == seed % V, (seed + 1) % V, labels)
    # The same numbers, summed in another order; float32 keeps seven digits and float64 sixteen.
    for dtype, rtol in ((np.float32, 1e-6), (np.float64, 1e-14)):
        with jax.enable_x64(dtype == np.float64):
            given = *(a.astype(dtype) for a in (x, kernel, bias)), labels
            got, expected = _compiled(fused, chunk_rows)(*given), _compiled(plain)(*given)
            for name in OPTIONS:
                expect_equal(got[name], expected[name], rtol, f"{name} in {dtype.__name__}")


def along(function, *point):
    return jax.jvp(function, point, point)[1]


def reverse_over_reverse(function, *point):
    def length(*point):
        return sum(jnp.square(g).sum() for g in jax.grad(function, (0, 1))(*point))

    return jax.grad(length, (0, 1))(*point)


DERIVATIVES = {
    "reverse": lambda f, *point: jax.value_and_grad(f, argnums=(0, 1))(*point),
    "forward": along,
    "forward over reverse": lambda f, *point: along(jax.grad(f, argnums=(0, 1)), *point),
    "reverse over reverse": reverse_over_reverse,
}


def _temporary_bytes(loss, derivative, x, kernel, labels, **options):
    def of_point(x, kernel, labels):
        def total(x, kernel):
            return loss(x, kernel, None, labels, **options).mean()

        return DERIVATIVES[derivative](total, x, kernel)

    program = jax.jit(of_point).lower(x, kernel, labels).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.sampled(4)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_the_memory_does_not_hold_the_logits(derivative):
    rows, classes, chunk = 1024, 2048, 64
    shapes = [((rows, 8), jnp.float32), ((8, classes), jnp.float32), ((rows,), jnp.int32)]
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    logits = 4 * rows * classes
    assert _temporary_bytes(plain, derivative, *arrays) >= logits
    # A few arrays of the size of a chunk's logits, of x and of the kernel; measured: 1.2 MB.
    allowed = 4 * 4 * (chunk * classes + rows * 8 + 8 * classes)
    assert allowed < logits / 3
    options = dict(chunk_rows=chunk, label_smoothing=0.1, z_loss=1e-4)
    got = _temporary_bytes(fused, derivative, *arrays, **options)
    print(got, allowed, logits)
    assert got <= (2 if "over" in derivative else 1) * allowed


def test_leading_axes_are_taken_together():
    x, kernel = jnp.asarray(ordinary(2, 5, D)), jnp.asarray(ordinary(D, V))
    labels = jnp.arange(10).reshape(2, 5) % V
    loss = jax.jit(functools.partial(losses.fused_cross_entropy, chunk_rows=3))
    rows = loss(x.reshape(10, D), kernel, labels.reshape(10))
    np.testing.assert_array_equal(loss(x, kernel, labels), rows.reshape(2, 5))


def test_logits_of_bfloat16_are_float32():
    x, kernel = (jnp.asarray(ordinary(*s), jnp.bfloat16) for s in ((N, D), (D, V)))
    labels = jnp.arange(N) % V

    def total(loss):
        return jax.jit(jax.value_and_grad(lambda *p: loss(*p, None, labels).sum(), argnums=(0, 1)))

    value, gradients = total(fused)(x, kernel)
    wide, expected = total(plain)(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_allclose(value, wide, rtol=1e-6)  # the products of bfloat16 are exact
    for g, e in zip(gradients, expected, strict=True):
        assert g.dtype == jnp.bfloat16
        apart = np.abs(np.asarray(g, np.float32) - e).max()
        assert apart <= 2**-7 * np.abs(e).max()  # two bfloat16 roundings


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wrong", [-1, V])
def test_a_label_out_of_range_gives_nan(wrong):
    labels = jnp.zeros(3, jnp.int32).at[1].set(wrong)
    loss = losses.fused_cross_entropy(jnp.ones((3, D)), jnp.ones((D, V)), labels, chunk_rows=2)
    assert np.isnan(loss).tolist() == [False, True, False]


def test_scalars_may_be_traced_and_have_derivatives():
    x, kernel, labels = ordinary(N, D), ordinary(D, V), np.arange(N) % V

    def slopes(loss):
        def total(label_smoothing, z_loss):
            options = {"label_smoothing": label_smoothing, "z_loss": z_loss}
            return loss(jnp.asarray(x), jnp.asarray(kernel), None, jnp.asarray(labels), **options)

        return jax.jit(jax.grad(lambda *h: total(*h).sum(), argnums=(0, 1)))(0.1, 0.1)

    np.testing.assert_allclose(slopes(fused), slopes(plain), rtol=1e-5)  # sums of ten squares


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": jnp.zeros((V, D))}, r"expected a kernel of shape \(3, classes\)"),
        ({"labels": jnp.zeros((N, 1), jnp.int32)}, r"expected labels of shape \(10,\)"),
        ({"bias": jnp.zeros(D)}, r"expected a bias of shape \(7,\)"),
        ({"chunk_rows": 0}, "expected chunk_rows to be a positive integer or None, got 0"),
        ({"where": jnp.ones(3, bool)}, r"expected where of shape \(10,\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    given = {
        "x": jnp.zeros((N, D)),
        "kernel": jnp.zeros((D, V)),
        "labels": jnp.zeros(N, jnp.int32),
    }
    with pytest.raises(ValueError, match=f"fused_cross_entropy: {message}"):
        losses.fused_cross_entropy(**{**given, **arguments})
