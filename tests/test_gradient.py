"""The gradient of a batch in parts: that of the whole batch, with less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules
from fnn.activations import tanh
from fnn.keys import run_keys
from fnn.nn import sequential
from fnn.recipe import Recipe, whole_batch
from fnn.train import fit, make_init, make_run, make_step, microbatches, silent
from fnn.train.devices import everywhere
from fnn.types import LossSums, Model
from tests.tiny import DATA, KEY, assert_same_bits

HYPER = {"lr": 0.1}
BATCH = (DATA.train.x[:24], DATA.train.y[:24])
PARTS = 4


def recipe_with(gradient=whole_batch, **changes):
    """An MLP without noise and without statistics of the batch."""

    def recipe(hyper):
        plain = Recipe(
            model=models.mlp.mlp(
                models.mlp.MLPConfig(widths=(8,), out_features=2, activation=tanh)
            ),
            loss=losses.cross_entropy,
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
            gradient=gradient,
        )
        return plain._replace(**changes)

    return recipe


def stepped(recipe, batch=BATCH, steps=1, hyper=HYPER, devices=()):
    """The state and the metrics after some steps."""
    state = everywhere(devices, jax.jit(make_init(recipe))(KEY, hyper, batch[0]))
    step = jax.jit(make_step(recipe, devices=devices), donate_argnums=0)
    for _ in range(steps):
        state, metrics = step(state, batch, KEY, hyper)
    return state, metrics


def expect_close(got, expected, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(b).max()))


def squared(params, model_state):
    return 0.3 * sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))


SAME_IN_PARTS = {
    "with a penalty, losses of two axes, and x in a dict": {
        "model": sequential(lambda x: x["a"] + x["b"], nn.linear(2)),
        "loss": lambda p, y: jnp.square(p - jax.nn.one_hot(y, 2)) * jnp.float32([[1, 5]]),
        "penalty": squared,
    },
    "with a second look at a scaled loss": {
        "optimizer": optim.dynamic_loss_scale(optim.sam(optim.sgd(), rho=0.5))
    },
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SAME_IN_PARTS)
def test_a_step_in_parts_is_the_step_on_the_whole_batch(name):
    x, y = BATCH
    batch = ({"a": x, "b": 2 * x}, y) if "dict" in name else BATCH
    whole = stepped(recipe_with(**SAME_IN_PARTS[name]), batch)
    parts = stepped(recipe_with(microbatches(PARTS), **SAME_IN_PARTS[name]), batch)
    # Sums of 24 numbers in another order: a few roundings of 6e-8.
    expect_close(parts, whole, 1e-6)


def test_in_float64_the_parts_are_the_whole_to_the_last_digits():
    with jax.enable_x64(True):
        model = recipe_with()(HYPER).model

        def init(key, x):
            params, state = model.init(key, jax.ShapeDtypeStruct(x.shape, jnp.float32))
            return jax.tree.map(lambda p: p.astype(jnp.float64), params), state

        wide = {"model": Model(init, model.apply), "penalty": squared}
        batch = (BATCH[0].astype(np.float64), BATCH[1])
        whole, _ = stepped(recipe_with(**wide), batch, steps=3)
        parts, _ = stepped(recipe_with(microbatches(6), **wide), batch, steps=3)
        assert parts.params["head"]["kernel"].dtype == jnp.float64
        expect_close(parts.params, whole.params, 1e-13)


def test_one_part_is_the_whole_batch():
    assert microbatches(1) is whole_batch


def sums(loss, model_state=(), weight=1.0):
    return LossSums(loss, jnp.zeros(()), jnp.float32(weight), {}, model_state)


def gradient_of(gradient, loss, params=None, batch=(jnp.arange(8.0), None), model_state=()):
    params = {"w": jnp.ones(())} if params is None else params
    return jax.jit(lambda p, s, b: gradient(loss, p, s, b, KEY))(params, model_state, batch)


def test_the_model_state_goes_from_part_to_part_in_the_order_of_the_batch():
    def loss(params, model_state, batch, key):
        value = params["w"] * batch[0].sum()
        return value, sums(value, 10 * model_state + batch[0][0], weight=2)

    found, _ = gradient_of(microbatches(4), loss, model_state=jnp.float32(0))
    assert (found.loss, found.weight, found.model_state) == (28, 8, 246)  # of 01, 23, 45, 67


def test_each_part_has_noise_of_its_own_that_follows_from_the_key_of_the_step():
    def loss(params, model_state, batch, key):
        value = params["w"] * jax.random.normal(key)
        return value, sums(value)

    _, grads = gradient_of(microbatches(4), loss)
    drawn = [jax.random.normal(jax.random.fold_in(KEY, i)) for i in range(4)]
    np.testing.assert_allclose(grads["w"], np.sum(drawn), rtol=1e-6)
    assert len({float(number) for number in drawn}) == 4


def test_gradients_of_narrow_parameters_are_summed_in_float32():
    """In bfloat16, 1 + 1/512 is 1 again."""

    def loss(params, model_state, batch, key):
        value = (params["w"] * batch[0].astype(jnp.bfloat16)).sum().astype(jnp.float32)
        return value, sums(value)

    numbers = jnp.float32([1, *[2.0**-9] * 7])
    _, grads = gradient_of(
        microbatches(8), loss, {"w": jnp.ones((), jnp.bfloat16)}, (numbers, None)
    )
    assert grads["w"].dtype == jnp.float32
    np.testing.assert_allclose(grads["w"], 1 + 7 * 2.0**-9, rtol=1e-7)


@pytest.mark.parametrize("parts", [0, -1, True])
def test_a_number_of_parts_that_is_none_is_refused(parts):
    with pytest.raises(ValueError, match="microbatches: expected parts to be a positive in"):
        microbatches(parts)


def test_a_batch_that_the_parts_do_not_divide_is_refused_before_the_first_step():
    run = make_run(recipe_with(microbatches(5)), steps=1, batch_size=24)
    with pytest.raises(
        ValueError, match=r"microbatches: .* that 5 parts divide, got 24 .* of 20, or"
    ):
        run(KEY, HYPER, DATA)


# With noise and statistics of the batch, so that the parts are not the whole.

LAYERS = sequential(nn.dropout(0.5), nn.batch_norm(decay=0.5), nn.linear(2))
in_parts = recipe_with(microbatches(PARTS), model=LAYERS)
RUN = dict(steps=6, batch_size=16)


@pytest.fixture(scope="module")
def trained():
    return jax.jit(make_run(in_parts, **RUN))(KEY, HYPER, DATA)


def test_batch_norm_follows_each_part_in_turn():
    def normed(gradient):
        layers = sequential(nn.batch_norm(decay=0.5), nn.linear(2))
        return recipe_with(gradient, model=layers)

    state, _ = stepped(normed(microbatches(2)))
    halves = [np.float64(BATCH[0][:12]), np.float64(BATCH[0][12:])]
    mean = 0.5 * (0.5 * halves[0].mean(0)) + 0.5 * halves[1].mean(0)
    (found,) = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(state.model_state)
        if "mean" in jax.tree_util.keystr(path)
    ]
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_fit_and_run_in_parts_give_the_same_bits(trained):
    result = fit(in_parts, DATA, key=KEY, hyper=HYPER, progress=silent, **RUN)
    assert_same_bits(trained[0], result.state)
    assert_same_bits(trained[1].train, result.history.train)


@pytest.mark.slow
def test_seeds_in_parts_may_be_mapped(trained):
    keys = jnp.stack([jax.random.clone(KEY), jax.random.key(1)])
    _, history = jax.jit(jax.vmap(make_run(in_parts, **RUN), (0, None, None)))(keys, HYPER, DATA)
    # A batched product sums in another order than a single one.
    np.testing.assert_allclose(
        history.train["loss"][0], trained[1].train["loss"], rtol=1e-4, atol=1e-5
    )
    assert (history.train["loss"][0] != history.train["loss"][1]).any()


def test_a_step_in_parts_is_traced_once():
    traces = []

    def counting(hyper):
        traces.append(1)
        return in_parts(hyper)

    state = jax.jit(make_init(in_parts))(KEY, HYPER, BATCH[0])
    step = jax.jit(make_step(counting), donate_argnums=0)
    for factor in (1.0, 0.5, 2.0):
        state, _ = step(state, BATCH, KEY, {k: v * factor for k, v in HYPER.items()})
    assert len(traces) == 1 and step._cache_size() == 1


def test_the_gradient_in_parts_may_be_differentiated_again():
    def loss(params, model_state, batch, key):
        value = jnp.sin(params["w"] * batch[0]).sum()
        return value, sums(value)

    def slope(gradient):
        return jax.grad(
            lambda w: gradient(loss, {"w": w}, (), (jnp.arange(8.0), None), KEY)[1]["w"]
        )(1.3)

    np.testing.assert_allclose(slope(microbatches(PARTS)), slope(whole_batch), rtol=1e-6)


def test_the_activations_in_memory_are_those_of_one_part():
    x, y = np.zeros((4096, 8), np.float32), np.zeros(4096, np.int32)

    def bytes_of(parts):
        def recipe(hyper):
            config = models.mlp.MLPConfig(widths=(64, 64), out_features=2)
            return recipe_with(microbatches(parts), model=models.mlp.mlp(config))(hyper)

        state = jax.eval_shape(make_init(recipe), run_keys(KEY).init, HYPER, x)
        compiled = (
            jax.jit(make_step(recipe), donate_argnums=0).lower(state, (x, y), KEY, HYPER).compile()
        )
        return compiled.memory_analysis().temp_size_in_bytes

    hidden = 4096 * 64 * 4  # one layer's activations of the whole batch
    whole, sixteenth = bytes_of(1), bytes_of(16)
    assert whole > 2 * hidden
    assert sixteenth < whole / 6
