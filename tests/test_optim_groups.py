"""Groups of leaves with optimizers of their own: each sees its leaves, and all of the contract."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import losses, nn, optim, schedules, tree
from fnn.optim import frozen, groups, groups_table, layerwise_lr_decay, partition
from fnn.optim._base import expect_unscaled
from fnn.recipe import Recipe
from fnn.testing import _quadratic as quadratic
from fnn.train import make_init, make_step
from fnn.types import Objective, Optimizer

LR = 0.1
PARAMS = {
    "embed": jnp.ones((4, 3)),
    "layers": [{"bias": jnp.ones(3), "kernel": jnp.full((3, 3), 2.0)} for _ in range(12)],
    "head": {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))},
}
GRADS = quadratic.gradient(PARAMS)


def by_ndim(path, leaf):
    return "matrices" if leaf.ndim == 2 else "vectors"


def update(optimizer, params=PARAMS, grads=GRADS, lr=LR, objective=None):
    return optimizer.update(grads, optimizer.init(params), params, lr, objective)[0]


def trained(optimizer, steps=20, params=PARAMS):
    """Parameters after some updates on the quadratic."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(quadratic.gradient(params), state, params, LR)
        return (tree.add(params, updates), state), None

    start = params, optimizer.init(params)
    return jax.jit(lambda start: jax.lax.scan(step, start, None, steps)[0][0])(start)


def expect_equal(one, other, **near):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **{"rtol": 1e-6, **near}), one, other
    )


def test_each_group_trains_as_it_would_alone():
    both = trained(
        partition({"matrices": optim.adam(), "vectors": optim.sgd(momentum=0.9)}, by_ndim)
    )
    adam, momentum = trained(optim.adam()), trained(optim.sgd(momentum=0.9))
    expected = jax.tree.map(lambda p, a, m: a if p.ndim == 2 else m, PARAMS, adam, momentum)
    expect_equal(both, expected)


def test_twenty_steps_are_those_of_optax():
    labels = jax.tree.map(lambda p: by_ndim("", p), PARAMS)
    peer = optax.partition({"matrices": optax.adam(LR), "vectors": optax.set_to_zero()}, labels)

    def step(carry, _):
        updates, state = peer.update(quadratic.gradient(carry[0]), carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    with jax.numpy_dtype_promotion("standard"):
        theirs = jax.lax.scan(step, (PARAMS, peer.init(PARAMS)), None, 20)[0][0]
    ours = trained(partition({"matrices": optim.adam(), "vectors": frozen()}, by_ndim))
    expect_equal(ours, theirs, rtol=0, atol=1e-5)


def test_one_group_of_all_leaves_changes_nothing():
    expect_equal(trained(groups({"*": optim.lion()})), trained(optim.lion()), rtol=0, atol=0)


def test_the_first_pattern_that_matches_wins():
    updates = update(groups({"head/*": optim.sgd(), "*bias": frozen(), "*": optim.sgd()}))
    assert (updates["head"]["bias"] != 0).all()
    assert (updates["layers"][3]["bias"] == 0).all() and (updates["embed"] != 0).any()


def test_masks_by_path_work_inside_a_group():
    decaying = optim.adamw(weight_decay=0.5, mask=tree.matching("layers/*/kernel"))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates = update(groups({"layers/*": decaying, "*": optim.adam()}), grads=zeros)
    np.testing.assert_allclose(updates["layers"][11]["kernel"], -LR * 0.5 * 2, rtol=1e-6)
    moved = [
        path
        for path, u in zip(tree.paths(updates), jax.tree.leaves(updates), strict=True)
        if u.any()
    ]
    assert moved == [f"layers/{i}/kernel" for i in range(12)]


def test_frozen_leaves_are_bitwise_unchanged_for_any_gradient():
    opt = optim.freeze(optim.adam(), "embed", "layers/*")
    spoilt = {**GRADS, "embed": jnp.full((4, 3), jnp.nan)}
    params = tree.add(PARAMS, update(opt, grads=spoilt))
    for part in ("embed", "layers"):
        jax.tree.map(np.testing.assert_array_equal, params[part], PARAMS[part])
    assert tree.all_finite(params) and (params["head"]["kernel"] != 1).all()


def test_frozen_leaves_take_no_memory():
    state = optim.freeze(optim.adam(), "layers/*").init(PARAMS)
    assert tree.count(state) == 1 + 2 * (12 + 2 + 6)  # a step; two moments of embed and head
    everything = partition({"all": frozen()}, lambda path, leaf: "all").init(PARAMS)
    assert jax.tree.leaves(everything) == []


def test_a_frozen_group_trains_through_the_step_of_a_run():
    def recipe(hyper):
        opt = optim.freeze(optim.adamw(weight_decay=hyper["decay"]), "kernel")
        model, schedule = nn.linear(2), schedules.constant(hyper["lr"])
        return Recipe(model, losses.mean_squared_error, opt, schedule)

    key, hyper, x = jax.random.key(0), {"lr": 0.1, "decay": 0.1}, jnp.ones((4, 3))
    state = jax.jit(make_init(recipe))(key, hyper, x)
    before = jax.tree.map(np.asarray, state.params)
    state, _ = jax.jit(make_step(recipe), donate_argnums=0)(
        state, (x, jnp.ones((4, 2))), key, hyper
    )
    np.testing.assert_array_equal(state.params["kernel"], before["kernel"])
    assert (np.asarray(state.params["bias"]) != before["bias"]).all()


class Pair(NamedTuple):
    second: Any
    first: Any


def test_tuples_are_told_apart_by_the_names_of_their_fields():
    params = Pair(second=(jnp.ones(2), jnp.ones(3)), first=jnp.ones(1))
    updates = update(groups({"second/0": frozen(), "*": optim.sgd()}), params, params)
    assert type(updates) is Pair and [u.sum() for u in updates.second] == [0, -LR * 3]


def test_bfloat16_parameters_have_float32_states_and_keep_their_dtype():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    opt = optim.freeze(optim.adam(), "embed")
    state = opt.init(half)
    updates, _ = opt.update(half, state, half, LR)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"int32", "float32"}
    assert {p.dtype.name for p in jax.tree.leaves(tree.add(half, updates))} == {"bfloat16"}


