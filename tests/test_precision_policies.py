"""Mixed precision chosen in the recipe; and optimizers that wrap others, in a step, run and fit."""

from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, nn, optim, schedules, tree
from fnn.checkpoint import RunDir
from fnn.keys import run_keys
from fnn.models.mlp import MLPConfig, mlp
from fnn.nn import cast, mixed_bfloat16, mixed_float16
from fnn.recipe import Recipe
from fnn.train import fit, make_init, make_run, make_step, microbatches, silent
from tests.tiny import DATA, KEY, assert_same_bits

X, Y = DATA.train.x[:16], DATA.train.y[:16]
HYPER = {"lr": 0.1}


def single(hyper, **changes):
    """A recipe in float32: batch norm, clipping, Adam."""
    config = MLPConfig(widths=(8,), out_features=2, norm=nn.batch_norm)
    plain = Recipe(
        model=mlp(config),
        loss=losses.cross_entropy,
        optimizer=optim.chain(optim.clip_by_global_norm(1.0), optim.adam()),
        schedule=schedules.constant(hyper["lr"]),
    )
    return plain._replace(**changes)


MIXED = {"bfloat16": mixed_bfloat16, "float16": mixed_float16}


def equations(jaxpr):
    """All equations, also of the programs inside."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def stepped(recipe):
    """The products of a step, the state after it and its metrics."""
    state, step = (
        jax.jit(make_init(recipe))(KEY, HYPER, X),
        jax.jit(make_step(recipe), donate_argnums=0),
    )
    jaxpr = jax.make_jaxpr(step)(state, (X, Y), KEY, HYPER).jaxpr
    products = [e for e in equations(jaxpr) if e.primitive.name == "dot_general"]
    after, metrics = step(state, (X, Y), KEY, HYPER)
    return products, after, np.array([metrics["loss"], metrics["grad_norm"]])


@pytest.fixture(scope="module")
def expected():
    return stepped(single)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", MIXED)
def test_products_are_of_16_bits_and_all_that_is_kept_is_of_32(name, expected):
    products, after, values = stepped(lambda hyper: MIXED[name](single(hyper)))
    # Two kernels: forwards, backwards to each, and to the input of the second.
    assert len(products) == len(expected[0]) == 5
    assert {v.aval.dtype.name for e in products for v in (*e.invars, *e.outvars)} == {name}
    leaves = [leaf.dtype for leaf in jax.tree.leaves(after)]
    assert {dtype.name for dtype in leaves if dtype.kind == "f"} == {"float32"}
    # Loss and gradient: a rounding to 8 bits is 0.4 %, and there are some ten on the way.
    np.testing.assert_allclose(values, expected[2], rtol=0.02)
    assert (values != expected[2]).all()


TINY = 1e-4  # inputs and targets of this size give gradients near 1e-8; float16 ends at 6e-8
SMALL = (np.float32(TINY) * X, np.float32(TINY) * (X @ np.float32([[3.0], [-2.0]])))


def small(mixed, gradient=None):
    """Least squares, so small that float16 loses the gradient."""

    def recipe(hyper):
        plain = Recipe(
            model=nn.linear(1, bias=False, kernel_init=lambda key, shape: jnp.ones(shape)),
            loss=losses.mean_squared_error,
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
        )
        return mixed(plain)._replace(**({"gradient": gradient} if gradient else {}))

    return recipe


def trained(recipe, steps, lr):
    state, step = (
        jax.jit(make_init(recipe))(KEY, {"lr": lr}, SMALL[0]),
        jax.jit(make_step(recipe), donate_argnums=0),
    )
    for _ in range(steps):
        state, metrics = step(state, SMALL, KEY, {"lr": lr})
    return state, metrics


def unscaled_float16(recipe):
    return recipe._replace(model=mixed_float16(recipe).model)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("gradient", [None, microbatches(4)], ids=["whole", "in parts"])
def test_gradients_too_small_for_float16_train_when_the_loss_is_scaled(gradient):
    lost, found = (
        trained(small(mixed, gradient), 100, lr=0.3 / TINY**2)[0].params["kernel"]
        for mixed in (unscaled_float16, mixed_float16)
    )
    aim = np.float32([[3.0], [-2.0]])
    assert np.abs(lost - aim).max() > 0.5  # from where the gradient is rounded to 0
    # Inputs and predictions of 1e-4 are known to 3e-8, half of the smallest float16.
    np.testing.assert_allclose(found, aim, rtol=3e-3)


def test_an_overflow_leaves_the_step_out_and_halves_the_scale():
    scale = partial(optim.dynamic_loss_scale, start=2.0**40)
    recipe = small(partial(mixed_float16, scale=scale))
    state, metrics = trained(recipe, 1, lr=1.0)
    np.testing.assert_array_equal(state.params["kernel"], 1)
    assert not np.isfinite(metrics["grad_norm"]) and np.isfinite(metrics["loss"])
    assert metrics["update_norm"] == 0 and state.step == 1
    found = state.opt_state
    assert (found.scale, found.skipped, found.good) == (2.0**39, 1, 0)


def test_an_optimizer_with_a_loss_scale_gets_no_second_one():
    with pytest.raises(ValueError, match="mixed_float16: expected optimizers without a loss scale"):
        mixed_float16(mixed_float16(single(HYPER)))


def test_predictions_are_float32_also_for_inputs_without_fractions():
    model = mixed_bfloat16(single(HYPER, model=nn.embedding(5, 3))).model
    tokens = jnp.array([1, 4])
    params, state = model.init(jax.random.key(0), tokens)
    assert model.apply(params, state, tokens)[0].dtype == jnp.float32


# Optimizers around optimizers, in everything that trains.


def noisy(hyper):
    key = jax.random.key(hyper["noise_seed"])
    return optim.chain(optim.add_noise(key, eta=1e-3), optim.adam())


def by_layer(hyper):
    return optim.layerwise_lr_decay(optim.adam(), 0.5, optim.depth_by_number())


OPTIMIZERS = {
    "an average of what moves by layer": lambda hyper: optim.ema(by_layer(hyper), decay=0.8),
    "noise, and frozen leaves": lambda hyper: optim.freeze(noisy(hyper), "hidden/*"),
    # Overflows at first, and grows later: the scale is on its way all the time.
    "groups under a loss scale": lambda hyper: optim.dynamic_loss_scale(
        optim.groups({"*bias": optim.sgd(), "*": optim.adam()}), start=2.0**20, growth_steps=2
    ),
}
RUN = dict(steps=9, batch_size=8, eval_every=3)


def recipe_of(name):
    def recipe(hyper):
        config = MLPConfig(widths=(4,), out_features=2)
        dtype = jnp.float16 if "loss scale" in name else jnp.float32
        return Recipe(
            model=cast(mlp(config), dtype),
            loss=losses.cross_entropy,
            optimizer=OPTIMIZERS[name](hyper),
            schedule=schedules.constant(hyper["lr"]),
        )

    return recipe


def changed(before, after):
    """The paths of the leaves that are not what they were."""
    pairs = zip(tree.paths(before), jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return {path for path, a, b in pairs if (a != b).any()}


def largest_moves(before, after):
    moves = jax.tree.map(lambda a, b: float(jnp.abs(b - a).max()), before, after)
    return dict(zip(tree.paths(moves), jax.tree.leaves(moves), strict=True))


def expect_its_effect(name, first, last, state):
    every = set(tree.paths(last))
    if "average" in name:
        assert changed(state.average, last) == changed(first, last) == every
    elif "frozen" in name:
        assert changed(first, last) == {"head/bias", "head/kernel"}
    else:
        assert 0 < state.skipped < RUN["steps"] and state.scale < 2.0**20
        assert set(tree.paths(state.inner["*"].m)) == {"head/kernel", "hidden/0/linear/kernel"}
        assert changed(first, last) == every


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains_by_fit_resumed_as_well_as_at_a_stretch_and_mapped_over_seeds(name, tmp_path):
    recipe = recipe_of(name)
    hyper = {"lr": 0.05} | ({"noise_seed": 0} if "noise" in name else {})
    fitted = partial(
        fit, recipe, DATA, key=KEY, hyper=hyper, batch_size=8, eval_every=3, progress=silent
    )
    whole = fitted(steps=9)
    fitted(steps=6, store=RunDir(tmp_path))
    resumed = fitted(steps=9, store=RunDir(tmp_path), resume=True)
    assert_same_bits(resumed.state, whole.state)

    keys = jax.vmap(jax.random.key)(jnp.arange(2))  # the first is KEY
    hypers = {key: jnp.array([value, value + type(value)(1)]) for key, value in hyper.items()}
    hypers["lr"] = jnp.array([0.05, 0.05])
    states, history = jax.jit(jax.vmap(make_run(recipe, **RUN), (0, 0, None)))(keys, hypers, DATA)
    # A batched product sums in another order than a single one; float16 has 11 bits.
    rtol = 1e-2 if "loss scale" in name else 1e-4
    np.testing.assert_allclose(history.train["loss"][0], whole.history.train["loss"], rtol=rtol)
    np.testing.assert_allclose(
        history.valid["loss"][0], whole.history.valid["loss"], rtol=rtol, atol=rtol
    )
    assert (history.train["loss"][0] != history.train["loss"][1]).any()

    first = jax.jit(make_init(recipe))(run_keys(KEY).init, hyper, DATA.train.x[:8]).params
    expect_its_effect(name, first, whole.state.params, whole.state.opt_state)


def test_noise_follows_its_own_seed_which_is_a_hyperparameter():
    recipe, kernels = recipe_of("noise, and frozen leaves"), []
    init, step = jax.jit(make_init(recipe)), jax.jit(make_step(recipe), donate_argnums=0)
    for seed in (0, 1, 0):
        hyper = {"lr": 0.05, "noise_seed": seed}
        state, _ = step(init(KEY, hyper, X), (X, Y), KEY, hyper)
        kernels.append(state.params["head"]["kernel"])
    assert (kernels[0] != kernels[1]).any()
    np.testing.assert_array_equal(kernels[0], kernels[2])


def test_the_first_step_of_adam_by_layer_is_the_lr_above_and_half_of_it_below():
    recipe = recipe_of("an average of what moves by layer")
    state, step = (
        jax.jit(make_init(recipe))(KEY, HYPER, X),
        jax.jit(make_step(recipe), donate_argnums=0),
    )
    first = jax.tree.map(jnp.copy, state.params)
    after, _ = step(state, (X, Y), KEY, HYPER)
    moves = largest_moves(first, after.params)
    # Adam's first update is the lr, but for its eps beside the gradient.
    np.testing.assert_allclose(moves["head/kernel"], 0.1, rtol=1e-4)
    np.testing.assert_allclose(moves["hidden/0/linear/kernel"], 0.05, rtol=1e-4)
