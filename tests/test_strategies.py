"""The strategies of fnn.testing: what they draw, what they shrink to, and the machines."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as hs
from hypothesis.errors import NoSuchExample
from hypothesis.stateful import run_state_machine_as_test

from fnn import optim
from fnn.testing import strategies as st
from fnn.testing._given import given as given_to_a_check
from fnn.testing.battery import LawError
from fnn.types import Batch, Optimizer

SHAPES = {"kernel": (2, 3), "bias": (3,)}
QUICK = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def found(strategy, condition):
    return find(strategy, condition, settings=QUICK)


def never(strategy, condition):
    with pytest.raises(NoSuchExample):
        find(strategy, condition, settings=settings(QUICK, max_examples=60))


def leaves(value):
    return jax.tree.leaves(value)


# name -> strategy, shapes of its leaves, a condition on all values
KINDS = {
    "shapes": (st.shapes(), None, lambda s: s in st.POOL),
    "arrays": (st.arrays((2, 3)), [(2, 3)], lambda x: np.abs(x).max() <= 10),
    "of one axis": (st.arrays(4), [(4,)], lambda x: np.isfinite(x).all()),
    "of a pool": (st.arrays([(2,), (3, 1)]), None, lambda x: x.shape in ((2,), (3, 1))),
    "large": (st.arrays((8, 9), low=0.1, high=0.7), [(8, 9)], lambda x: (x >= 0.1).all()),
    "uint8": (st.arrays((2, 2), np.uint8), [(2, 2)], lambda x: x.dtype == np.uint8),
    "bool": (st.arrays((3,), bool), [(3,)], lambda x: x.dtype == bool),
    "params": (st.params(SHAPES), [(3,), (2, 3)], lambda p: set(p) == set(SHAPES)),
    "gradients": (
        st.gradients(SHAPES),
        [(3,), (2, 3)],
        lambda p: all(np.abs(g).max() <= 1e5 for g in leaves(p)),
    ),
    "tokens": (st.tokens(2, 5, 7), [(2, 5)], lambda x: x.min() >= 0 and x.max() < 7),
    "images": (st.images(2, 3, 4, 1), [(2, 3, 4, 1)], lambda x: x.min() >= 0 and x.max() <= 1),
    "lengths": (st.lengths(3, 5), [(3,)], lambda n: n.min() >= 1 and n.max() <= 5),
    "sequences": (st.sequences(3, 5, 2), [(3,), (3, 5, 2)], lambda s: s["lengths"].max() <= 5),
    "pairs": (st.sequences(3, 5, 2, kind=tuple), [(3, 5, 2), (3,)], lambda s: type(s) is tuple),
    "tables": (st.tables(4, 3), [(4, 3)], lambda x: not np.isinf(x).any()),
    "batches": (st.batches(), [(6, 5), (6,)], lambda b: type(b) is Batch),
    "masks": (st.masks((2, 3)), [(2, 3)], lambda m: m.dtype == bool),
    "labels": (st.labels(6, 3), [(6,)], lambda y: y.min() >= 0 and y.max() < 3),
    "probabilities": (
        st.probabilities(2, 3),
        [(2, 3)],
        lambda p: np.allclose(p.sum(-1), 1) and p.min() >= 0,
    ),
    "logits": (st.logits(2, 3), [(2, 3)], lambda x: np.isfinite(x).any(axis=-1).all()),
    "keys": (st.keys(), [()], lambda k: jnp.issubdtype(k.dtype, jax.dtypes.prng_key)),
    "hyper": (
        st.hyper(lr=(1e-4, 1.0), wd=(0, 0.1)),
        None,
        lambda h: 1e-4 <= h["lr"] <= 1 and 0 <= h["wd"] <= 0.1,
    ),
    "steps": (st.steps(9), [()], lambda n: 0 <= n <= 9 and n.dtype == np.int32),
    "trees": (st.trees({"x": st.arrays(2), "n": 3}), None, lambda t: t["n"] == 3),
}


@pytest.mark.parametrize("name", KINDS)
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    phases=[Phase.generate],
)
@given(data=hs.data())
def test_values_have_their_shapes_and_bounds(name, data):
    strategy, shapes, holds = KINDS[name]
    value = data.draw(strategy)
    assert holds(value)
    if shapes is not None:
        assert [np.shape(leaf) for leaf in leaves(value)] == shapes
    if name not in ("shapes", "keys", "hyper", "trees"):
        assert all(isinstance(leaf, np.ndarray) for leaf in leaves(value))


@pytest.mark.parametrize("name", KINDS)
def test_a_typical_example_is_one_of_the_values_and_depends_on_the_seed_only(name):
    strategy, shapes, holds = KINDS[name]
    examples = [st.example_of(strategy, seed) for seed in (0, 0, 1, 2, 3)]
    assert all(holds(value) for value in examples)
    if shapes is not None:
        assert [np.shape(leaf) for leaf in leaves(examples[0])] == shapes
    shown = [str([np.asarray(_data(leaf)) for leaf in leaves(v)]) for v in examples]
    assert shown[0] == shown[1]
    assert len(set(shown)) > 1


def _data(leaf):
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


@pytest.mark.parametrize("seed", range(20))
def test_typical_examples_are_not_degenerate(seed):
    x = st.example_of(st.batches(), seed).x
    assert len(np.unique(x, axis=0)) == 6 and 0.5 < x.std() < 1.5
    assert len(np.unique(st.example_of(st.tokens(4, 5, 3), seed), axis=0)) == 4
    assert len(set(st.example_of(st.lengths(3, 5), seed).tolist())) == 3
    assert set(st.example_of(st.labels(6, 3), seed).tolist()) == {0, 1, 2}
    mask = st.example_of(st.masks((3, 4)), seed)
    assert mask.any() and not mask.all()
    table = st.example_of(st.tables(6, 3), seed)
    assert np.isnan(table).any() and not np.isnan(table).all(axis=0).any()
    assert st.example_of(st.masks(1, least=1), seed).all()


# name -> strategy, an edge value that it must reach, and what it shrinks to
EDGES = {
    "zero array": (st.arrays((2, 2)), lambda x: True, np.zeros((2, 2))),
    "small integer": (st.arrays((3,)), lambda x: x.max() > 1, [0, 0, 2]),
    "simple fraction": (st.arrays((2,)), lambda x: (x % 1 != 0).any(), [0, 0.125]),
    "upper end": (st.arrays(2, high=40), lambda x: x.max() == 40, [0, 40]),
    "NaN": (st.tables(2, 2), lambda x: np.isnan(x).any(), [[0, 0], [0, np.nan]]),
    "no gap": (st.tables(2, 2), lambda x: True, np.zeros((2, 2))),
    "last token": (st.tokens(1, 3, 50), lambda x: x.max() == 49, [[0, 0, 49]]),
    "last label": (st.labels(3, 20), lambda y: y.max() == 19, [0, 0, 19]),
    "white pixel": (st.images(1, 1, 2, 1), lambda x: x.max() == 1, [[[[0], [1]]]]),
    "white uint8": (st.images(1, 1, 1, 2, np.uint8), lambda x: x.max() == 255, [[[[0, 255]]]]),
    "whole length": (st.lengths(2, 40), lambda n: n.max() == 40, [1, 40]),
    "length 0": (st.lengths(2, 5, least=0), lambda n: n.min() == 0, [0, 0]),
    "all": (st.masks(4), lambda m: True, [True] * 4),
    "none": (st.masks(12), lambda m: not m.any(), [False] * 12),
    "one": (st.masks(12), lambda m: m.sum() == 1, None),
    "uniform": (st.probabilities(1, 4), lambda p: True, [[0.25] * 4]),
    "certain": (st.probabilities(1, 3), lambda p: p.max() == 1, [[1, 0, 0]]),
    "-inf": (st.logits(1, 2), lambda x: np.isinf(x).any(), [[0, -np.inf]]),
    "1e4": (st.logits(1, 2), lambda x: x.max() == 1e4, [[0, 1e4]]),
    "ties": (st.logits(1, 3), lambda x: x[0, 0] != 0 and np.ptp(x) == 0, None),
    "first key": (st.keys(), lambda k: True, None),
    "last step": (st.steps(), lambda n: n == 10_000, 10_000),
    "step 1": (st.steps(), lambda n: n > 0, 1),
}


@pytest.mark.parametrize("name", EDGES)
def test_edge_values_are_reached_and_shrink_to_readable_examples(name):
    strategy, condition, simplest = EDGES[name]
    value = found(strategy, condition)
    if simplest is not None:
        np.testing.assert_allclose(value, np.asarray(simplest), rtol=1e-6)


def test_gradients_are_ordinary_zero_tiny_or_large():
    gradients = st.gradients({"w": (2,)})
    assert found(gradients, lambda g: True)["w"].tolist() == [0, 0]
    assert found(gradients, lambda g: g["w"].max() > 1e3)["w"].max() == 1e4
    assert found(gradients, lambda g: 0 < g["w"].max() < 1e-5)["w"].max() <= 1e-5
    half = found(st.gradients({"w": jnp.ones(2, jnp.float16)}), lambda g: g["w"].max() > 6e4)
    assert half["w"].dtype == np.float16 and np.isfinite(half["w"]).all()


def test_hyperparameters_reach_their_ends_and_shrink_to_a_power_of_ten():
    hyper = st.hyper(lr=(3e-4, 0.3), momentum=(0, 0.99), width=hs.sampled_from([8, 16]))
    assert found(hyper, lambda h: True) == {"lr": 0.01, "momentum": 0.0, "width": 8}
    assert found(hyper, lambda h: h["lr"] == 0.3 and h["momentum"] == 0.99)["width"] == 8
    assert found(hyper, lambda h: h["lr"] < 4e-4)["lr"] == 3e-4
    assert set(st.example_of(st.hyper())) == {"lr"}
    exponents = [np.log10(st.example_of(st.hyper(), seed)["lr"]) for seed in range(200)]
    assert abs(np.mean(exponents) + 2) < 0.3  # log-uniform


def test_keys_are_typed_and_shrink_to_key_0():
    assert jax.random.key_data(found(st.keys(), lambda k: True)).tolist() == [0, 0]


def test_what_is_not_asked_for_is_not_drawn():
    never(st.arrays((2,)), lambda x: not np.isfinite(x).all())
    never(st.logits(2, 2, infinite=False), lambda x: np.isinf(x).any())
    never(st.masks(3, least=1), lambda m: not m.any())
    never(st.tables(2, 2, missing=False), lambda x: np.isnan(x).any())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rounding_to_a_dtype_stays_between_the_bounds(dtype):
    strategy = st.arrays((3,), dtype, low=0.1, high=0.3)
    never(strategy, lambda x: x.astype(float).min() < 0.1 or x.astype(float).max() > 0.3)
    assert found(strategy, lambda x: True).dtype == jnp.dtype(dtype)


def test_equal_calls_give_strategies_of_their_own():
    plain = hs.integers(0, 3)
    one, other = (st.with_typical(plain, lambda rng, n=n: n) for n in (1, 2))
    assert (one.typical(0), other.typical(0)) == (1, 2)
    assert not hasattr(plain, "typical")
    with pytest.raises(ValueError, match="give it an example by with_typical"):
        st.example_of({"x": plain})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: st.arrays(3, low=2, high=1), "arrays: expected low <= high"),
        (lambda: st.labels(3, 0), "arrays: expected low <= high"),
        (lambda: st.lengths(3, 2, least=3), "lengths: expected 0 <= least <= time"),
        (lambda: st.hyper(lr=(1, 0.1)), "hyper: expected lr as"),
    ],
)
def test_impossible_bounds_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_checks_take_strategies():
    assert given_to_a_check("check", st.arrays((2, 3)), 1).shape == (2, 3)


def test_fnn_testing_does_not_import_hypothesis():
    code = (
        "import sys, fnn.testing; assert 'hypothesis' not in sys.modules; "
        "from fnn.testing import strategies; assert 'hypothesis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_profile_has_no_deadline():
    st.register_profile("fnn-test", derandomize=True, max_examples=7)
    profile = settings.get_profile("fnn-test")
    assert (profile.deadline, profile.derandomize, profile.max_examples) == (None, True, 7)


# Machines


def run(machine, **given):
    options = settings(
        machine.TestCase.settings,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        **{"max_examples": 8, "stateful_step_count": 8, **given},
    )
    run_state_machine_as_test(machine, settings=options)


def errors(error):
    """The errors in groups of groups."""
    return (
        [e for x in error.exceptions for e in errors(x)]
        if hasattr(error, "exceptions")
        else [error]
    )


def broken(machine, words):
    with pytest.raises((LawError, ExceptionGroup)) as caught:
        run(machine, max_examples=40)
    assert any(words in str(e) for e in errors(caught.value)), errors(caught.value)


def momentum(bug=None):
    """Gradient descent with momentum 0.9."""
    count = [0]

    def update(grads, state, params, lr, objective=None):
        count[0] += 1
        m = jax.tree.map(lambda m, g: 0.9 * m + g, state["m"], grads)
        updates = jax.tree.map(lambda m: -lr * m, m)
        if bug == "global counter":
            updates = jax.tree.map(lambda u: u / count[0], updates)
        if bug == "normalized":
            updates = jax.tree.map(lambda m: -lr * m / jnp.linalg.norm(m), m)
        if bug == "shared buffer":
            state["m"] = m
            return updates, state
        if bug == "float step":
            return updates, {"m": m, "t": state["t"] + 1.0}
        return updates, {"m": m, "t": state["t"] + 1}

    def init(params):
        return {"m": jax.tree.map(jnp.zeros_like, params), "t": jnp.int32(0)}

    return Optimizer(init, update)


@pytest.mark.slow
@pytest.mark.parametrize("make", [optim.sgd, optim.adam, momentum], ids=["sgd", "adam", "momentum"])
def test_correct_optimizers_pass_the_machine(make):
    run(st.optimizer_machine(make))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "words"),
    {
        "global counter": "plain is",
        "normalized": "must be finite",
        "shared buffer": "an argument of update",
        "float step": "keep structure and dtypes",
    }.items(),
)
def test_the_machine_finds_a_planted_bug_of_an_optimizer(bug, words):
    with jax.numpy_dtype_promotion("standard"):
        broken(st.optimizer_machine(momentum(bug)), words)


@pytest.mark.slow
def test_the_machine_finds_a_save_without_momentum():
    optimizer = momentum()
    machine = st.optimizer_machine(
        optimizer, save=lambda both: both[0], load=lambda p: (p, optimizer.init(p))
    )
    broken(machine, "a new run with the same gradients")


BATCHES = [Batch(*(np.float32(a) for a in ([[i], [1.0]], [i, 2.0]))) for i in range(3)]


def make_state():
    return {"w": jnp.zeros(1), "m": jnp.zeros(1), "step": jnp.int32(0)}


def training_step(bug=None):
    count = [0]

    def step(state, batch, key, hyper):
        x, y = batch
        count[0] += 1
        if bug == "in place":
            y -= y.mean()
        noise = jax.random.normal(jax.random.fold_in(key, state["step"]), (1,))
        loss, slope = jax.value_and_grad(lambda w: jnp.mean((x @ w - y) ** 2))(state["w"])
        m = 0.9 * state["m"] + slope + 0.1 * noise
        lr = hyper["lr"] / count[0] if bug == "global counter" else hyper["lr"]
        return {"w": state["w"] - lr * m, "m": m, "step": state["step"] + 1}, {"loss": loss}

    return step


def training(step, **options):
    return st.training_machine(
        step, make_state, BATCHES, jax.random.key(0), {"lr": jnp.float32(0.1)}, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False])
def test_a_correct_step_passes_the_machine(jit):
    run(training(training_step(), jit=jit))


@pytest.mark.slow
def test_a_step_that_donates_its_state_passes_the_machine():
    run(training(jax.jit(training_step(), donate_argnums=0), jit=False))


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False])
def test_the_machine_finds_a_global_counter(jit):
    broken(training(training_step("global counter"), jit=jit), "an uninterrupted run of")


@pytest.mark.slow
def test_the_machine_finds_a_batch_that_changes_in_place():
    copies = [Batch(*map(np.copy, batch)) for batch in BATCHES]
    machine = st.training_machine(
        training_step("in place"),
        make_state,
        copies,
        jax.random.key(0),
        {"lr": jnp.float32(0.1)},
        jit=False,
    )
    broken(machine, "an argument of the step")


@pytest.mark.slow
def test_the_machine_finds_a_resume_without_momentum():
    machine = training(training_step(), load=lambda s: {**s, "m": jnp.zeros(1)})
    broken(machine, "an uninterrupted run of")