def looks_ahead() -> Optimizer:
    """Steps along the gradient that the objective gives at half of its parameters."""

    def update(grads, state, params, lr, objective=None):
        _, ahead = objective.at(jax.tree.map(lambda p: p / 2, params))
        return jax.tree.map(lambda g: -lr * g, ahead), state

    return Optimizer(
        lambda params: (), update, lambda state, params: {k: -p for k, p in params.items()}
    )


def product(params):
    return (params["a"] * params["b"]["c"]).sum()


def test_a_group_sees_the_loss_as_a_function_of_its_own_leaves():
    params = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([3.0, 5.0])}}
    objective = Objective(product(params), jax.value_and_grad(product))
    opt = groups({"a": looks_ahead(), "b/*": looks_ahead()})
    updates = update(opt, params, jax.grad(product)(params), 1.0, objective)
    # Each halves its own factor, which is not in its gradient, and leaves the other as it is.
    expect_equal(updates, {"a": -params["b"]["c"], "b": {"c": -params["a"]}})
    values = []

    def spying(grads, state, params, lr, objective=None):
        values.append((objective.value, *objective.at({"a": jnp.zeros(2)})))
        return params, state

    spy = Optimizer(lambda params: (), spying)
    update(groups({"a": spy, "*": frozen()}), params, params, 1.0, objective)
    value, moved, grads = values[0]
    assert value == product(params) and moved == 0 and list(grads) == ["a"]
    np.testing.assert_array_equal(grads["a"], params["b"]["c"])


def test_without_an_objective_a_group_gets_none():
    params = {"a": jnp.ones(1)}
    with pytest.raises(AttributeError, match="NoneType"):
        update(groups({"*": looks_ahead()}), params, params)


@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: optim.decoupled_decay(o, 0.1)])
def test_weights_are_those_of_each_group(wrap):
    opt = wrap(groups({"a": looks_ahead(), "*": optim.sgd()}))
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    used = opt.weights(opt.init(params), params)
    assert used["a"] == -1 and used["b"] == 1


