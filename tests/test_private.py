"""Differentially private gradients: clipped example by example, with noise, in the sums' units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import dtypes, losses, metrics, models, nn, optim, schedules, tree
from fnn.nn import sequential
from fnn.recipe import Recipe, whole_batch
from fnn.testing import accumulation_equals_whole_batch
from fnn.train import make_init, make_step, private_gradient
from fnn.types import LossSums, Model
from tests.test_weighted import LABELS, X, class_loss, token_loss
from tests.tiny import DATA, KEY

BATCH = (DATA.train.x[:24], DATA.train.y[:24])
HYPER = {"lr": 1.0}
CLIP = 1.2  # between the smallest and the largest norm of an example's gradient


def recipe_with(gradient, **changes):
    def recipe(hyper):
        plain = Recipe(
            model=models.mlp.mlp(models.mlp.MLPConfig(widths=(8,), out_features=2)),
            loss=losses.cross_entropy,
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
            gradient=gradient,
        )
        return plain._replace(**changes)

    return recipe


def stepped(recipe, batch=BATCH, hyper=HYPER, key=KEY):
    """The gradient that the optimizer got, the start, and the metrics of a step."""
    start = make_init(recipe)(KEY, hyper, batch[0])
    after, found = jax.jit(make_step(recipe))(start, batch, key, hyper)
    change = jax.tree.map(lambda a, b: (a - b) / -hyper["lr"], after.params, start.params)
    return change, start, found


def examples_gradients(start, batch=BATCH):
    recipe = recipe_with(whole_batch)(HYPER)

    def loss(params, x, y):
        return recipe.loss(recipe.model.apply(params, (), x[None])[0], y[None])[0]

    return jax.vmap(jax.grad(loss), (None, 0, 0))(start.params, *map(jnp.asarray, batch))


def expect_close(got, expected, rtol=2e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 10)  # of parameters of about 1


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("loss", [token_loss, class_loss])
def test_without_noise_and_with_a_wide_clip_a_step_is_that_of_the_whole_batch(loss, parts):
    """With masks and weights, a penalty, a metric and a model state that counts."""

    def recipe(hyper):
        return Recipe(
            model=counting(sequential(nn.linear(7), jnp.tanh, nn.linear(5))),
            loss=loss,
            optimizer=optim.sgd(),
            schedule=schedules.constant(hyper["lr"]),
            train_metrics={"accuracy": metrics.accuracy(ignore_index=-100)},
            penalty=lambda params, state: 0.1 * tree.dot(params, params),
        )

    accumulation_equals_whole_batch(
        recipe,
        (X, LABELS),
        key=KEY,
        hyper={"lr": 0.1},
        parts=parts,
        gradient=lambda parts: private_gradient(1e6, 0.0, parts=parts),
    )


def counting(model):
    """The model with a state of its own: how often it has been applied, up to 1."""

    def init(key, x):
        return model.init(key, x)[0], {"applied": jnp.zeros(())}

    def apply(params, state, x, *, key=None, train=False):
        outputs, _ = model.apply(params, model.init(KEY, x)[1], x, key=key, train=train)
        return outputs, {"applied": jnp.minimum(state["applied"] + 1, 1)}

    return Model(init, apply)


SCALED = optim.dynamic_loss_scale(optim.sgd())


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("optimizer", [optim.sgd(), SCALED], ids=["plain", "loss scale"])
def test_clipped_gradients_are_those_of_optax(optimizer, parts):
    gradient = private_gradient(CLIP, 0.0, parts=parts)
    got, start, _ = stepped(recipe_with(gradient, optimizer=optimizer))
    each = examples_gradients(start)
    norms = np.asarray(jax.vmap(tree.global_norm)(each))
    assert norms.min() < CLIP < norms.max()
    reference = optax.contrib.differentially_private_aggregate(CLIP, 0.0, jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected, _ = reference.update(each, reference.init(start.params))
    expect_close(got, expected)


def test_one_example_moves_the_sum_by_at_most_twice_the_norm():
    recipe = recipe_with(private_gradient(CLIP, 0.0))
    outlier = (np.concatenate([[[1e4, -1e4]], BATCH[0][1:]]).astype(np.float32), BATCH[1])
    one, other = stepped(recipe)[0], stepped(recipe, outlier)[0]
    moved = 24 * tree.global_norm(jax.tree.map(jnp.subtract, one, other))
    assert moved <= 2 * CLIP * (1 + 1e-4)
    plain = recipe_with(whole_batch)
    far = [stepped(plain, batch)[0] for batch in (BATCH, outlier)]
    assert 24 * tree.global_norm(jax.tree.map(jnp.subtract, *far)) > 100 * CLIP


SILENT = Model(  # two matrices that nothing depends on
    lambda key, x: ({name: jnp.zeros((100, 100)) for name in "ab"}, ()),
    lambda params, state, x, *, key=None, train=False: (x, state),
)


def noise_of(optimizer=optim.sgd(), key=KEY, parts=1):
    """The noise of a step of 8 examples, in two matrices."""
    gradient = private_gradient(CLIP, 2.0, parts=parts)
    recipe = recipe_with(gradient, model=SILENT, optimizer=optimizer)
    batch = (np.zeros((8, 2), np.float32), np.zeros(8, np.int32))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(stepped(recipe, batch, key=key)[0])]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("optimizer", "parts"), [(optim.sgd(), 1), (optim.sgd(), 4), (SCALED, 1)])
def test_the_noise_has_the_deviation_of_the_multiplier_times_the_norm_over_the_batch(
    optimizer, parts
):
    one, other = noise_of(optimizer, parts=parts)
    for leaf in (one, other):
        # 10,000 draws: four standard errors.
        np.testing.assert_allclose(leaf.std(), 2.0 * CLIP / 8, rtol=4 * 0.7 / 100)
        np.testing.assert_allclose(leaf.mean(), 0, atol=4 * 2.0 * CLIP / 8 / 100)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05


def test_the_noise_follows_from_the_key_of_the_step():
    same, again, other = noise_of(), noise_of(), noise_of(key=jax.random.key(1))
    np.testing.assert_array_equal(same[0], again[0])
    assert abs(np.corrcoef(same[0].ravel(), other[0].ravel())[0, 1]) < 0.05


def test_the_noise_is_distributed_as_that_of_optax():
    each = {"w": jnp.zeros((8, 100, 100))}
    reference = optax.contrib.differentially_private_aggregate(CLIP, 2.0, jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs, _ = reference.update(each, reference.init(each))
    np.testing.assert_allclose(noise_of()[0].std(), np.std(theirs["w"]), rtol=4 * 1.0 / 100)


@pytest.mark.slow
def test_a_batch_without_weight_still_has_noise_and_no_nan():
    recipe = recipe_with(
        private_gradient(CLIP, 1.0),
        loss=lambda z, y: losses.cross_entropy(z, y, ignore_index=-100),
    )
    change, _, found = stepped(recipe, (BATCH[0], np.full(24, -100, np.int32)))
    assert found["loss"] == 0
    assert tree.all_finite(change) and tree.global_norm(change) > 0


def test_each_example_has_noise_of_its_own_in_the_model():
    noisy = Model(
        lambda key, x: ({"w": jnp.ones(())}, ()),
        lambda params, state, x, *, key=None, train=False: (
            params["w"] * jax.random.normal(key, (len(x),)),
            state,
        ),
    )
    values = {"values": metrics.mean(lambda outputs, targets: outputs)}
    squares = {"squares": metrics.mean(lambda outputs, targets: jnp.square(outputs))}
    recipe = recipe_with(
        private_gradient(1.0, 0.0),
        model=noisy,
        loss=lambda z, y: z,
        train_metrics=values | squares,
    )
    found = stepped(recipe)[2]
    # Equal draws would have no variance.
    assert found["squares"] - found["values"] ** 2 > 0.3


@pytest.mark.sampled(2)
@pytest.mark.parametrize("norm", [nn.batch_norm, nn.layer_norm])
def test_statistics_of_the_batch_are_refused_and_those_of_an_example_are_not(norm):
    model = sequential(nn.linear(4), norm(), nn.linear(2))
    recipe = recipe_with(private_gradient(CLIP, 0.0), model=model)
    if norm is nn.layer_norm:
        assert tree.all_finite(stepped(recipe)[0])
        return
    with pytest.raises(ValueError, match=r"got one, in x of shape.*group_norm|use group_norm or"):
        stepped(recipe)


def test_other_errors_of_a_model_come_through():
    def fails(x):
        raise ValueError("of the model itself")

    model = sequential(nn.linear(4), lambda x: fails(x) if len(x) == 1 else x, nn.linear(2))
    with pytest.raises(ValueError, match="^of the model itself"):
        stepped(recipe_with(private_gradient(CLIP, 0.0), model=model))


def test_what_it_cannot_divide_or_scale_is_refused():
    with pytest.raises(
        ValueError, match="private_gradient: expected parts to be a positive integer"
    ):
        private_gradient(CLIP, 0.0, parts=0)
    with pytest.raises(ValueError, match="private_gradient: expected a batch that 5 parts divide"):
        stepped(recipe_with(private_gradient(CLIP, 0.0, parts=5)))

    def loss(params, model_state, batch, key):
        total = params["w"] * batch[0].sum()
        return total, LossSums(total, jnp.zeros(()), jnp.ones(()), {}, model_state)

    with pytest.raises(ValueError, match="expected the loss of a step, .* got function; give it"):
        private_gradient(CLIP, 0.0)(loss, {"w": jnp.ones(())}, (), BATCH, KEY)


@pytest.mark.slow
def test_clip_and_noise_may_be_swept_and_differentiated():
    def recipe(hyper):
        return recipe_with(private_gradient(hyper["clip"], hyper["noise"]))(hyper)

    start, step = make_init(recipe_with(whole_batch))(KEY, HYPER, BATCH[0]), make_step(recipe)

    def last(clip, noise):
        state, _ = step(start, BATCH, KEY, {"lr": 0.5, "clip": clip, "noise": noise})
        return tree.dot(state.params, state.params)

    clips, noises = jnp.float32([0.1, 0.3, 1.0]), jnp.float32([0.0, 0.1, 2.0])
    one = jax.jit(last)
    together = jax.jit(jax.vmap(last))(clips, noises)
    alone = [one(*pair) for pair in zip(clips, noises, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    slope, h = jax.jit(jax.grad(last, 1))(jnp.float32(0.3), jnp.float32(0.1)), 1.0
    finite = (one(0.3, jnp.float32(0.1 + h)) - one(0.3, jnp.float32(0.1 - h))) / (2 * h)
    # The sum is quadratic in the noise, so the difference is exact up to its rounding.
    np.testing.assert_allclose(slope, finite, rtol=1e-3)


@pytest.mark.slow
def test_gradients_of_bfloat16_parameters_are_clipped_and_drawn_in_float32():
    def narrow(gradient):
        recipe = recipe_with(gradient)
        start = make_init(recipe)(KEY, HYPER, BATCH[0])
        params = dtypes.cast_floats(start.params, jnp.bfloat16)
        seen = {}

        def look(view):
            seen.update(dtypes={leaf.dtype.name for leaf in jax.tree.leaves(view.grads)})
            return {"norm": tree.global_norm(view.grads)}

        def with_look(hyper):
            return recipe(hyper)._replace(measures=(look,))

        batch = (jnp.asarray(BATCH[0], jnp.bfloat16), BATCH[1])
        start = dataclasses.replace(start, params=params)
        _, found = jax.jit(make_step(with_look))(start, batch, KEY, HYPER)
        return seen["dtypes"], found["norm"]

    names, norm = narrow(private_gradient(CLIP, 0.0))
    assert names == {"float32"} and 0 < norm <= CLIP
