"""Guards see what they forbid, and nothing else."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import Recipe, losses, nn, optim, schedules
from fnn.testing import (
    costs_at_most,
    explain_retrace,
    keys_used_once,
    no_leaks,
    no_recompiles,
    no_transfers,
)
from fnn.train import make_init, make_step

KEY, HYPER = jax.random.key(0), {"lr": jnp.float32(0.1)}
X = jnp.ones((4, 3))


def recipe(hyper):
    return Recipe(
        nn.sequential(nn.linear(2), nn.dropout(0.5)),
        losses.mean_squared_error,
        optim.adam(),
        schedules.constant(hyper["lr"]),
    )


def test_a_training_loop_passes_all_guards_after_its_first_step():
    state = jax.jit(make_init(recipe))(KEY, HYPER, X)
    step, batch = jax.jit(make_step(recipe)), (X, X[:, :2])
    with no_leaks(), keys_used_once():
        jax.eval_shape(make_step(recipe), state, batch, KEY, HYPER)
    state, _ = step(state, batch, KEY, HYPER)
    with no_recompiles() as compiled, no_transfers():
        for _ in range(3):
            state, _ = step(state, batch, KEY, HYPER)
    assert compiled == []


def test_recompiles_are_counted_and_named():
    def double(x):
        return 2 * x

    short, long, longer = (jnp.ones(n) for n in (2, 3, 4))
    step = jax.jit(double)
    step(short)
    with no_recompiles(allowed=2) as compiled:
        step(short), step(long), step(longer)
    assert compiled == ["jit(double)"] * 2
    again = jax.jit(lambda x: 3 * x)
    with pytest.raises(
        AssertionError, match=r"at most 1 compilations, got 2, of jit\(<lambda>\), "
    ):
        with no_recompiles(allowed=1):
            again(short), again(long)


def test_an_error_in_the_block_comes_before_the_count():
    with pytest.raises(ZeroDivisionError), no_recompiles():
        jax.jit(lambda x: x + 1)(X)
        1 / 0  # noqa: B018


def test_a_guard_ends_with_its_block():
    with no_recompiles() as compiled:
        pass
    jax.jit(lambda x: x + 1)(X)
    assert compiled == []


@pytest.mark.parametrize("value", [0.1, np.float32(0.1), np.ones((4, 3), np.float32)])
def test_transfers_from_the_host_are_noticed(value):
    step = jax.jit(lambda x, y: x * y)
    with pytest.raises(AssertionError, match="got float32.* from the host; put it on the device"):
        with no_transfers():
            step(X, value)
    with no_transfers():
        step(X, jax.device_put(value))


def test_other_errors_pass_through():
    two, three = jnp.ones(2), jnp.ones(3)
    for guard in (no_transfers, no_leaks, keys_used_once):
        with pytest.raises(TypeError, match="add got incompatible shapes"), guard():
            jax.lax.add(two, three)


def test_a_leak_is_noticed():
    kept = []

    def leaky(x):
        kept.append(x)
        return x + 1

    with pytest.raises(AssertionError, match="expected no traced value to survive"), no_leaks():
        jax.jit(leaky)(X)


@pytest.mark.parametrize("inside_jit", [False, True])
def test_a_key_used_twice_is_noticed(inside_jit):
    def draws(key):
        return jax.random.normal(key), jax.random.normal(key)

    with pytest.raises(AssertionError, match="expected each key to draw once"), keys_used_once():
        (jax.jit(draws) if inside_jit else draws)(jax.random.key(1))
    with keys_used_once():
        for key in jax.random.split(jax.random.key(2)):
            jax.random.normal(key)


# name: two tuples of arguments, and what is said of them
PAIRS = {
    "the same": ((X, 0.1), (X + 1, 0.2), ""),
    "shape": ((X, 0.1), (X[:2], 0.1), "x: shape (4, 3), then (2, 3)"),
    "dtype": ((X, 1.0), (X.astype(jnp.float16), 1.0), "x: dtype float32, then float16"),
    "weak type": (
        (X, 0.1), (X, jnp.float32(0.1)), "y: a Python number, weakly typed, then an array",
    ),
    "Python int": ((X, 1), (X, 1.0), "y: dtype int32, then float32"),
    "leaf": (({"a": X}, 1), ({"a": X[:2]}, 1), "x: leaf 'a': shape (4, 3), then (2, 3)"),
    "structure": (({"a": X}, 1), ({"b": X}, 1), "x: leaves ['a'] are gone, ['b'] are new"),
    "list and tuple": (
        ([X], 1), ((X,), 1), "x: structure PyTreeDef([*]), then PyTreeDef((*,))",
    ),
    "NumPy": ((np.ones((4, 3), np.float32), 1), (X, 1), ""),
    "fewer": ((X, 1), (X,), "y: given in the first call, not in the second"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_an_explanation_is_given_where_jit_traces_again(name):
    traced = []

    def function(x, y=0):
        traced.append(None)
        return x

    first, second, said = PAIRS[name]
    assert explain_retrace(function, first, second) == said
    compiled = jax.jit(function)
    compiled(*first), compiled(*second)
    assert (len(traced) == 2) == bool(said)


def test_static_values_are_compared_by_value():
    def function(x, n):
        return x

    explain = lambda a, b: explain_retrace(function, (X, a), (X, b), static=["n"])  # noqa: E731
    assert explain("mean", "mean") == "" and explain(2, 3) == "n: static value 2, then 3"


def test_every_budget_that_is_exceeded_is_named():
    def product(a):
        return (jnp.sin(a @ a) @ a).sum()

    a = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    found = costs_at_most(product, a)
    assert found["flops"] == 4 * 64**3 + 2 * 64**2 and found["collectives"] == 0
    assert found["temporaries"] >= 0  # JAX 0.12 counts none on a CPU
    said = "flops of at most 10, got 1,056,768; expected temporaries of at most -1, got"
    with pytest.raises(AssertionError, match=said):
        costs_at_most(product, a, flops=10, temporaries=-1)


@pytest.mark.slow
def test_collectives_are_counted():
    code = """
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
jax.config.update("jax_num_cpu_devices", 2)
from fnn.testing import costs_at_most
mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
total = jax.shard_map(
    lambda x: jax.lax.psum(x, "d"), mesh=mesh, in_specs=P("d"), out_specs=P(), check_vma=False)
assert costs_at_most(total, jnp.ones(4))["collectives"] == 1
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
