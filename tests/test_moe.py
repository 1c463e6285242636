"""Mixtures of experts, gated MLPs, squeeze and excite: against twins, PyTorch, and their laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fnn import layers, nn
from fnn.activations import gelu, relu, silu
from tests.against_torch import expect_like_torch
from tests.compiled import compiled, expect_same, with_gradients
from tests.registry.rows import normal

N, IN, HIDDEN, OUT, E = 13, 4, 5, 3, 4  # tokens, inputs, hidden, outputs, experts
X = normal(N, IN)


def make(experts=E, gated=True, seed=0):
    kernels = {
        "up": (IN, HIDDEN),
        "down": (HIDDEN, OUT),
        **({"gate": (IN, HIDDEN)} if gated else {}),
    }
    return {
        "router": {"kernel": normal(IN, experts, seed=seed)},
        "experts": {
            name: {"kernel": normal(experts, *shape, seed=seed + i + 1)}
            for i, (name, shape) in enumerate(kernels.items())
        },
    }


PARAMS = make()
moe = compiled(layers.moe, static_argnames=("top_k", "activation", "gates"))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def twin(params, x, k, normalized=False):
    """The mixture in float64, one token and one expert at a time, with the losses of the papers."""
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    experts = {name: leaf["kernel"] for name, leaf in params["experts"].items()}
    logits = x.astype(np.float64) @ params["router"]["kernel"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y, routes = np.zeros((len(x), OUT)), np.zeros(logits.shape[1])
    for n, token in enumerate(x):
        chosen = np.argsort(-p[n])[:k]
        for e in chosen:
            gate = token @ experts["gate"][e]
            out = (gate * sigmoid(gate) * (token @ experts["up"][e])) @ experts["down"][e]
            y[n] += p[n, e] / (p[n, chosen].sum() if normalized else 1) * out
            routes[e] += 1
    load = routes / routes.sum()
    losses = {
        "load_balance": len(load) * (load @ p.mean(axis=0)),
        "router_z": (np.log(np.exp(logits).sum(axis=1)) ** 2).mean(),
    }
    return y, {**losses, "load": load}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("k, gates", [(1, None), (2, layers.normalize_gates)])
def test_moe_is_the_formula_of_the_papers(k, gates, dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
        got = moe(params, X.astype(dtype), top_k=k, gates=gates)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
    expect_same(got, twin(PARAMS, X, k, gates is not None), rtol)


def dense(params, x, k):
    """Every expert computes every token, and the weights of those not chosen are 0."""
    p = jax.nn.softmax(x @ params["router"]["kernel"])
    chosen = p >= jnp.sort(p, axis=1)[:, -k][:, None]
    own = {name: leaf["kernel"] for name, leaf in params["experts"].items()}
    hidden = silu(jnp.einsum("ni,eih->enh", x, own["gate"]))
    hidden = hidden * jnp.einsum("ni,eih->enh", x, own["up"])
    return jnp.einsum("enh,eho,ne->no", hidden, own["down"], jnp.where(chosen, p, 0))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_the_gradients_are_those_of_the_dense_form(dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        args = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (PARAMS, X))
        got = with_gradients(lambda params, x: layers.moe(params, x, top_k=2)[0], *args)
        expected = with_gradients(partial(dense, k=2), *args)
    expect_same(got, expected, rtol)


def test_gradients_under_vmap_are_those_of_the_dense_form():
    def slopes(function):
        return jax.vmap(jax.grad(lambda params: jnp.square(function(params, jnp.asarray(X))).sum()))

    both = jax.tree.map(lambda *leaves: np.stack(leaves), PARAMS, make(seed=20))
    got = compiled(slopes(lambda params, x: layers.moe(params, x)[0]))(both)
    expect_same(got, compiled(slopes(partial(dense, k=2)))(both), 1e-5)


# One-hot tokens that the router sends where the test wants them.
STEERED = {**make(experts=E), "router": {"kernel": 9 * np.eye(IN, E, dtype=np.float32)}}


# 40 tokens make blocks of 3: the largest number of blocks is reached by 1, 1, 1 and 37 tokens.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, E - 1), min_size=40, max_size=40))
@example([0, 1, 2] + [3] * 37)
@example([2] * 40)
def test_no_token_is_dropped_however_they_are_spread(expert):
    x = np.eye(IN, dtype=np.float32)[expert]
    y, aux = moe(STEERED, x, top_k=1)
    expect_same(y, twin(STEERED, x, 1)[0])
    expect_same(aux["load"], np.bincount(expert, minlength=E) / 40)


def test_a_token_does_not_depend_on_those_beside_it():
    y, _ = moe(PARAMS, X)
    order = np.random.default_rng(0).permutation(N)
    expect_same(moe(PARAMS, X[order])[0], y[order])
    expect_same(moe(PARAMS, X[:1])[0], y[:1])
    axes, _ = moe(PARAMS, X[:12].reshape(2, 3, 2, IN))
    expect_same(axes, y[:12].reshape(2, 3, 2, OUT))


def test_one_expert_is_an_mlp():
    for gated, activation in ((True, silu), (False, relu)):
        params = make(experts=1, gated=gated)
        own = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), params["experts"])
        y, aux = moe(params, X, top_k=1, activation=activation)
        if gated:
            expected = layers.swiglu(own, jnp.asarray(X))
        else:
            expected = layers.linear(own["down"], relu(layers.linear(own["up"], jnp.asarray(X))))
        expect_same(y, expected)
        assert abs(aux["load_balance"] - 1) < 1e-6 and aux["load"] == 1


def test_the_order_of_the_experts_does_not_matter():
    order = np.array([2, 0, 3, 1])
    permuted = {
        "router": {"kernel": PARAMS["router"]["kernel"][:, order]},
        "experts": jax.tree.map(lambda leaf: leaf[order], PARAMS["experts"]),
    }
    (y, aux), (again, other) = moe(PARAMS, X), moe(permuted, X)
    expect_same(again, y)
    expect_same(other, {**aux, "load": aux["load"][order]})


def test_the_load_balance_is_1_for_equal_shares_and_grows_with_the_skew():
    balanced = {**PARAMS, "router": {"kernel": 1e-3 * np.eye(IN, E, dtype=np.float32)}}
    even = np.eye(IN, dtype=np.float32).repeat(3, axis=0)
    assert abs(moe(balanced, even, top_k=1)[1]["load_balance"] - 1) < 1e-6
    collapsed = np.eye(IN, dtype=np.float32)[[0] * 12]
    # The router is sure: its probability of the one expert is within 3 exp(-9) of 1.
    assert abs(moe(STEERED, collapsed, top_k=1)[1]["load_balance"] - E) < 4 * 3 * np.exp(-9)


def test_the_losses_push_towards_balance_and_small_logits():
    @compiled
    def slopes(scale):
        def losses(router):
            aux = layers.moe({**PARAMS, "router": router}, jnp.asarray(X))[1]
            return aux["load_balance"], aux["router_z"]

        router = jax.tree.map(lambda leaf: scale * leaf, PARAMS["router"])
        return losses(router), jax.jacrev(losses)(router), router

    (balance, z), (dbalance, dz), router = slopes(3.0)
    step = {"kernel": router["kernel"] - 1e-2 * dbalance["kernel"]}
    assert moe({**PARAMS, "router": step}, X)[1]["load_balance"] < balance
    step = {"kernel": router["kernel"] - 1e-4 * dz["kernel"]}
    assert moe({**PARAMS, "router": step}, X)[1]["router_z"] < z


def test_bfloat16_stays_bfloat16_with_the_router_in_float32():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (PARAMS, X))
    slope = jax.grad(lambda params, x: layers.moe(params, x)[0].sum().astype(jnp.float32))
    gradients = jax.eval_shape(slope, *narrow)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradients))
    y, aux = moe(*narrow)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == np.float32 for leaf in aux.values())
    wide, expected = moe(*jax.tree.map(lambda leaf: leaf.astype(np.float32), narrow))
    expect_same(aux, expected)
    expect_same(y, wide, 4 * 2**-8)  # a bfloat16 is rounded by up to 2^-9, a few times


def test_the_model_keeps_the_losses_of_the_last_training_batch_in_its_state():
    model = nn.moe(HIDDEN, E, out_features=OUT)
    apply = compiled(model.apply, static_argnames="train")
    state = jax.tree.map(np.zeros_like, moe(PARAMS, X)[1])
    y, new = apply(PARAMS, state, X, train=True)
    expect_same((y, new), moe(PARAMS, X))
    np.testing.assert_array_equal(apply(PARAMS, state, X)[1]["load"], 0)

    def loss(params):
        return model.apply(params, state, jnp.asarray(X), train=True)[1]["load_balance"]

    slopes = compiled(jax.grad(loss))(PARAMS)
    assert (slopes["router"]["kernel"] != 0).all()


@pytest.mark.parametrize("top_k", [0, E + 1])
def test_a_number_of_routes_that_does_not_fit_is_refused(top_k):
    with pytest.raises(ValueError, match=f"moe: expected top_k .*, got {top_k}; "):
        layers.moe(PARAMS, jnp.asarray(X), top_k=top_k)


def test_inputs_that_do_not_fit_the_router_are_refused():
    with pytest.raises(ValueError, match=r"linear: expected x with 4 features .* \(13, 3\)"):
        layers.moe(PARAMS, jnp.asarray(X[:, :3]))


def with_layers(function, names):
    """`function(params, x)` with the parameters as arguments after x: kernel, bias, ..."""

    def flat(x, *leaves):
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        parts = zip(names, pairs, strict=True)
        return function({name: {"kernel": k, "bias": b} for name, (k, b) in parts}, x)

    return flat


def gated_in_torch(activation):
    def reference(x, gate, gate_bias, up, up_bias, down, down_bias):
        opened = activation(F.linear(x, gate.T, gate_bias))
        return F.linear(opened * F.linear(x, up.T, up_bias), down.T, down_bias)

    return reference


@pytest.mark.sampled(2)
@pytest.mark.parametrize("function, activation", [(layers.swiglu, F.silu), (layers.geglu, F.gelu)])
def test_gated_mlps_are_those_of_torch(function, activation):
    shapes = [(2, 3, IN), (IN, HIDDEN), (HIDDEN,), (IN, HIDDEN), (HIDDEN,), (HIDDEN, OUT), (OUT,)]
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    given = with_layers(function, ("gate", "up", "down"))
    cases = {function.__name__: (given, gated_in_torch(activation))}
    expect_like_torch(cases, *inputs, moving=len(inputs))


def test_a_closed_gate_lets_nothing_through():
    sizes = {"gate": (IN, HIDDEN), "up": (IN, HIDDEN), "down": (HIDDEN, OUT)}
    params = {name: {"kernel": jnp.asarray(normal(*size))} for name, size in sizes.items()}
    y = layers.gated_mlp(params, jnp.asarray(X), jnp.zeros_like)
    assert y.shape == (N, OUT) and (y == 0).all()


def test_squeeze_excite_is_that_of_torch():
    def reference(x, reduce, reduce_bias, expand, expand_bias):
        squeezed = F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1)
        hidden = F.relu(F.conv2d(squeezed, reduce.T[:, :, None, None], reduce_bias))
        scale = torch.sigmoid(F.conv2d(hidden, expand.T[:, :, None, None], expand_bias))
        return x * scale.permute(0, 2, 3, 1)

    shapes = [(2, 3, 5, 4), (4, 2), (2,), (2, 4), (4,)]
    inputs = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    given = with_layers(layers.squeeze_excite, ("reduce", "expand"))
    expect_like_torch({"squeeze_excite": (given, reference)}, *inputs, moving=len(inputs))


def test_squeeze_excite_takes_a_window_of_any_rank_and_refuses_none():
    kernels = {"reduce": normal(4, 2), "expand": normal(2, 4)}
    params = {name: {"kernel": jnp.asarray(kernel)} for name, kernel in kernels.items()}
    excite, x = compiled(partial(layers.squeeze_excite, activation=gelu)), normal(2, 12, 4)
    expect_same(excite(params, x.reshape(2, 2, 3, 2, 4)).reshape(x.shape), excite(params, x))
    with pytest.raises(ValueError, match=r"squeeze_excite: expected x of shape .* \(2, 4\)"):
        layers.squeeze_excite(params, jnp.ones((2, 4)))
