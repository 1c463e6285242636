"""Models of other libraries, adapted: they compute, train and fail as models of fnn do."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import linen, nnx

from fnn import Recipe, losses, nn, optim, schedules, tree
from fnn.interop import (
    from_equinox,
    from_haiku,
    from_linen,
    from_nnx,
    to_equinox,
    to_linen,
    to_nnx,
)
from fnn.keys import fold_name
from fnn.train import fit, make_init, make_step
from fnn.train.progress import silent
from fnn.types import Data

try:
    import haiku as hk
except ImportError:
    hk = None

KEY, OTHER = jax.random.split(jax.random.key(0))
X = jnp.asarray(np.random.default_rng(0).normal(1, 2, (6, 4)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(0, 1, (6, 2)), jnp.float32)


class LinenNet(linen.Module):
    """A bias of batch norm, and noise."""

    rate: float = 0.5

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        x = linen.Dropout(self.rate, deterministic=not train)(linen.relu(x))
        return linen.Dense(2)(x)


class NnxNet(nnx.Module):
    """The same layers."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        first, last = self.layers
        return last(self.dropout(nnx.relu(self.norm(first(x)))))


class EquinoxNet(eqx.Module):
    """The same layers, of one example."""

    layers: list
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.layers = [eqx.nn.Linear(4, 8, key=a), eqx.nn.Linear(8, 2, key=b)]
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key):
        x, state = self.norm(self.layers[0](x), state)
        return self.layers[1](self.dropout(jax.nn.relu(x), key=key)), state


def haiku_net(x, is_training):
    """The same layers."""
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training)
    x = jax.nn.relu(x)
    return hk.Linear(2)(hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x)


def make_equinox(key):
    return eqx.nn.make_with_state(EquinoxNet)(key)


needs_haiku = pytest.mark.skipif(hk is None, reason="needs dm-haiku")
NETS = {
    "linen": lambda: from_linen(LinenNet()),
    "nnx": lambda: from_nnx(NnxNet),
    "equinox": lambda: from_equinox(make_equinox),
    "haiku": lambda: from_haiku(haiku_net),
    "linen and back": lambda: from_linen(to_linen(from_linen(LinenNet()))),
}
nets = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[needs_haiku] * (n == "haiku")) for n in NETS]
)


def expect_equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def differ(a, b):
    return any(np.any(p != q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@nets
def test_a_model_is_made_alike_from_shapes_arrays_and_in_a_jit(name):
    model = NETS[name]()
    start = model.init(KEY, X)
    expect_equal(model.init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype)), start)
    expect_equal(jax.jit(model.init)(KEY, X), start)
    shapes = jax.eval_shape(model.init, KEY, X)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, start)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(shapes))
    assert differ(model.init(OTHER, X)[0], start[0])


@nets
def test_statistics_and_noise_are_of_training_only(name):
    model = NETS[name]()
    params, state = model.init(KEY, X)
    y, same = model.apply(params, state, X, key=KEY)
    assert y.shape == (6, 2) and same is state
    expect_equal(model.apply(params, state, X)[0], y)
    apply = jax.jit(model.apply, static_argnames="train")
    noisy, new = model.apply(params, state, X, key=KEY, train=True)
    expect_equal(apply(params, state, X, key=KEY, train=True), (noisy, new))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state) and differ(new, state)
    assert differ(apply(params, state, X, key=OTHER, train=True)[0], noisy)
    assert differ(apply(params, new, X)[0], y)
    with pytest.raises(ValueError, match=r"from_\w+: expected a key with train=True, got None; pa"):
        model.apply(params, state, X, train=True)


@nets
def test_an_adapted_model_trains(name):
    def recipe(hyper):
        return Recipe(
            NETS[name](), losses.mean_squared_error, optim.adam(), schedules.constant(hyper["lr"])
        )

    hyper = {"lr": 1e-2}
    state = jax.jit(make_init(recipe))(KEY, hyper, X)
    step = jax.jit(make_step(recipe))
    for _ in range(2):
        new, metrics = step(state, (X, Y), KEY, hyper)
        assert metrics["loss"] > 0 and step._cache_size() == 1
        assert differ(new.model_state, state.model_state)
        for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(state.params), strict=True):
            assert a.dtype == b.dtype
        assert differ(new.params, state.params)
        state = new


def test_an_adapted_model_is_fitted():
    def recipe(hyper):
        return Recipe(
            from_linen(linen.Dense(2)), losses.mean_squared_error, optim.adam(),
            schedules.constant(hyper["lr"]),
        )  # fmt: skip

    data = Data(train=(X, Y), valid=(X, Y))
    fitted = fit(
        recipe, data, key=KEY, hyper={"lr": 0.1}, steps=20, batch_size=3, eval_every=10,
        progress=silent,
    )  # fmt: skip
    assert fitted.history.valid["loss"][-1] < fitted.history.valid["loss"][0]