def test_a_wrapper_keeps_the_loss_scale_and_a_group_refuses_one():
    scaled = optim.sgd()._replace(loss_scale=lambda state: 8.0)
    for wrapped in (
        optim.decoupled_decay(scaled, 0.1),
        layerwise_lr_decay(scaled, 0.5, lambda path: 1),
    ):
        assert wrapped.loss_scale(()) == 8
    plateau = optim.reduce_on_plateau(scaled, every_steps=1)
    assert plateau.loss_scale(plateau.init(PARAMS)) == 8
    for make in (
        lambda: groups({"*": scaled}),
        lambda: optim.freeze(scaled, "embed"),
        lambda: optim.scheduled(lambda: scaled).init(PARAMS),
        lambda: expect_unscaled("here", optim.sgd(), scaled),
    ):
        with pytest.raises(ValueError, match="expected optimizers without a loss scale, got one"):
            make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: groups({"head/*": optim.sgd()}), "expected a pattern .* got none for 'embed' amo"),
        (
            lambda: groups({"*": optim.sgd(), "heads/*": frozen()}),
            "expected 'heads/\\*' to get a leaf, got none among .*; correct the pattern",
        ),
        (
            lambda: groups({"*": optim.sgd(), "head/*": frozen()}),
            "expected 'head/\\*' to get a leaf, .*; move it before those that take .*'head/kernel'",
        ),
        (lambda: optim.freeze(optim.sgd(), "embeds"), "expected 'embeds' to match a leaf"),
        (
            lambda: partition({"vectors": optim.sgd()}, by_ndim),
            r"expected one of the groups \['vectors'\] for the leaf 'embed', got 'matrices'",
        ),
    ],
)
def test_what_fits_no_group_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make().init(PARAMS)
    with pytest.raises(ValueError, match=message):
        make().update(GRADS, {}, PARAMS, LR)


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(ValueError, match=r"groups: expected a path of its own .* \['a/b'\] twice"):
        groups({"*": optim.sgd()}).init({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}})


def test_the_table_counts_what_the_state_holds():
    kinds = {"embed": frozen(), "*kernel": optim.adam(), "*": optim.sgd(momentum=0.9)}
    lines = groups_table(kinds, PARAMS).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["embed", "1", "12", "0"],
        ["*kernel", "13", "114", str(4 + 2 * 4 * 114)],
        ["*", "13", "38", str(4 * 38)],
    ]
    assert len({len(line) for line in lines}) == 1
    shapes = jax.eval_shape(lambda: PARAMS)
    assert groups_table(kinds, shapes).splitlines() == lines
    with pytest.raises(ValueError, match="got none for 'embed'"):
        groups_table({"*kernel": optim.adam()}, PARAMS)


def test_layers_further_from_the_head_move_less():
    opt = layerwise_lr_decay(optim.sgd(), 0.8, optim.depth_by_number("embed"))
    updates, plain = update(opt), update(optim.sgd())
    expect_equal(updates["head"], plain["head"], rtol=0)
    for i in range(12):
        scaled = jax.tree.map(lambda u, i=i: 0.8 ** (12 - i) * u, plain["layers"][i])
        expect_equal(updates["layers"][i], scaled, rtol=2e-6)
    expect_equal(updates["embed"], 0.8**13 * plain["embed"], rtol=2e-6)


def test_layers_with_a_rate_each_are_groups_with_a_rate_each():
    rates = [LR * 0.5 ** (1 - i) for i in range(2)]
    params = {"layers": PARAMS["layers"][:2]}
    decayed = trained(layerwise_lr_decay(optim.adam(), 0.5, optim.depth_by_number()), params=params)
    for i, lr in enumerate(rates):

        def alone(grads, state, params, _, objective=None, lr=lr):
            return optim.adam().update(grads, state, params, lr)

        one = trained(optim.adam()._replace(update=alone), params=params)
        expect_equal(decayed["layers"][i], one["layers"][i])


@pytest.mark.slow
def test_depths_may_be_swept_and_none_at_all_is_refused():
    def moved(decay):
        return update(layerwise_lr_decay(optim.sgd(), decay, optim.depth_by_number("embed")))

    swept = jax.vmap(moved)(jnp.float32([1.0, 0.5]))
    expect_equal(jax.tree.map(lambda u: u[0], swept), update(optim.sgd()))
    with pytest.raises(ValueError, match="layerwise_lr_decay: expected a depth for some leaf"):
        update(layerwise_lr_decay(optim.sgd(), 0.5, lambda path: None))


