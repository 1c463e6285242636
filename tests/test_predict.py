"""Predictions in batches: the outputs of one call, whatever the cut and wherever the inputs are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, metrics, optim
from fnn.train import fit, make_init, predict, silent, trained_params
from fnn.types import Model
from tests.tiny import BATCH, DATA, HYPER, KEY, recipe

X = DATA.valid.x  # 21 examples, of NumPy


def averaged(hyper):
    """Weights to evaluate with that differ from the trained ones; batch norm with its state."""
    r = recipe(hyper)
    return r._replace(optimizer=optim.ema(r.optimizer, decay=0.9))


@pytest.fixture(scope="module")
def state():
    return fit(averaged, DATA, key=KEY, hyper=HYPER, steps=8, batch_size=BATCH,
               progress=silent).state  # fmt: skip


@pytest.fixture(scope="module")
def whole(state):
    model, params = recipe(HYPER).model, trained_params(averaged, state, HYPER)
    return np.asarray(model.apply(params, state.model_state, jnp.asarray(X))[0])


@pytest.mark.sampled(12)
@pytest.mark.parametrize("batch_size", [1, 7, 8, 21, 1024])
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_every_cut_gives_the_outputs_of_the_weights_to_evaluate_with(
    state, whole, batch_size, place
):
    outputs = predict(averaged, state, place(X), hyper=HYPER, batch_size=batch_size)
    assert isinstance(outputs, np.ndarray) and outputs.shape == (21, 2)
    np.testing.assert_allclose(outputs, whole, rtol=1e-5, atol=1e-6)  # another order of sums


def test_it_is_not_that_of_the_trained_weights_nor_of_the_first_statistics(state, whole):
    model, first = recipe(HYPER).model, make_init(averaged)(KEY, HYPER, X)
    for params, statistics in [
        (state.params, state.model_state),
        (trained_params(averaged, state, HYPER), first.model_state),
    ]:
        assert np.abs(model.apply(params, statistics, jnp.asarray(X))[0] - whole).max() > 1e-3


def test_inputs_are_read_batch_by_batch_and_it_compiles_twice_at_most(state):
    traces, most = [], []

    def counting(hyper):
        r = averaged(hyper)

        def apply(*args, **kwargs):
            traces.append(1)
            return r.model.apply(*args, **kwargs)

        return r._replace(model=Model(r.model.init, apply))

    class Watched:
        """An array on disk, say, which notes how many rows are asked for at once."""

        shape, dtype = X.shape, X.dtype

        def __getitem__(self, rows):
            most.append(len(X[rows]))
            return X[rows]

    predict(counting, state, Watched(), hyper=HYPER, batch_size=4)
    assert max(most) == 4 and sum(most) == 21
    assert len(traces) == 2  # the whole batches, and the last one
    predict(counting, state, X[::-1], hyper=HYPER, batch_size=4)
    assert len(traces) == 2


def test_pytrees_go_in_and_come_out():
    def two(hyper):
        model = Model(
            lambda key, x: ({"w": jnp.ones(())}, ()),
            lambda params, state, x, *, key=None, train=False: (
                {"sum": x["a"] + x["b"], "pair": (x["a"], params["w"] * x["b"])},
                state,
            ),
        )
        return recipe(hyper)._replace(model=model)

    x = {"a": np.arange(5.0, dtype=np.float32), "b": jnp.ones(5)}
    state = make_init(two)(KEY, HYPER, x)
    outputs = predict(two, state, x, hyper=HYPER, batch_size=2)
    np.testing.assert_array_equal(outputs["sum"], np.arange(5) + 1)
    np.testing.assert_array_equal(outputs["pair"][0], np.arange(5))


def test_no_examples_give_outputs_without_examples(state):
    assert predict(averaged, state, X[:0], hyper=HYPER).shape == (0, 2)


def test_it_agrees_with_the_evaluation(state):
    outputs = predict(averaged, state, X, hyper=HYPER, batch_size=8)
    loss = losses.cross_entropy(jnp.asarray(outputs), jnp.asarray(DATA.valid.y)).mean()
    result = fit(averaged, DATA, key=KEY, hyper=HYPER, steps=8, batch_size=BATCH, progress=silent)
    np.testing.assert_allclose(loss, result.history.valid["loss"][-1], rtol=1e-6)
    accuracy = metrics.accuracy()
    value = accuracy.value(accuracy.measure(jnp.asarray(outputs), jnp.asarray(DATA.valid.y)))
    np.testing.assert_allclose(value, result.history.valid["accuracy"][-1], rtol=1e-6)


def test_bad_arguments(state):
    given = dict(hyper=HYPER)
    with pytest.raises(ValueError, match="(?s)predict: the recipe's state and .*opt_state"):
        predict(recipe, state, X, **given)
    with pytest.raises(ValueError, match="predict: x: expected an array with the batch axis"):
        predict(averaged, state, [1.0, 2.0], **given)
    with pytest.raises(ValueError, match="predict: x: expected .* give one example as x"):
        predict(averaged, state, np.float32(1), **given)
    with pytest.raises(ValueError, match="expected batch_size to be a positive integer"):
        predict(averaged, state, X, batch_size=0, **given)
    with pytest.raises(ValueError, match="kernel: expected float32.5,8., got float32.2,8."):
        predict(averaged, state, np.ones((3, 5), np.float32), **given)


def test_outputs_without_a_batch_axis(state):
    def mean(hyper):
        r = averaged(hyper)

        def apply(*args, **kwargs):
            outputs, model_state = r.model.apply(*args, **kwargs)
            return outputs.mean(), model_state

        return r._replace(model=Model(r.model.init, apply))

    with pytest.raises(ValueError, match="expected outputs with the batch axis of 21 first, got"):
        predict(mean, state, X, hyper=HYPER)


def test_the_state_is_left_as_it_is(state):
    predict(averaged, state, X, hyper=HYPER)
    assert all(not leaf.is_deleted() for leaf in jax.tree.leaves(state))