def test_outputs_are_those_of_linen():
    module = LinenNet()
    model = from_linen(module)
    params, state = model.init(KEY, X)
    variables = module.init(KEY, X, train=False)
    expect_equal((params, state["batch_stats"]), (variables["params"], variables["batch_stats"]))
    keys = {"dropout": fold_name(KEY, "dropout")}
    y, new = module.apply(variables, X, train=True, mutable=["batch_stats"], rngs=keys)
    expect_equal(model.apply(params, state, X, key=KEY, train=True), (y, new))
    expect_equal(model.apply(params, state, X)[0], module.apply(variables, X, train=False))


def test_outputs_are_those_of_nnx():
    model, module = from_nnx(NnxNet), NnxNet(nnx.Rngs(KEY))
    params, state = model.init(KEY, X)
    module.eval()
    with jax.numpy_rank_promotion("allow"):
        expect_equal(model.apply(params, state, X)[0], module(X))
        module.train()
        module(X)
    _, new = model.apply(params, state, X, key=KEY, train=True)
    expect_equal(new["norm"]["mean"], module.norm.mean[...])
    assert "layers/0/kernel" in tree.paths(params)


def test_outputs_are_those_of_equinox():
    model, (module, held) = from_equinox(make_equinox), make_equinox(KEY)
    params, state = model.init(KEY, X)

    def call(module, x, held, keys):
        mapped = jax.vmap(module, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        if keys is None:
            return mapped(x, held)
        return jax.vmap(
            lambda x, s, key: module(x, s, key=key), (0, None, 0), (0, None), axis_name="batch"
        )(x, held, keys)

    keys = jax.random.split(KEY, 6)
    y, new = model.apply(params, state, X, key=KEY, train=True)
    expected, held = call(module, X, held, keys)
    expect_equal(y, expected)
    expect_equal(list(new), jax.tree.leaves(held))
    evaluated, _ = call(eqx.nn.inference_mode(module), X, held, keys)
    expect_equal(model.apply(params, new, X)[0], evaluated)
    assert "layers/0/weight" in tree.paths(params)


@needs_haiku
def test_outputs_are_those_of_haiku():
    model, transformed = from_haiku(haiku_net), hk.transform_with_state(haiku_net)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        start = transformed.init(KEY, X, is_training=True)
        expected = transformed.apply(*start, OTHER, X, is_training=True)
    expect_equal(model.init(KEY, X)[0], start[0])
    expect_equal(model.apply(*start, X, key=OTHER, train=True), expected)


def test_an_equinox_module_may_take_batches():
    class Centered(eqx.Module):
        linear: eqx.nn.Linear
        offsets: jax.Array

        def __init__(self, key):
            self.linear = eqx.nn.Linear(4, 2, key=key)
            self.offsets = jnp.arange(2)

        def __call__(self, x):
            return jax.vmap(self.linear)(x - x.mean(axis=0)) + self.offsets.astype(x.dtype)

    model = from_equinox(Centered, batched=False)
    params, state = model.init(KEY, X)
    assert [leaf.dtype for leaf in state] == [jnp.int32] and "offsets" not in params
    y, same = model.apply(params, state, X, key=KEY, train=True)
    np.testing.assert_allclose(
        y.mean(axis=0), params["linear"]["bias"] + state[0].astype(y.dtype), rtol=1e-5
    )
    assert same is state


class Deterministic(linen.Module):
    @linen.compact
    def __call__(self, x, *, deterministic=True, use_running_average=True):
        x = linen.BatchNorm(use_running_average=use_running_average)(x)
        return linen.Dropout(0.5)(x, deterministic=deterministic)


class Field(linen.Module):
    training: bool = False

    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5, deterministic=not self.training)(x)


class Named(linen.Module):
    @linen.compact
    def __call__(self, x, noisy=False):
        return linen.Dropout(0.5, deterministic=not noisy)(x)


class NnxFlag(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, *, train):
        return self.dropout(x, deterministic=not train)


@pytest.mark.parametrize(
    "make",
    [
        lambda: from_linen(Deterministic()),
        lambda: from_linen(Field()),
        lambda: from_linen(Named(), train="noisy"),
        lambda: from_linen(linen.Dropout(0.5)),
        lambda: from_nnx(NnxFlag),
        lambda: from_equinox(lambda key: eqx.nn.Dropout(0.5)),
    ],
)
def test_the_argument_that_trains_is_found(make):
    model = make()
    params, state = model.init(KEY, X)
    y, _ = model.apply(params, state, X)
    assert np.all(np.abs(y) > 0)
    noisy, _ = model.apply(params, state, X, key=KEY, train=True)
    assert 0 < np.mean(noisy == 0) < 1


def test_inputs_are_any_pytree():
    class Sum(linen.Module):
        @linen.compact
        def __call__(self, pair):
            return linen.Dense(2)(pair[0]) + linen.Dense(2)(pair[1])

    class Two(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, pair):
            return self.linear(pair["a"]) + self.linear(pair["b"])

    of_tuple = from_linen(Sum())
    of_dict = from_equinox(lambda key: Two(eqx.nn.Linear(4, 2, key=key)))
    for model, x in ((of_tuple, (X, X)), (of_dict, {"a": X, "b": X})):
        assert model.apply(*model.init(KEY, x), x)[0].shape == (6, 2)