@pytest.mark.parametrize(
    ("path", "depth"),
    [("layers/0/kernel", 1), ("3", 4), ("block_10/kernel", None), ("embed/2", 0), ("a/12", 13)],
)
def test_a_depth_is_a_number_that_stands_alone(path, depth):
    assert optim.depth_by_number("embed*")(path) == depth


def rates(losses, **settings):
    """The lr that gradient descent on a plateau uses at each step."""
    opt = optim.reduce_on_plateau(optim.sgd(), **settings)
    one = {"w": jnp.ones(1)}

    def step(state, loss):
        updates, state = opt.update(one, state, one, LR, Objective(loss, lambda p: (loss, p)))
        return state, -updates["w"][0]

    return np.asarray(
        jax.jit(lambda v: jax.lax.scan(step, opt.init(one), v)[1])(jnp.float32(losses))
    )


def test_a_plateau_is_read_from_means_over_steps():
    flat = [2.0] * 12
    np.testing.assert_allclose(
        rates(flat, every_steps=3, factor=0.5, patience=1)[[0, 7, 8, 11]], [LR, LR, LR / 2, LR / 2]
    )
    # Means of 3, 2 and 1 fall; the losses themselves rise and fall.
    falling = [1, 5, 0, 4, -1, 3]
    np.testing.assert_allclose(rates(falling, every_steps=2, factor=0.5, patience=0), LR)
    assert rates(falling, every_steps=1, factor=0.5, patience=0)[1] == np.float32(LR) / 2


def test_a_plateau_is_that_of_optax_at_the_end_of_a_chain():
    noise = np.random.default_rng(0).uniform(1, 2, 60).astype(np.float32)
    peer = optax.contrib.reduce_on_plateau(0.7, patience=2, accumulation_size=3, cooldown=1)
    state, expected = peer.init({"w": jnp.ones(1)}), []
    see = jax.jit(lambda loss, s: peer.update({"w": jnp.ones(1)}, s, value=loss))
    with jax.numpy_dtype_promotion("standard"):
        for loss in noise:
            updates, state = see(loss, state)
            expected.append(LR * updates["w"][0])
    ours = rates(noise, every_steps=3, factor=0.7, patience=1, cooldown=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert len(set(ours.tolist())) > 3


def test_a_plateau_needs_the_loss_and_shows_the_weights_of_its_optimizer():
    opt = optim.reduce_on_plateau(looks_ahead(), every_steps=1)
    one = {"w": jnp.ones(1)}
    with pytest.raises(ValueError, match="reduce_on_plateau: expected an objective"):
        opt.update(one, opt.init(one), one, LR)
    assert opt.weights(opt.init(one), one)["w"] == -1
    objective = Objective(jnp.float32(1), lambda params: (jnp.float32(1), params))
    updates, _ = opt.update(one, opt.init(one), one, LR, objective)  # passes the objective on
    np.testing.assert_allclose(updates["w"], -LR / 2)


def test_scheduled_hyperparameters_keep_objective_and_weights():
    opt = optim.scheduled(looks_ahead)
    one = {"w": jnp.ones(1)}
    objective = Objective(jnp.float32(1), lambda params: (jnp.float32(1), params))
    updates, state = opt.update(one, opt.init(one), one, LR, objective)
    np.testing.assert_allclose(updates["w"], -LR / 2)
    assert opt.weights(state, one)["w"] == -1 and state.step == 1


@pytest.mark.parametrize(
    "wrap",
    [
        lambda o: optim.decoupled_decay(o, 0.0),
        lambda o: layerwise_lr_decay(o, 1.0, lambda path: 1),
        lambda o: optim.freeze(o),
        lambda o: optim.chain(optim.add_l2(0.0), o),
        lambda o: partition({"all": o}, lambda path, leaf: "all"),
    ],
    ids=["decoupled_decay", "layerwise_lr_decay", "freeze", "chain", "partition"],
)
def test_a_wrapper_passes_the_objective_on(wrap):
    params = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([3.0, 5.0])}}
    objective = Objective(product(params), jax.value_and_grad(product))
    updates = update(wrap(looks_ahead()), params, params, 1.0, objective)
    expect_equal(updates, {"a": -params["b"]["c"] / 2, "b": {"c": -params["a"] / 2}})
