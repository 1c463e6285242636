"""Wrappers over an optimizer in a step and in a run of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules, tree
from fnn.recipe import Recipe, whole_batch
from fnn.train import (
    make_evaluate,
    make_init,
    make_run,
    make_step,
    microbatches,
    private_gradient,
)
from fnn.types import Data
from tests.tiny import KEY, assert_same_bits

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(12, 3)).astype(np.float32)
Y = (X @ np.float32([[1.0], [-2.0], [0.5]])).astype(np.float32)
DATA = Data(train=(X, Y), valid=(X[:5], Y[:5] + np.float32(0.1)))
LR, STEPS = 0.05, 6


def recipe_with(optimizer):
    def recipe(hyper):
        model = nn.linear(1, bias=False, kernel_init=lambda key, shape: jnp.ones(shape))
        return Recipe(model, losses.mean_squared_error, optimizer, schedules.constant(hyper["lr"]))

    return recipe


def run_with(optimizer, steps=STEPS):
    """A run over whole batches, whose order makes no difference."""
    run = jax.jit(make_run(recipe_with(optimizer), steps=steps, batch_size=12, eval_every=steps))
    return run(KEY, {"lr": LR}, DATA)


def gradient(w):
    return 2 * X.T.astype(np.float64) @ (X @ w - Y) / len(X)


def valid_loss(w):
    x, y = DATA.valid
    return np.mean((x @ w - y) ** 2)


def descended():
    w, path = np.ones((3, 1)), []
    for _ in range(STEPS):
        w = w - LR * gradient(w)
        path.append(w)
    return path


AVERAGES = {
    "ema": (optim.ema(optim.sgd(), decay=0.5), 0.5 ** np.arange(STEPS)[::-1]),
    "swa": (optim.swa(optim.sgd(), start=2, period=2), np.array([0, 1, 0, 1, 0, 1])),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("optimizer", "shares"), AVERAGES.values(), ids=AVERAGES)
def test_a_run_evaluates_with_the_average_and_trains_without_it(optimizer, shares):
    state, history = run_with(optimizer)
    path = descended()
    np.testing.assert_allclose(state.params["kernel"], path[-1], rtol=1e-5)
    average = np.average(path, axis=0, weights=shares)
    # The loss is a difference from targets; a few roundings of 6e-8 in each.
    np.testing.assert_allclose(history.valid["loss"][-1], valid_loss(average), rtol=1e-5)
    assert abs(valid_loss(average) / valid_loss(path[-1]) - 1) > 0.1


def test_a_run_by_the_sharper_gradient_is_that_of_the_paper():
    state, history = run_with(optim.sam(optim.sgd(), rho=0.1))
    w, losses_seen = np.ones((3, 1)), []
    for _ in range(STEPS):
        losses_seen.append(np.mean((X @ w - Y) ** 2))
        g = gradient(w)
        w = w - LR * gradient(w + 0.1 * g / np.linalg.norm(g))
    np.testing.assert_allclose(state.params["kernel"], w, rtol=1e-5)
    np.testing.assert_allclose(history.train["loss"], losses_seen, rtol=1e-5)


def stepped(optimizer, batches):
    recipe = recipe_with(optimizer)
    state, step = (
        jax.jit(make_init(recipe))(KEY, {"lr": LR}, X),
        jax.jit(make_step(recipe), donate_argnums=0),
    )
    for batch in batches:
        state, metrics = step(state, batch, KEY, {"lr": LR})
    return state, metrics


def test_four_small_batches_equal_one_batch_of_four_times_the_size():
    small = [(X[i : i + 3], Y[i : i + 3]) for i in (0, 3, 6, 9)]
    state, metrics = stepped(optim.accumulate(optim.adamw(weight_decay=0.1), steps=4), 2 * small)
    whole, expected = stepped(optim.adamw(weight_decay=0.1), 2 * [(X, Y)])
    # The same sums in another order.
    np.testing.assert_allclose(state.params["kernel"], whole.params["kernel"], rtol=1e-5)
    np.testing.assert_allclose(metrics["update_norm"], expected["update_norm"], rtol=1e-5)


def test_between_the_updates_of_an_accumulation_nothing_moves():
    state, metrics = stepped(optim.accumulate(optim.adam(), steps=4), 3 * [(X, Y)])
    np.testing.assert_array_equal(state.params["kernel"], 1)
    assert metrics["update_norm"] == 0
    assert state.step == 3


def lrs_of(optimizer, steps):
    """What the schedule 0, 1, 2, ... gives at each step."""

    def recipe(hyper):
        def counting(step):
            return jnp.asarray(step, jnp.float32)

        return Recipe(nn.linear(1), losses.mean_squared_error, optimizer, counting)

    state, step = make_init(recipe)(KEY, {}, X), jax.jit(make_step(recipe))
    lrs = []
    for _ in range(steps):
        state, metrics = step(state, (X, Y), KEY, {})
        lrs.append(metrics["lr"].item())
    return lrs


WRAPPED = {
    "accumulate": lambda: optim.accumulate(optim.sgd(), steps=2),
    "chain": lambda: optim.chain(
        optim.clip_by_global_norm(1.0), optim.accumulate(optim.sgd(), steps=2)
    ),
    "ema": lambda: optim.ema(optim.accumulate(optim.sgd(), steps=2)),
    "freeze": lambda: optim.freeze(optim.accumulate(optim.sgd(), steps=2), "bias"),
    "decoupled_decay": lambda: optim.decoupled_decay(optim.accumulate(optim.sgd(), steps=2), 0.1),
    "dynamic_loss_scale": lambda: optim.dynamic_loss_scale(optim.accumulate(optim.sgd(), steps=2)),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", WRAPPED)
def test_a_schedule_counts_the_updates_of_an_accumulation(name):
    assert lrs_of(WRAPPED[name](), 5) == [0, 0, 1, 1, 2]


def test_accumulations_inside_each_other_multiply():
    inner = optim.accumulate(optim.sgd(), steps=2)
    assert optim.accumulate(inner, steps=3).steps_per_update == 6


def test_scheduled_hyperparameters_count_updates_too():
    def make(factor):
        return optim.accumulate(optim.chain(optim.add_l2(factor), optim.sgd()), steps=2)

    opt = optim.scheduled(make, factor=lambda step: jnp.float32(step))
    params, zero = {"w": jnp.ones(1)}, {"w": jnp.zeros(1)}
    state, updates = opt.init(params), []
    for _ in range(6):
        update, state = opt.update(zero, state, params, 1.0)
        updates.append(update["w"].item())
    assert updates == [0, 0, 0, -1, 0, -2]


def test_groups_that_update_at_different_steps_are_refused():
    several = {"kernel": optim.sgd(), "*": optim.accumulate(optim.sgd(), steps=2)}
    with pytest.raises(ValueError, match=r"groups: .* one update in \[1, 2\] steps"):
        optim.groups(several)


def test_a_step_without_a_loss_scale_is_the_step_that_it_was():
    """A loss scale of 1 multiplies and divides, and gives the same bits as none."""
    one = optim.adam()._replace(loss_scale=lambda state: 1.0)
    (state, metrics), (other, same) = (
        stepped(optimizer, 3 * [(X, Y)]) for optimizer in (optim.adam(), one)
    )
    assert_same_bits(state.params, other.params)
    assert_same_bits(metrics, same)


def test_training_without_a_schedule_is_evaluated_at_the_mean_of_its_steps():
    optimizer = optim.schedule_free_sgd()
    state, history = run_with(optimizer)
    z = x = np.ones((3, 1))
    for t in range(1, STEPS + 1):
        z = z - LR * gradient(0.1 * z + 0.9 * x)
        x = x + (z - x) / t
    np.testing.assert_allclose(history.valid["loss"][-1], valid_loss(x), rtol=1e-5)
    evaluate = jax.jit(make_evaluate(recipe_with(optimizer)))
    np.testing.assert_array_equal(
        evaluate(state, DATA.valid, {"lr": LR})["loss"], history.valid["loss"][-1]
    )


def deep_recipe(optimizer, **fields):
    """Three layers of which the body is most of the work."""
    config = models.mlp.MLPConfig(widths=(64, 64), out_features=1, activation=jnp.tanh)

    def recipe(hyper):
        schedule = schedules.constant(LR)
        return Recipe(
            models.mlp.mlp(config), losses.mean_squared_error, optimizer, schedule, **fields
        )

    return recipe


def flops(recipe):
    state = make_init(recipe)(KEY, {}, X)
    step = jax.jit(make_step(recipe)).lower(state, (X, Y), KEY, {})
    return step.compile().cost_analysis()["flops"]


PARAMS = make_init(deep_recipe(optim.sgd()))(KEY, {}, X).params
BODY = [path for path in tree.paths(PARAMS) if not path.startswith("head")]
FROZEN = {
    "freeze": lambda: optim.freeze(optim.adam(), *BODY),
    "groups": lambda: optim.groups({**{path: optim.frozen() for path in BODY}, "*": optim.adam()}),
    "partition": lambda: optim.partition(
        {"body": optim.frozen(), "head": optim.adam()},
        lambda path, leaf: "body" if path in BODY else "head",
    ),
    "wrapped": lambda: optim.ema(
        optim.chain(optim.clip_by_global_norm(1e3), optim.freeze(optim.adam(), *BODY))
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", FROZEN)
def test_no_gradient_is_computed_for_what_is_frozen(name):
    """What is left is the forward pass and the gradient of the head."""
    forward = flops(deep_recipe(optim.frozen()))
    whole = flops(deep_recipe(optim.adam()))
    assert flops(deep_recipe(FROZEN[name]())) < forward + 0.3 * (whole - forward)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("gradient", [whole_batch, microbatches(3), private_gradient(1e6, 0.0)])
def test_the_norm_of_the_gradient_is_that_of_what_trains(gradient):
    recipe = deep_recipe(optim.freeze(optim.sgd(), *BODY), gradient=gradient)
    state = make_init(recipe)(KEY, {}, X)
    after, metrics = jax.jit(make_step(recipe))(state, (X, Y), KEY, {})
    moved = jax.tree.map(jnp.subtract, state.params, after.params)
    # The update of gradient descent is lr times the gradient, up to the rounding of p - lr g.
    np.testing.assert_allclose(metrics["grad_norm"], tree.global_norm(moved) / LR, rtol=1e-4)
    for path in BODY:
        assert dict(zip(tree.paths(moved), jax.tree.leaves(moved), strict=True))[path].sum() == 0


def test_a_penalty_moves_nothing_that_is_frozen():
    def penalty(params, model_state):
        return losses.l2_penalty(params)

    recipe = deep_recipe(optim.freeze(optim.sgd(), *BODY), penalty=penalty, measures=(seen,))
    state = make_init(recipe)(KEY, {}, X)
    _, metrics = jax.jit(make_step(recipe))(state, (X, Y), KEY, {})
    assert metrics["of the body"] == 0 and metrics["of the head"] > 0


def seen(view):
    of = dict(zip(tree.paths(view.grads), jax.tree.leaves(view.grads), strict=True))
    head = [g for path, g in of.items() if path not in BODY]
    return {
        "of the body": tree.global_norm([of[path] for path in BODY]),
        "of the head": tree.global_norm(head),
    }