def test_a_module_of_other_streams_says_which():
    class Noise(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            return x + jax.random.normal(self.make_rng("noise"), x.shape) if train else x

    with pytest.raises(ValueError, match=r"streams only; rngs=.*dropout.* given\. .*noise"):
        from_linen(Noise()).apply({}, (), X, key=KEY, train=True)
    model = from_linen(Noise(), rngs=("noise",))
    assert differ(model.apply({}, (), X, key=KEY, train=True)[0], X)


def test_noise_in_evaluation_is_refused():
    model = from_linen(linen.Dropout(0.5, deterministic=False), train=None)
    with pytest.raises(ValueError, match="expected a module that draws no noise with train=False"):
        model.apply({}, (), X, key=KEY)


def test_a_draw_without_an_effect_is_none_in_evaluation():
    model = from_nnx(lambda rngs: nnx.RNN(nnx.LSTMCell(4, 3, rngs=rngs)))  # of its zero carry
    x = jnp.ones((2, 5, 4))
    params, state = model.init(KEY, x)
    expect_equal(model.apply(params, state, x), model.apply(params, state, x, key=KEY, train=True))


def test_a_model_of_fnn_trains_in_flax():
    model = nn.sequential(nn.linear(8), nn.batch_norm(), nn.dropout(0.5), nn.linear(2))
    module = to_linen(model)
    variables = module.init(KEY, X)
    params, state = variables["params"]["model"], variables["batch_stats"]["model"]
    expect_equal(module.apply(variables, X), model.apply(params, state, X)[0])
    _, new = module.apply(
        variables, X, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
    )  # fmt: skip
    expected = model.apply(params, state, X, key=KEY, train=True)[1]
    expect_equal(new["batch_stats"]["model"], expected)
    module = to_nnx(model, X, rngs=nnx.Rngs(0))
    before = jax.tree.leaves(nnx.state(module, nnx.BatchStat))
    assert differ(module(X), module(X))
    assert differ(jax.tree.leaves(nnx.state(module, nnx.BatchStat)), before)
    module.eval()
    expect_equal(module(X), module(X))
    grads = nnx.grad(lambda module: module(X).sum())(module)
    assert differ(grads, jax.tree.map(jnp.zeros_like, grads))


def test_a_model_of_fnn_is_a_module_of_equinox():
    model = nn.sequential(nn.linear(8), nn.batch_norm(), nn.dropout(0.5), nn.linear(2))
    module, state = to_equinox(model, KEY, X)
    grads = eqx.filter_grad(lambda module: module(X, state, key=KEY)[0].sum())(module)
    assert differ(grads.params, jax.tree.map(jnp.zeros_like, module.params))
    y, _ = eqx.nn.inference_mode(module)(X, state)
    expect_equal(y, model.apply(module.params, state, X)[0])


@pytest.fixture
def without_shape_hook():
    """Users have no hook that checks the annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("without_shape_hook")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: from_linen(LinenNet),
            r"from_linen: expected a flax.linen.Module instance, got the class LinenNet; construct "
            r"it, LinenNet\(\.\.\.\)",
        ),
        (lambda: from_linen(jnp.tanh), "from_linen: .* got the function tanh; such as linen.Dense"),
        (lambda: from_linen(NnxNet(nnx.Rngs(0))), "from_linen: .* got a NnxNet of flax"),
        (
            lambda: from_linen(linen.Dense(2), train="noisy"),
            r"from_linen: expected train to be an argument of the module \(.*\), got 'noisy'; pass",
        ),
        (
            lambda: from_nnx(NnxNet(nnx.Rngs(0))),
            "from_nnx: expected a function of nnx.Rngs that makes a module, got .*; pass lambda r",
        ),
        (
            lambda: from_nnx(lambda rngs: jnp.ones(2)).init(KEY, X),
            r"from_nnx: expected <lambda> to return an nnx.Module, got float32\[2\]; return",
        ),
        (
            lambda: from_equinox(eqx.nn.Linear(4, 2, key=KEY)),
            "from_equinox: expected a function of a key that makes a module, got an instance; pass "
            "lambda key: ...",
        ),
        (lambda: from_equinox(3), "from_equinox: .*, got 3; pass lambda key: ..."),
        (
            lambda: from_equinox(lambda key: None).init(KEY, X),
            "from_equinox: expected <lambda> to return an equinox.Module, got None; return the mod",
        ),
        (
            lambda: from_haiku(nn.linear(2)),
            "from_haiku: expected a function of x .*; pass the function itself, before hk.transfor",
        ),
        (lambda: from_haiku(LinenNet), r"from_haiku: .* pass lambda x: hk\.Linear"),
        (lambda: to_linen(LinenNet()), "to_linen: expected a Model, got a LinenNet of flax"),
        (lambda: to_nnx(3, X, rngs=None), "to_nnx: expected a Model, got 3; use one"),
        (lambda: to_equinox(3, KEY, X), "to_equinox: expected a Model, got 3; use one"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_adapters_import_no_library():
    code = (
        "import sys, fnn.interop\n"
        "assert not {'flax', 'equinox', 'haiku', 'optax'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
