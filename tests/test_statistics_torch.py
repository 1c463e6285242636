"""The statistics of batch norm for other parameters, against torch's update_bn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fnn import losses, nn, optim, schedules
from fnn.nn import sequential
from fnn.recipe import Recipe
from fnn.train import make_init, make_step, trained_params, update_statistics
from fnn.types import Model
from tests.registry.rows import normal

BATCHES, BATCH, FEATURES = 5, 8, 3
X = jnp.asarray(3 * normal(BATCHES, BATCH, FEATURES) + 7)


def key():
    return jax.random.key(0)


def torch_statistics(decay):
    """Two norms with a linear map between: the second depends on what the first does."""
    linear = torch.nn.Linear(FEATURES, FEATURES)
    module = torch.nn.Sequential(
        torch.nn.BatchNorm1d(FEATURES, momentum=1 - decay),
        linear,
        torch.nn.BatchNorm1d(FEATURES, momentum=1 - decay),
    )
    torch.optim.swa_utils.update_bn([torch.from_numpy(np.array(x)) for x in X], module)
    kernel = {"kernel": linear.weight.detach().numpy().T, "bias": linear.bias.detach().numpy()}
    return kernel, [(m.running_mean.numpy(), m.running_var.numpy()) for m in (module[0], module[2])]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("decay", [0.99, 0.5])
def test_the_statistics_are_those_of_torch_but_for_its_correction(decay):
    linear, expected = torch_statistics(decay)
    norm = nn.batch_norm(decay=decay)
    model = sequential(first=norm, linear=nn.linear(FEATURES), second=norm)
    params, state = model.init(key(), X[0])
    params = {**params, "linear": jax.tree.map(jnp.asarray, linear)}
    old = jax.tree.map(lambda leaf: leaf + 100, state)  # must not matter
    new = jax.jit(lambda *args: update_statistics(model, *args))(params, old, X)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for name, (mean, var) in zip(("first", "second"), expected, strict=True):
        # 1 - decay is rounded to float32, which is 1e-6 of it at 0.99.
        np.testing.assert_allclose(new[name]["mean"], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(new[name]["var"], var * (BATCH - 1) / BATCH, rtol=2e-5)


@pytest.mark.slow
def test_an_average_of_weights_is_evaluated_with_its_own_statistics():
    def recipe(hyper):
        model = sequential(nn.linear(8), nn.batch_norm(), nn.linear(1))
        optimizer = optim.swa(optim.sgd(), start=2)
        return Recipe(model, losses.mean_squared_error, optimizer, schedules.constant(0.05))

    state, step = make_init(recipe)(key(), {}, X[0]), jax.jit(make_step(recipe))
    for x in X:
        state, _ = step(state, (x, x[:, :1]), key(), {})
    params, model = trained_params(recipe, state, {}), recipe({}).model
    new = update_statistics(model, params, state.model_state, X[:1])
    trained, _ = model.apply(params, new, X[0], key=key(), train=True)
    evaluated, _ = model.apply(params, new, X[0], train=False)
    np.testing.assert_allclose(evaluated, trained, rtol=1e-4, atol=1e-5)
    before, _ = model.apply(params, state.model_state, X[0], train=False)
    assert np.abs(before - trained).max() > 0.01


def test_what_is_no_average_stays_and_noise_gets_its_key():
    inner = sequential(norm=nn.batch_norm(), dropout=nn.dropout(0.5))

    def init(key, x):
        params, state = inner.init(key, x)
        return params, {"inner": state, "seen": jnp.int32(3), "left": jnp.ones(2)}

    def apply(params, state, x, *, key=None, train=False):
        y, new = inner.apply(params, state["inner"], x, key=key, train=train)
        return y, {"inner": new, "seen": state["seen"] + 1, "left": 2 * state["left"]}

    model = Model(init, apply)
    params, state = model.init(key(), X[0])
    new = update_statistics(model, params, state, X, key=key())
    assert new["seen"] == 3 and (new["left"] == 1).all()
    statistics = new["inner"]["norm"]
    np.testing.assert_allclose(statistics["mean"], X.mean(axis=(0, 1)), rtol=1e-5)


def test_a_model_without_statistics_is_refused():
    model = nn.linear(1)
    params, state = model.init(key(), X[0])
    with pytest.raises(ValueError, match="mean"):
        update_statistics(model, params, state, X)
    norm = nn.batch_norm()
    with pytest.raises(ValueError, match="update_statistics: expected at least one batch"):
        update_statistics(norm, *norm.init(key(), X[0]), X[:0])
