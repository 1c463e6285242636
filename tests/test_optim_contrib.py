"""The optimizers of `fnn.optim.contrib` against float64 twins, and what defines each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from fnn.optim import contrib
from fnn.types import Objective
from tests import contrib_twins as twins
from tests.contrib_twins import START, STEPS, apart, run, run_twin
from tests.registry.optimizers_contrib import OPTIMIZERS as ROWS

part = functools.partial


def run_ours(optimizer, lr, **given):
    def update(grads, state, params, objective):
        return optimizer.update(grads, state, params, lr, objective)

    return run(update, optimizer.init, **given)


TWINS = {
    "acprop": (contrib.acprop(), twins.acprop(), 0.01),
    "acprop, other": (
        contrib.acprop(b1=0.6, b2=0.9, eps=0.01, weight_decay=0.1),
        twins.acprop(0.6, 0.9, 0.01, 0.1),
        0.1,
    ),
    "cocob": (contrib.cocob(), twins.cocob(), 1.0),
    "cocob, other": (contrib.cocob(alpha=5.0, eps=0.5), twins.cocob(5.0, 0.5), 0.3),
    "dog": (contrib.dog(), twins.dog(), 1.0),
    "dog, other": (contrib.dog(relative_distance=0.05, eps=0.1), twins.dog(0.05, 0.1), 0.7),
    "dowg": (contrib.dowg(), twins.dowg(), 1.0),
    "dowg, other": (contrib.dowg(first_distance=0.2, eps=0.1), twins.dowg(0.2, 0.1), 0.7),
    "fromage": (contrib.fromage(), twins.fromage(), 0.01),
    "fromage with a large least norm": (contrib.fromage(min_norm=2.5), twins.fromage(2.5), 0.1),
    "galore": (
        contrib.galore(optim.adam(), rank=2), twins.galore(2, 200, 0.25), 0.1
    ),
    "galore, often": (
        contrib.galore(optim.adam(b1=0.0, b2=0.9, eps=0.1), rank=3, every_steps=20, scale=0.7),
        twins.galore(3, 20, 0.7, 0.0, 0.9, 0.1),
        0.1,
    ),
    "madgrad": (contrib.madgrad(), twins.madgrad(), 0.1),
    "madgrad, other": (contrib.madgrad(momentum=0.5, eps=0.1), twins.madgrad(0.5, 0.1), 0.3),
    "mechanize": (contrib.mechanize(optim.sgd()), twins.mechanize(), 1.0),
    "mechanize, other": (
        contrib.mechanize(
            optim.sgd(momentum=0.5),
            first_scale=0.01, weight_decay=0.1, eps=1e-3, num_betas=3,
        ),
        twins.mechanize(0.01, 0.1, 1e-3, 3, momentum=0.5),
        0.1,
    ),
    "momo": (contrib.momo(), twins.momo(), 1.0),
    "momo, other": (
        contrib.momo(beta=0.6, lower_bound=0.9, weight_decay=0.1), twins.momo(0.6, 0.9, 0.1), 0.3
    ),
    "momo with a bound that adapts": (
        contrib.momo(lower_bound=-3.0, weight_decay=0.1, adapt_bound=True),
        twins.momo(0.9, -3.0, 0.1, adaptive=True),
        0.8,
    ),
    "momo_adam": (contrib.momo_adam(), twins.momo_adam(), 0.3),
    "momo_adam, other": (
        contrib.momo_adam(b1=0.6, b2=0.9, eps=0.1, lower_bound=0.9, weight_decay=0.1),
        twins.momo_adam(0.6, 0.9, 0.1, 0.9, 0.1),
        0.1,
    ),
    "momo_adam with a bound that adapts": (
        contrib.momo_adam(lower_bound=-3.0, weight_decay=0.1, adapt_bound=True),
        twins.momo_adam(bound=-3.0, decay=0.1, adaptive=True),
        0.3,
    ),
    "novograd": (contrib.novograd(), twins.novograd(), 0.05),
    "novograd, other": (
        contrib.novograd(b1=0.5, b2=0.9, eps=0.1, weight_decay=0.1),
        twins.novograd(0.5, 0.9, 0.1, 0.1),
        0.1,
    ),
    "optimistic_adam": (contrib.optimistic_adam(), twins.optimistic_adam(), 0.1),
    "optimistic_adam, other": (
        contrib.optimistic_adam(b1=0.5, b2=0.9, eps=0.1, alpha=0.7, beta=1.5),
        twins.optimistic_adam(0.5, 0.9, 0.1, 0.7, 1.5),
        0.1,
    ),
    "optimistic_gradient_descent": (
        contrib.optimistic_gradient_descent(), twins.optimistic_gradient_descent(), 0.1
    ),
    "optimistic_gradient_descent, other": (
        contrib.optimistic_gradient_descent(alpha=0.7, beta=1.5),
        twins.optimistic_gradient_descent(0.7, 1.5),
        0.1,
    ),
    "polyak_sgd": (contrib.polyak_sgd(), twins.polyak_sgd(), 1.0),
    "polyak_sgd, other": (
        contrib.polyak_sgd(lower_bound=0.9, scale=0.5, eps=0.1),
        twins.polyak_sgd(0.9, 0.5, 0.1),
        0.3,
    ),
    "simplified_ademamix": (
        contrib.simplified_ademamix(), twins.simplified_ademamix(), 0.001
    ),
    "simplified_ademamix, other": (
        contrib.simplified_ademamix(b1=0.9, b2=0.8, alpha=3.0, eps=0.1, weight_decay=0.1),
        twins.simplified_ademamix(0.9, 0.8, 3.0, 0.1, 0.1),
        0.01,
    ),
    "sm3": (contrib.sm3(), twins.sm3(), 0.3),
    "sm3, other": (contrib.sm3(momentum=0.5, eps=0.1), twins.sm3(0.5, 0.1), 0.3),
}  # fmt: skip


ORIGIN = {name: np.zeros_like(p) for name, p in START.items()}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", TWINS)
def test_fifty_updates_are_those_of_the_paper(name):
    optimizer, twin, lr = TWINS[name]
    # Float32 resolves the first steps of a millionth at 0, and not where the parameters are 1.
    start = ORIGIN if name == "dog" else START
    difference = apart(run_ours(optimizer, lr, start=start)[0], run_twin(twin, lr, start=start))
    # A few roundings of the parameters, each at most 6e-8 of the largest: the quadratic forgets
    # earlier ones, but for those that the growth of a distance multiplies.
    assert difference < 3e-6


EXAMPLES = {
    "acprop": contrib.acprop(),
    "cocob": contrib.cocob(),
    "dog": contrib.dog(),
    "dowg": contrib.dowg(),
    "fromage": contrib.fromage(),
    "galore": contrib.galore(optim.adam(), rank=1),
    "madgrad": contrib.madgrad(),
    "mechanize": contrib.mechanize(optim.adam()),
    "momo": contrib.momo(),
    "momo with a bound that adapts": contrib.momo(adapt_bound=True),
    "momo_adam": contrib.momo_adam(),
    "momo_adam with a bound that adapts": contrib.momo_adam(adapt_bound=True),
    "noisy_sgd": contrib.noisy_sgd(jax.random.key(0)),
    "novograd": contrib.novograd(),
    "optimistic_adam": contrib.optimistic_adam(),
    "optimistic_gradient_descent": contrib.optimistic_gradient_descent(),
    "polyak_sgd": contrib.polyak_sgd(),
    "simplified_ademamix": contrib.simplified_ademamix(),
    "sm3": contrib.sm3(),
}


def test_there_is_an_example_of_each():
    elsewhere = {  # tests/test_optim_adaptive.py, test_optim_matrix.py, test_optim_free.py
        "adan", "ademamix", "adopt", "algoperf_nadamw", "algoperf_schedule_free_adamw",
        "dadapt_adam", "kron", "prodigy", "shampoo", "soap", "sophia",
    }  # fmt: skip
    assert {name.split()[0] for name in EXAMPLES} == set(contrib.__all__) - elsewhere


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_of_zero_move_nothing_and_the_one_after_them_is_finite(name):
    optimizer = EXAMPLES[name]
    shapes = {"bias": (3,), "kernel": (2, 2), "scalar": (), "zeros": (2, 3)}
    params = {n: jnp.full(shape, 0.0 if n == "zeros" else 2.0) for n, shape in shapes.items()}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for value in (0.0, 0.0, 0.0, 1.0):
        grads = jax.tree.map(lambda p, v=value: jnp.full_like(p, v), params)
        objective = jax.tree.map(jnp.float32, Objective(2.0, ()))
        updates, state = update(grads, state, params, 0.1, objective)
        assert tree.all_finite((updates, state))
        leaves = np.concatenate([u.ravel() for u in jax.tree.leaves(updates)])
        if name not in ("noisy_sgd", "fromage"):
            assert (leaves <= 0 if value else leaves == 0).all()
        # A bound that rises with the losses forbids a step; galore moves in a subspace alone.
        if value and name not in ("noisy_sgd", "momo with a bound that adapts", "galore"):
            assert (leaves < 0).all()


@pytest.mark.parametrize("name", ["momo", "momo_adam", "polyak_sgd"])
@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_loss_at_or_below_its_bound_is_a_reason_to_stay(name, loss):
    """At 0 with a gradient of 0, which is a perfect fit, the step is 0 over 0."""
    optimizer, params = EXAMPLES[name], {"w": jnp.zeros(2)}
    for grads in ({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 2.0])}):
        objective = Objective(jnp.float32(loss), None)
        updates, state = optimizer.update(grads, optimizer.init(params), params, 0.1, objective)
        np.testing.assert_array_equal(updates["w"], [0, 0])
        assert tree.all_finite(state)


QUICK = ("dog", "momo_adam", "sm3")  # the others take long to compile


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in EXAMPLES]
)
def test_the_steps_of_bfloat16_parameters_are_those_of_float32(name):
    """The state is in float32; only gradients and parameters, as they come in, are rounded."""
    optimizer = EXAMPLES[name]

    def steps(dtype):
        start = {n: jnp.asarray(p, jnp.bfloat16).astype(dtype) for n, p in START.items()}
        slope = jax.tree.map(lambda p: (p * 2).astype(jnp.bfloat16).astype(dtype), start)
        state, found = optimizer.init(start), []
        for _ in range(3):
            updates, state = optimizer.update(
                slope, state, start, 0.1, Objective(jnp.ones(()), None)
            )
            found.append(updates)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} <= {"float32", "int32"}
        return found

    for narrow, wide in zip(steps(jnp.bfloat16), steps(jnp.float32), strict=True):
        for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
            # The same numbers, rounded in another order by other programs.
            np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(12)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_gradients_by_every_scalar_are_finite_also_where_a_gradient_is_zero(row):
    steps = 8
    noise = {n: np.array(twins.NOISE[n][:steps]) for n in ("bias", "kernel")}
    noise["bias"][:, 0] = 0  # always
    noise["bias"][::2, 1] = 0  # now and then
    noise["kernel"][:3] = 0  # a whole leaf, at first
    params = {n: jnp.zeros_like(p) for n, p in START.items() if n in noise}

    def trained(hyper):
        optimizer = row.make(**{name: hyper[name] for name in row.scalars})

        def step(carry, grads):
            params, state = carry
            objective = Objective(jnp.ones(()), None)
            updates, state = optimizer.update(grads, state, params, hyper["lr"], objective)
            return (tree.add(params, updates), state), None

        start = (params, optimizer.init(params))
        (last, _), _ = jax.lax.scan(step, start, jax.tree.map(jnp.asarray, noise))
        return tree.dot(last, last)

    small = {name: 1e-8 if name == "eps" else value for name, value in row.scalars.items()}
    hyper = jax.tree.map(jnp.float32, {"lr": row.lr, **small})
    assert tree.all_finite(jax.jit(jax.grad(trained))(hyper))


@pytest.mark.parametrize("name", ["momo", "momo_adam", "polyak_sgd"])
def test_without_an_objective_there_is_no_loss_to_step_by(name):
    optimizer, params = EXAMPLES[name], {"w": jnp.ones(1)}
    with pytest.raises(ValueError, match=f"{name}: expected an objective for the loss, got None; "):
        optimizer.update(params, optimizer.init(params), params, 0.1)


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_of_another_shape_are_refused(name):
    optimizer, params = EXAMPLES[name], {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"params and grads differ:\n  w: expected float32\[2\]"):
        grads, objective = {"w": jnp.ones(3)}, Objective(jnp.ones(()), None)
        optimizer.update(grads, optimizer.init(params), params, 0.1, objective)


# What defines each of them.


def duel(optimizer, steps=300):
    """The distance to the saddle of x y, which one player descends and the other ascends."""

    def step(carry, _):
        params, state = carry
        grads = {"x": params["y"], "y": -params["x"]}
        updates, state = optimizer.update(grads, state, params, 0.1)
        params = tree.add(params, updates)
        return (params, state), tree.global_norm(params)

    params = {"x": jnp.float32(1), "y": jnp.float32(1)}
    start = (params, optimizer.init(params))
    return np.asarray(jax.lax.scan(step, start, None, length=steps)[1])


def test_optimistic_players_come_to_the_saddle_which_others_leave():
    assert duel(optim.sgd())[-1] > 4
    assert duel(contrib.optimistic_gradient_descent())[-1] < 0.4
    assert duel(contrib.optimistic_gradient_descent(beta=0.0))[-1] > 4


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (contrib.optimistic_gradient_descent(beta=0.0), optim.sgd()),
        (contrib.optimistic_adam(beta=0.0), optim.adam()),
        (contrib.momo_adam(lower_bound=-1e6), optim.adam()),
        (contrib.momo(beta=0.0), contrib.polyak_sgd()),
        (contrib.galore(optim.adam(), rank=9), optim.adam()),
        (contrib.galore(optim.adam(), rank=2, mask=tree.matching()), optim.adam()),
        (contrib.noisy_sgd(jax.random.key(0), eta=0.0), optim.sgd()),
    ],
    ids=[
        "no optimism",
        "no optimism in adam",
        "far bound",
        "no mean",
        "full rank",
        "mask",
        "quiet",
    ],
)
def test_with_its_own_part_switched_off_it_is_another(ours, theirs):
    assert apart(run_ours(ours, 0.1)[0], run_ours(theirs, 0.1)[0]) < 1e-6


def test_the_rows_and_columns_of_sm3_bound_the_sums_of_adagrad():
    grads = twins.NOISE["kernel"]
    params = {"w": jnp.zeros((4, 3))}
    optimizer = contrib.sm3(momentum=0.0, eps=0.0)
    state = optimizer.init(params)
    assert tree.count(state.largest) == 4 + 3
    for t in range(STEPS):
        updates, state = optimizer.update({"w": jnp.asarray(grads[t])}, state, params, 1.0)
        v = np.square(grads[t] / np.asarray(updates["w"], np.float64))
        sums = np.square(np.float64(grads[: t + 1])).sum(0)
        assert (v >= sums * (1 - 1e-5)).all()
        last = np.square(grads[:t]).sum(0)
        bound = np.minimum(last.sum(1, keepdims=True), last.sum(0, keepdims=True))
        assert (v <= (bound + np.square(grads[t])) * (1 + 1e-5)).all()
    assert (v > sums * 1.01).any()


def test_sm3_of_a_vector_is_adagrad():
    start, noise = ({"bias": x["bias"]} for x in (START, twins.NOISE))
    ours = run_ours(contrib.sm3(momentum=0.0, eps=0.0), 0.1, start=start, noise=noise)[0]
    adagrad = run_ours(optim.adagrad(eps=0.0), 0.1, start=start, noise=noise)[0]
    assert apart(ours, adagrad) < 1e-6


def test_the_steps_of_novograd_do_not_depend_on_the_size_of_a_leafs_gradient():
    optimizer, params = contrib.novograd(eps=1e-12), {"a": jnp.ones(4), "b": jnp.ones(4)}
    g = jnp.asarray([3.0, -1.0, 2.0, 0.5])
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update({"a": g, "b": 1024 * g}, state, params, 0.1)
        np.testing.assert_allclose(updates["a"], updates["b"], rtol=1e-6)


def test_a_step_of_fromage_is_relative_and_keeps_the_norm_beside_an_orthogonal_gradient():
    params, grads = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([-40.0, 30.0])}
    updates, _ = contrib.fromage().update(grads, (), params, 0.5)
    moved = tree.add(params, updates)
    np.testing.assert_allclose(tree.global_norm(moved), 5.0, rtol=1e-6)
    angle = tree.dot(moved, params) / 25
    np.testing.assert_allclose(angle, 1 / np.sqrt(1.25), rtol=1e-6)


def test_at_a_small_rate_fromage_shrinks_by_all_its_digits():
    params = {"w": jnp.array([1.0, 0.0])}
    updates, _ = contrib.fromage().update({"w": jnp.array([0.0, 1.0])}, (), params, 1e-3)
    expected = 1 / np.sqrt(1 + 1e-6) - 1
    np.testing.assert_allclose(updates["w"][0], expected, rtol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [contrib.dog, contrib.dowg])
def test_its_rate_does_not_depend_on_the_size_of_the_loss(make):
    optimizer = make(eps=0.0)

    def path(size):
        def update(grads, state, params, objective):
            return optimizer.update(tree.scale(size, grads), state, params, 1.0)

        return run(update, optimizer.init)[0]

    assert apart(path(2.0**-8), path(2.0**8)) < 1e-6


def far(optimizer, lr=1.0, steps=400):
    """How far 400 steps come from a minimum of the sum of |p| 37 away, as a fraction."""

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(jnp.sign, params)
        updates, state = optimizer.update(grads, state, params, lr)
        return (tree.add(params, updates), state), tree.global_norm(params)

    params = {"w": jnp.array([30.0, -20.0, 10.0, 5.0])}
    start = (params, optimizer.init(params))
    norms = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps)[1])(start)
    return float(norms.min() / norms[0])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (contrib.dog(), 1500),
        (contrib.dowg(), 400),
        (contrib.cocob(), 400),
        (contrib.mechanize(optim.sgd(momentum=0.5)), 400),
    ],
    ids=["dog", "dowg", "cocob", "mechanize"],
)
def test_it_finds_the_size_of_the_problem_by_itself(optimizer, steps):
    assert far(optimizer, steps=steps) < 0.25


def test_the_first_bet_of_cocob_is_a_hundredth_in_the_unit_of_the_parameters():
    optimizer, params = contrib.cocob(), {"w": jnp.array([5.0, -1.0])}
    grads = {"w": jnp.array([1e-6, -1e3])}
    updates, _ = optimizer.update(grads, optimizer.init(params), params, 1.0)
    np.testing.assert_allclose(updates["w"], [-0.01, 0.01], rtol=1e-5)


def test_mechanic_holds_the_parameters_at_its_scale_of_the_offset():
    optimizer = contrib.mechanize(optim.adam(), first_scale=1e-3)
    path, state = run_ours(optimizer, 1.0)
    scale = np.asarray(state.s, np.float64).sum()
    for name, start in START.items():
        expected = start + scale * np.asarray(state.offset[name], np.float64)
        np.testing.assert_allclose(path[name][-1], expected, rtol=1e-5, atol=1e-5)


def test_mechanic_keeps_the_weights_and_the_loss_scale_of_its_optimizer():
    params, grads = {"w": jnp.array([1.0])}, {"w": jnp.array([2.0])}
    optimizer = contrib.mechanize(optim.dynamic_loss_scale(optim.ema(optim.sgd(), decay=0.5)))
    state = optimizer.init(params)
    assert optimizer.loss_scale(state) == 2.0**16
    updates, state = optimizer.update(grads, state, params, 1.0)
    assert optimizer.weights(state, tree.add(params, updates))["w"].shape == (1,)
    with pytest.raises(ValueError, match="mechanize: expected num_betas to be a positive integer"):
        contrib.mechanize(optim.sgd(), num_betas=0)


@pytest.mark.slow
def test_galore_moves_a_matrix_in_few_directions_and_keeps_as_few_moments():
    optimizer = contrib.galore(optim.adam(), rank=2, every_steps=10)
    params = {"tall": jnp.zeros((20, 7)), "wide": jnp.zeros((6, 30)), "vector": jnp.zeros(5)}
    draw = jax.random.split(jax.random.key(0), 3)
    grads = {
        name: jax.random.normal(key, p.shape)
        for key, (name, p) in zip(draw, params.items(), strict=True)
    }
    updates, state = optimizer.update(grads, optimizer.init(params), params, 0.1)
    assert np.linalg.matrix_rank(updates["tall"], tol=1e-5) == 2
    assert np.linalg.matrix_rank(updates["wide"], tol=1e-5) == 2
    assert jax.tree.map(jnp.shape, state.inner.m) == {
        "tall": (20, 2),
        "wide": (2, 30),
        "vector": (5,),
    }
    assert jax.tree.map(jnp.shape, state.basis) == {"tall": (7, 2), "wide": (6, 2), "vector": (0,)}


def test_galore_looks_for_new_directions_only_when_they_are_due():
    optimizer, params = contrib.galore(optim.sgd(), rank=1, every_steps=3), {"w": jnp.zeros((2, 2))}
    state, bases = optimizer.init(params), []
    for angle in range(6):
        row = jnp.array([jnp.cos(angle), jnp.sin(angle)])
        _, state = optimizer.update({"w": jnp.outer(row, row)}, state, params, 0.1)
        bases.append(np.abs(state.basis["w"][0, 0]))
    np.testing.assert_allclose(bases, np.abs(np.cos([0, 0, 0, 3, 3, 3])), rtol=1e-5)


def test_galore_refuses_what_does_not_fit_into_a_few_directions():
    with pytest.raises(
        ValueError, match="galore: expected an optimizer without weights of its own"
    ):
        contrib.galore(optim.ema(optim.sgd()), rank=1)
    with pytest.raises(ValueError, match="galore: expected optimizers without a loss scale"):
        contrib.galore(optim.dynamic_loss_scale(optim.sgd()), rank=1)
    with pytest.raises(ValueError, match="galore: expected rank to be a positive integer"):
        contrib.galore(optim.sgd(), rank=0)


def test_decay_inside_galore_reaches_the_projected_part_and_around_it_all():
    params = {"w": jnp.eye(2)}
    grads = {"w": jnp.array([[1.0, 0.0], [0.0, 0.0]])}
    inside = contrib.galore(optim.adamw(weight_decay=0.5), rank=1, scale=1.0)
    around = optim.decoupled_decay(contrib.galore(optim.adam(), rank=1, scale=1.0), 0.5)
    for optimizer, second in ((inside, 0.0), (around, -0.05)):
        updates, _ = optimizer.update(grads, optimizer.init(params), params, 0.1)
        np.testing.assert_allclose(updates["w"], [[-0.15, 0], [0, second]], atol=1e-6)


def test_momo_raises_a_bound_that_adapts_and_keeps_it_below_the_loss():
    _, fixed = run_ours(contrib.momo(lower_bound=-5.0), 1.0)
    _, adapted = run_ours(contrib.momo(lower_bound=-5.0, adapt_bound=True), 1.0)
    assert fixed.bound == -5.0
    assert fixed.bound < adapted.bound < adapted.loss


def test_decay_falls_on_the_marked_leaves_alone():
    params = {"kernel": jnp.array([2.0]), "bias": jnp.array([5.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for make in (contrib.acprop, contrib.novograd, contrib.simplified_ademamix):
        optimizer = make(weight_decay=0.5, mask=tree.matching("kernel"))
        updates, _ = optimizer.update(zeros, optimizer.init(params), params, 0.1)
        np.testing.assert_allclose(updates["kernel"], [-0.1], rtol=1e-6)
        np.testing.assert_array_equal(updates["bias"], [0])
