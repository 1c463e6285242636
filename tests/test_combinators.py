"""Combinators compute what their parts compute, and each part has a randomness of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import models, nn, tree
from fnn.keys import fold_name
from fnn.nn import as_model, lift, output_of, residual, sequential
from tests.registry.rows import normal
from tests.shapes import unchecked

X = jnp.asarray(normal(4, 3))


def key(seed=0):
    return jax.random.key(seed)


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def test_layers_by_place_and_by_name_compute_the_same():
    place = sequential(nn.linear(5), jnp.tanh, nn.linear(2))
    named = sequential(first=nn.linear(5), bend=jnp.tanh, last=nn.linear(2))
    params, state = place.init(key(), X)
    as_named = {"first": params[0], "last": params[2]}
    y = place.apply(params, state, X)[0]
    assert (y == named.apply(as_named, state, X)[0]).all()
    by_hand = jnp.tanh(X @ params[0]["kernel"]) @ params[2]["kernel"]
    np.testing.assert_allclose(y, by_hand, rtol=1e-5, atol=1e-6)


def test_each_layer_sees_the_shape_that_the_one_before_makes():
    model = sequential(nn.flatten(), nn.linear(7), nn.linear(2))
    params, _ = model.init(key(), jax.ShapeDtypeStruct((1, 2, 3), jnp.float32))
    assert tree.map_with_path(lambda path, leaf: leaf.shape, params[1:]) == [
        {"kernel": (6, 7), "bias": (7,)},
        {"kernel": (7, 2), "bias": (2,)},
    ]


def test_appending_a_layer_changes_no_other():
    short = sequential(nn.linear(3), nn.linear(3)).init(key(), X)[0]
    long = sequential(nn.linear(3), nn.linear(3), nn.linear(3)).init(key(), X)[0]
    assert same(short, long[:2])


def test_moving_a_named_layer_changes_no_other():
    one = sequential(a=nn.linear(3), b=nn.linear(3)).init(key(), X)[0]
    other = sequential(b=nn.linear(3), new=jnp.tanh, a=nn.linear(3)).init(key(), X)[0]
    assert same(one["a"], other["a"])
    assert same(one["b"], other["b"])


def test_equal_layers_start_with_different_parameters():
    params = sequential(nn.linear(3), nn.linear(3)).init(key(), X)[0]
    assert not same(params[0]["kernel"], params[1]["kernel"])


@pytest.mark.slow
def test_one_layer_many_times_is_drawn_as_if_each_were_another():
    normed = lambda: sequential(nn.linear(3), nn.batch_norm())  # noqa: E731
    layer = normed()
    again = sequential(nn.linear(5), *[layer] * 7, nn.linear(2))
    apart = sequential(nn.linear(5), *[normed() for _ in range(7)], nn.linear(2))
    (params, state), others = (jax.jit(model.init)(key(), X) for model in (again, apart))
    assert same((params, state), others)
    assert params[1][0]["kernel"].shape == (5, 3) and params[7][0]["kernel"].shape == (3, 3)


def test_one_layer_many_times_is_drawn_by_one_loop():
    def draws(n):
        model = sequential(*[nn.linear(3)] * n)
        return str(jax.make_jaxpr(model.init)(key(), X)).count("random_bits")

    assert draws(30) == draws(10) < 10


def test_one_layer_under_several_names_is_drawn_by_name():
    layer = nn.linear(3)
    model = sequential(**{name: layer for name in "abcdefg"})
    params, _ = model.init(key(), X)
    assert same(params["f"], layer.init(fold_name(key(), "f"), X)[0])


def test_the_noise_of_a_named_layer_follows_from_its_name():
    model = sequential(drop=nn.dropout(0.5))
    noisy = model.apply(*model.init(key(), X), X, key=key(1), train=True)[0]
    alone = nn.dropout(0.5).apply({}, (), X, key=fold_name(key(1), "drop"), train=True)[0]
    assert same(noisy, alone)


def test_the_state_of_every_layer_moves_in_training_only():
    model = sequential(norm=nn.batch_norm(decay=0.0), bend=jnp.sin, last=nn.batch_norm())
    params, state = model.init(key(), X)
    trained = model.apply(params, state, X, train=True)[1]
    np.testing.assert_allclose(trained["norm"]["mean"], X.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert not same(trained["last"], state["last"])
    assert same(model.apply(params, state, X)[1], state)
    assert jax.tree.structure(trained) == jax.tree.structure(state)


@pytest.mark.parametrize("given", [((), {}), ((jnp.sin,), {"b": jnp.cos})])
def test_sequential_wants_layers_either_by_position_or_by_name(given):
    with pytest.raises(ValueError, match="sequential: expected layers by position or by name"):
        sequential(*given[0], **given[1])


def test_a_residual_layer_that_is_zero_is_the_identity_to_the_bit():
    model = residual(nn.linear(3, kernel_init=lambda key, shape: jnp.zeros(shape)))
    params, state = model.init(key(), X)
    assert same(model.apply(params, state, X)[0], X)


def test_residual_adds_and_passes_state_and_noise_on():
    inner = sequential(nn.batch_norm(), nn.dropout(0.5))
    params, state = inner.init(key(), X)
    arguments = dict(train=True)
    y, after = inner.apply(params, state, X, key=key(1), **arguments)
    z, after_too = residual(inner).apply(params, state, X, key=key(1), **arguments)
    assert same(z, X + y)
    assert same(after, after_too)


def test_residual_refuses_a_layer_that_changes_the_shape():
    model = residual(nn.linear(2))
    params, state = model.init(key(), X)
    with pytest.raises(ValueError, match=r"residual: expected .* the shape \(4, 3\), got \(4, 2\)"):
        model.apply(params, state, X)


def test_a_function_is_lifted_and_a_model_is_left_as_it_is():
    model = nn.linear(2)
    assert as_model(model) is model
    assert same(as_model(jnp.sin).apply({}, (), X)[0], jnp.sin(X))
    assert lift(jnp.sin).init(None, X) == ({}, ())


@pytest.mark.parametrize("layer", [3, None, "relu"])
def test_what_is_no_layer_is_refused(layer):
    with pytest.raises(ValueError, match="as_model: expected a Model or a function of x"):
        unchecked(as_model)(layer)


def test_the_output_of_a_model_is_known_without_computing_it():
    model = nn.linear(2)
    shapes = jax.eval_shape(model.init, key(), X)
    assert output_of(model, *shapes, jax.ShapeDtypeStruct((5, 3), jnp.float32)).shape == (5, 2)


def test_an_mlp_is_its_layers():
    config = models.mlp.MLPConfig(widths=(5, 4), out_features=2, activation=jnp.tanh)
    model = models.mlp.mlp(config)
    params, state = model.init(key(), X)
    y = X
    for layer in params["hidden"]:
        y = jnp.tanh(y @ layer["linear"]["kernel"])  # biases start at 0
    np.testing.assert_allclose(
        model.apply(params, state, X)[0], y @ params["head"]["kernel"], rtol=1e-5, atol=1e-6
    )
    assert tree.count(params) == (3 * 5 + 5) + (5 * 4 + 4) + (4 * 2 + 2)


def test_an_mlp_does_not_change_when_its_hidden_units_are_permuted():
    model = models.mlp.mlp(models.mlp.MLPConfig(widths=(6,), out_features=2))
    params, state = model.init(key(), X)
    order = np.array([3, 1, 5, 0, 2, 4])
    linear = params["hidden"][0]["linear"]
    shuffled = {
        "hidden": [{"linear": {k: leaf[..., order] for k, leaf in linear.items()}}],
        "head": {**params["head"], "kernel": params["head"]["kernel"][order]},
    }
    one, other = (model.apply(p, state, X)[0] for p in (params, shuffled))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_before_a_norm_an_mlp_has_no_bias():
    config = models.mlp.MLPConfig(widths=(4,), out_features=2, norm=nn.batch_norm)
    params, state = models.mlp.mlp(config).init(key(), X)
    assert set(params["hidden"][0]["linear"]) == {"kernel"}
    assert set(params["hidden"][0]["norm"]) == {"scale", "bias"}
    assert len(jax.tree.leaves(state)) == 2


def test_an_mlp_refuses_images():
    with pytest.raises(ValueError, match=r"mlp: expected x of shape \(batch, features\)"):
        models.mlp.mlp(models.mlp.MLPConfig(out_features=2)).init(key(), jnp.zeros((1, 8, 8)))
