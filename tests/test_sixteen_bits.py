"""Sixteen bits hold values, never sums, probabilities or draws: those are in float32.

In bfloat16, 256 + 1 is 256, and 1 - 0.001 is 1.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from fnn import initializers, layers, nn
from fnn.dtypes import cast_floats, is_float
from fnn.keys import draw_normal
from tests import registry
from tests.registry.rows import normal, over_models

N = 4096
SUMS = {"reduce_sum", "cumsum", "reduce_window_sum", "scatter-add", "scatter_add"}


def key():
    return jax.random.key(0)


def is_narrow(variable):
    dtype = getattr(variable.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2


def narrow_sums(jaxpr):
    """Every equation of a program that sums in 16 bits, also inside of its loops."""
    found = []
    for equation in jaxpr.eqns:
        name, outputs = equation.primitive.name, equation.outvars
        terms = equation.invars[0].aval.size if equation.invars else 0
        sums = name in SUMS and (name[:7] in ("scatter", "cumsum") or terms > outputs[0].aval.size)
        sums = sums and not equation.params.get("unique_indices")  # which adds nothing to nothing
        if sums and is_narrow(outputs[0]):
            found.append(f"{name} of {equation.invars[-1].aval} to {outputs[0].aval}")
        if name == "scan":
            found += narrow_totals(equation)
        for inner in core.jaxprs_in_params(equation.params):
            found += narrow_sums(inner)
    return found


def narrow_totals(scan):
    """What a loop carries along in 16 bits, adding to it in each step."""
    body, first = scan.params["jaxpr"].jaxpr, scan.params["num_consts"]
    made = {variable: equation for equation in body.eqns for variable in equation.outvars}
    carried = body.invars[first : first + scan.params["num_carry"]]
    found = []
    for before, after in zip(carried, body.outvars, strict=False):
        equation = made.get(after)
        adds = equation is not None and equation.primitive.name in ("add", "add_any")
        if adds and is_narrow(before) and before in equation.invars:
            found.append(f"a total {before.aval} in a scan")
    return found


def program(model, x):
    """The gradient of a training step of a model, with everything in bfloat16."""
    params, state = jax.eval_shape(model.init, key(), x)

    def total(params, x, state):
        y, _ = model.apply(params, state, x, key=key(), train=True)
        parts = [leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(y) if is_float(leaf)]
        return sum(parts, start=jnp.float32(0))

    narrow = partial(jax.tree.map, lambda leaf: _narrow(leaf))
    return jax.make_jaxpr(jax.grad(total))(narrow(params), narrow(x), state).jaxpr


def _narrow(leaf):
    floats = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16 if floats else leaf.dtype)


@over_models(registry.MODELS)
def test_no_model_sums_a_gradient_in_sixteen_bits(row):
    assert narrow_sums(program(row.make(), jax.tree.map(jnp.asarray, row.x))) == []


def test_a_sum_in_sixteen_bits_is_found():
    narrow = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
    bias = jax.ShapeDtypeStruct((4,), jnp.bfloat16)

    def added(bias, x):
        return (x + bias[None]).astype(jnp.float32).sum()

    def gathered(table, x):
        return table[jnp.zeros(3, jnp.int32)].astype(jnp.float32).sum()

    def looped(bias, x):
        return jax.lax.scan(lambda h, x: (h * bias, ()), bias, x)[0].astype(jnp.float32).sum()

    for function in (added, gathered, looped):
        assert narrow_sums(jax.make_jaxpr(jax.grad(function))(bias, narrow).jaxpr), function


# What is compiled may still sum in 16 bits where the program does not say so: products do not.
SUMMED = {
    "linear": (nn.linear(3), normal(1, 4)),
    "conv": (nn.conv(3, (3, 3)), normal(1, 5, 5, 2)),
    "conv_transpose": (nn.conv_transpose(3, (3, 3)), normal(1, 4, 4, 2)),
    "layer_norm": (nn.layer_norm(), normal(1, 4)),
    "batch_norm": (nn.batch_norm(), normal(1, 4)),
    "embedding": (nn.embedding(5, 3), np.int32([[1, 1, 2]])),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", SUMMED)
def test_the_gradient_of_equal_examples_is_their_number_times_that_of_one(name):
    model, x = SUMMED[name]
    params, state = model.init(key(), x)

    @jax.jit
    def gradient(params, x):
        def total(params):
            y = model.apply(params, state, x, train=False)[0]
            return y.astype(jnp.float32).sum()

        return jax.grad(total)(params)

    expected = gradient(params, x)
    narrow, many = cast_floats((params, x), jnp.bfloat16), lambda x: np.repeat(x, N, axis=0)
    got = gradient(narrow[0], many(np.asarray(narrow[1])))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # A few roundings of 2^-9 in the activations; a sum in bfloat16 is off by a factor of 16.
        largest = float(jnp.abs(b).max())
        np.testing.assert_allclose(np.float32(a) / N, b, rtol=0, atol=0.03 * largest)


RATES = [0.001, 0.999]
DROPOUTS = {
    "dropout": lambda noise, x, rate: layers.dropout(noise, x, rate),
    "spatial_dropout": lambda noise, x, rate: layers.spatial_dropout(noise, x[:, None], rate),
    "drop_path": lambda noise, x, rate: layers.drop_path(noise, x.reshape(-1, 1), rate),
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", DROPOUTS)
def test_a_rate_is_kept_in_sixteen_bits(name, rate, traced):
    x = jnp.ones((400, 500), jnp.bfloat16)
    y = DROPOUTS[name](key(), x, jnp.float32(rate) if traced else rate)
    dropped = float((y == 0).mean(dtype=jnp.float32))
    # Five standard deviations of the fraction of 200,000 coins.
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
    assert y.dtype == x.dtype


@pytest.mark.sampled(2)
@pytest.mark.parametrize("rate", RATES)
def test_alpha_dropout_keeps_its_rate_and_its_moments_in_sixteen_bits(rate):
    x = draw_normal(key(), (200_000,), jnp.bfloat16)
    y = layers.alpha_dropout(jax.random.key(1), x, rate).astype(jnp.float32)
    values, counts = np.unique(np.asarray(y), return_counts=True)
    floor = counts.max() / y.size  # of the dropped ones, which are all of one value
    assert abs(floor - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size) + 0.01
    assert abs(float(y.mean())) < 0.1 and abs(float(y.std()) - 1) < 0.1


DRAWN = {
    "draw_normal": lambda: draw_normal(key(), (100_000,), jnp.bfloat16),
    "normal": lambda: initializers.normal()(key(), (100_000,), jnp.bfloat16),
    "gaussian_noise": lambda: layers.gaussian_noise(key(), jnp.zeros(100_000, jnp.bfloat16), 1.0),
}


@pytest.mark.parametrize("name", DRAWN)
def test_normal_noise_in_sixteen_bits_has_its_tails(name):
    """Of 100,000 normal numbers 270 are beyond 3; a draw from bfloat16's uniform ones has none."""
    noise = np.float32(DRAWN[name]())
    assert 180 < (np.abs(noise) > 3).sum() < 360
    assert abs(noise.std() - 1) < 0.01


@pytest.mark.sampled(12)
@pytest.mark.parametrize("row", registry.INITIALIZERS, ids=lambda row: row.name)
def test_an_initializer_draws_in_float32_and_rounds(row):
    wide = row.initializer(key(), row.shape, jnp.float32)
    narrow = row.initializer(key(), row.shape, jnp.bfloat16)
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))
