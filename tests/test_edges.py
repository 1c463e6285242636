"""Complex numbers, arrays of size 0 and trees without a leaf, over the whole registry.

Each works, or is refused by a ValueError that says why; nothing is lost in silence.
"""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fnn import layers, losses, nn, optim, schedules, tree
from fnn.dtypes import is_float
from fnn.recipe import Recipe
from fnn.train import check, make_evaluate, make_init, make_step
from fnn.types import Batch, Data, Objective
from tests import registry
from tests.registry.rows import normal, over_models


def key():
    return jax.random.key(0)


COMPLEX = r"expected .*(real|float)"


@pytest.fixture(autouse=True)
def without_shape_hook():
    """Users have no hook that checks the annotations; what they give must reach our own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def over(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def turned(values):
    """The floating leaves as complex numbers."""

    def leaf(x):
        return jnp.asarray(x).astype(jnp.complex64) * jnp.complex64(1 + 1j) if is_float(x) else x

    return jax.tree.map(leaf, values)


def arrays(values):
    return jax.tree.map(jnp.asarray, values)


def empty(values):
    """The first axis of size 0."""
    return jax.tree.map(lambda leaf: leaf[:0], arrays(values))


def works_or_is_refused(function, *args):
    """The dtypes of the results, or None for a ValueError that says what was wrong."""
    try:
        return [leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(function, *args))]
    except ValueError as error:
        assert any(word in str(error) for word in ("expected", "complex", "promotion")), error
        return None


def keeps_imaginary_parts(dtypes):
    """Whether nothing was lost: floats are complex, or there is no result."""
    return dtypes is None or all(not jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)


WITH_FLOATS = [row for row in registry.MODELS if any(map(is_float, jax.tree.leaves(row.x)))]


@over_models(WITH_FLOATS)
def test_a_model_loses_no_imaginary_part(row):
    model, x = row.make(), arrays(row.x)
    params, state = jax.eval_shape(model.init, key(), x)

    def outputs(params, state, x):
        return model.apply(params, state, x, train=False)[0]

    assert keeps_imaginary_parts(
        works_or_is_refused(outputs, params, state, jax.eval_shape(turned, x))
    )


@over_models(registry.MODELS)
def test_a_model_takes_a_batch_of_no_examples(row):
    model, x = row.make(), arrays(row.x)
    params, state = jax.eval_shape(model.init, key(), x)

    def slopes(params, state, x):
        def total(params):
            y, new = model.apply(params, state, x, key=key(), train=True)
            parts = [leaf.sum() for leaf in jax.tree.leaves(y) if is_float(leaf)]
            return sum(parts, start=jnp.float32(0)), y

        return jax.grad(total, has_aux=True)(params)[1]

    works_or_is_refused(slopes, params, state, jax.eval_shape(empty, x))


TREES = {
    "no leaf": {},
    "of size 0": {
        "kernel": jnp.ones((2, 2)),
        "bias": jnp.zeros(0),
        "a": jnp.zeros((0, 3)),
        "b": jnp.zeros((3, 0)),
        "c": jnp.zeros((2, 0, 3)),
    },
    "complex": {"kernel": jnp.ones((2, 2), jnp.complex64), "bias": jnp.ones(2)},
}


def updated(optimizer, params):
    """Updates and weights after two steps, of which the first has a gradient of ones."""
    state = optimizer.init(params)

    def at(params):
        return jnp.float32(1), jax.tree.map(jnp.ones_like, params)

    for _ in range(2):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(
            grads, state, params, jnp.float32(0.1), Objective(jnp.float32(1), at)
        )
    return updates, optimizer.weights(state, params)


@over(registry.OPTIMIZERS)
@pytest.mark.parametrize("name", TREES)
def test_an_optimizer_takes_any_tree(row, name):
    params, optimizer = TREES[name], row.make(**row.scalars)
    dtypes = works_or_is_refused(lambda params: updated(optimizer, params), params)
    if name == "complex":
        assert dtypes is None


@over(registry.TRANSFORMS)
@pytest.mark.parametrize("name", TREES)
def test_a_transform_takes_any_tree(row, name):
    grads, transform = TREES[name], row.make(**row.scalars)

    def changed(grads):
        return transform.update(grads, transform.init(grads), grads)[0]

    dtypes = works_or_is_refused(changed, grads)
    if name == "complex":
        assert dtypes is None or jnp.complex64 in dtypes


@over(registry.LOSSES)
@pytest.mark.parametrize("part", ["predictions", "targets", "both"])
def test_a_loss_refuses_complex_numbers(row, part):
    z, y = arrays(row.predictions), arrays(row.targets)
    z, y = turned(z) if part != "targets" else z, turned(y) if part != "predictions" else y
    if part == "targets" and not any(map(is_float, jax.tree.leaves(row.targets))):
        return
    with pytest.raises(ValueError, match=COMPLEX):
        row.loss(z, y)


@over(registry.LOSSES)
def test_a_loss_of_no_examples_has_no_value(row):
    def slopes(z, y):
        def total(z):
            loss = row.loss(z, y)
            return sum(leaf.sum() for leaf in jax.tree.leaves(loss)), loss

        return jax.grad(total, has_aux=True)(z)[1]

    z, y = empty(row.predictions), empty(row.targets)
    for leaf in jax.tree.leaves(jax.eval_shape(slopes, z, y)):
        assert leaf.shape[:1] == (0,)


@pytest.mark.sampled(4)
@over(registry.METRICS)
def test_a_metric_refuses_complex_numbers_and_has_a_value_for_no_examples(row):
    metric = row.make()
    with pytest.raises(ValueError, match=COMPLEX):
        metric.measure(turned(arrays(row.predictions)), arrays(row.targets))
    value = metric.value(metric.measure(empty(row.predictions), empty(row.targets)))
    assert np.isfinite(value)


@over(registry.FUNCTIONS)
def test_an_activation_takes_no_elements(row):
    assert jax.eval_shape(row.function, jnp.ones((0, 3))).shape == (0, 3)


@over(registry.FUNCTIONS)
def test_an_activation_loses_no_imaginary_part(row):
    assert keeps_imaginary_parts(works_or_is_refused(row.function, jnp.ones((2, 3), jnp.complex64)))


@over(registry.INITIALIZERS)
@pytest.mark.parametrize("axis", [-1, -2])
def test_an_initializer_makes_arrays_of_size_0(row, axis):
    if len(row.shape) < -axis:
        return
    shape = list(row.shape)
    shape[axis] = 0

    def kernel(key):
        return row.initializer(key, tuple(shape), jnp.float32)

    try:
        assert jax.eval_shape(kernel, key()).shape == tuple(shape)
    except ValueError as error:
        assert "expected" in str(error) and "got" in str(error)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_a_linear_layer_has_inputs_and_outputs(sizes):
    with pytest.raises(
        ValueError, match="linear_init: expected .*_features to be a positive integer, got 0"
    ):
        layers.linear_init(key(), *sizes)
    kernel = {"kernel": jnp.zeros(sizes), "bias": jnp.arange(sizes[1], dtype=jnp.float32)}
    y = layers.linear(kernel, jnp.ones((2, sizes[0])))  # the bias, where there are no inputs
    np.testing.assert_array_equal(y, np.tile(np.arange(sizes[1]), (2, 1)))


def recipe(hyper):
    return Recipe(nn.linear(2), losses.mean_squared_error, optim.adam(), schedules.constant(0.1))


X, Y = normal(4, 3), normal(4, 2)


@pytest.mark.parametrize(("x", "y"), [(turned(X), Y), (X, turned(Y))])
def test_training_refuses_complex_examples_by_name(x, y):
    state = make_init(recipe)(key(), {}, X)
    good, bad = Batch(X, Y), Batch(x, y)
    name = "x" if x is not X else "y"
    with pytest.raises(
        ValueError, match=rf"data\.train\.{name}: expected real numbers, got complex"
    ):
        check(recipe, Data(train=bad, valid=good), key=key(), hyper={}, batch_size=2)
    with pytest.raises(ValueError, match="batch: expected real numbers at '[01]', got complex"):
        make_step(recipe)(state, bad, key(), {})
    with pytest.raises(ValueError, match="examples: expected real numbers at '[01]', got complex"):
        make_evaluate(recipe)(state, bad, {})


def test_training_refuses_complex_parameters_by_name():
    state = make_init(recipe)(key(), {}, X)
    with pytest.raises(ValueError, match="adam: params: expected real numbers at 'bias', got"):
        optim.adam().init(turned(state.params))
    changed = jax.tree.map(lambda leaf: leaf, state)
    object.__setattr__(changed, "params", turned(state.params))
    with pytest.raises(ValueError, match="params: expected real numbers at 'bias', got"):
        make_step(recipe)(changed, (X, Y), key(), {})


def test_a_model_without_parameters_trains():
    from fnn.nn import lift

    def bare(hyper):
        return recipe(hyper)._replace(model=lift(lambda x: x[:, :2]))

    state = make_init(bare)(key(), {}, X)
    state, metrics = jax.jit(make_step(bare))(state, (X, Y), key(), {})
    assert state.step == 1 and tree.all_finite(metrics)
