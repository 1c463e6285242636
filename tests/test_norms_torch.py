"""Norms beside torch's with the same weights: outputs and gradients; and where torch is not exact.

The reference is torch in float64 on the very numbers that fnn is given, so that only fnn's own
rounding counts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn.utils import parametrizations

from fnn import layers, nn
from tests.registry.rows import normal

torch.set_num_threads(1)
EPS, DECAY = 1e-5, 0.9
STATE = {"mean": 0.5, "var": 2.0}  # of batch norm, before
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # of the largest entry; asked for by the project


def fnn_norms(groups):
    """Each norm as a function of (params, x)."""

    def batch_norm(p, x, train):
        running = {name: jnp.full_like(p["scale"], value) for name, value in STATE.items()}
        return layers.batch_norm(p, running, x, train=train, decay=DECAY, eps=EPS)

    return {
        "layer_norm": lambda p, x: layers.layer_norm(p, x, eps=EPS),
        "batch_norm": lambda p, x: batch_norm(p, x, True)[0],
        "batch_norm, evaluation": lambda p, x: batch_norm(p, x, False)[0],
        "group_norm": lambda p, x: layers.group_norm(p, x, groups, eps=EPS),
        "instance_norm": lambda p, x: layers.instance_norm(p, x, eps=EPS),
        "rms_norm": lambda p, x: layers.rms_norm({"scale": p["scale"]}, x, eps=EPS),
    }


def torch_norms(groups):
    """The same of torch, of (scale, bias, x) with x channels last as here."""

    def channels_first(norm):
        def call(scale, bias, x):
            y = norm(x.movedim(-1, 1), scale, bias)
            # torch 2.13 gives instance_norm a wrong gradient where the one from above is strided.
            y.register_hook(lambda g: g.contiguous())
            return y.movedim(1, -1)

        return call

    def batch_norm(x, scale, bias, train):
        running = [torch.full_like(scale, v) for v in STATE.values()]
        return F.batch_norm(x, *running, scale, bias, train, 1 - DECAY, EPS)

    return {
        "layer_norm": lambda scale, bias, x: F.layer_norm(x, scale.shape, scale, bias, EPS),
        "batch_norm": channels_first(lambda x, s, b: batch_norm(x, s, b, True)),
        "batch_norm, evaluation": channels_first(lambda x, s, b: batch_norm(x, s, b, False)),
        "group_norm": channels_first(lambda x, s, b: F.group_norm(x, groups, s, b, EPS)),
        "instance_norm": channels_first(
            lambda x, s, b: F.instance_norm(x, weight=s, bias=b, eps=EPS)
        ),
        "rms_norm": lambda scale, bias, x: F.rms_norm(x, scale.shape, scale, EPS),
    }


def with_gradients(norms):
    def both(params, x):
        """Output and gradients of sum(y * cosines) for each norm."""
        results = {}
        for name, norm in norms.items():
            y, pull = jax.vjp(norm, params, x)
            by_params, by_x = pull(weights(y))
            results[name] = (y, by_params["scale"], by_params["bias"], by_x)
        return results

    return jax.jit(both)


def weights(y):
    return jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)


def by_torch(norms, params, x):
    results = {}
    for name, norm in norms.items():
        given = [torch.tensor(np.asarray(a, np.float64)) for a in (*params.values(), x)]
        scale, bias, inputs = (a.requires_grad_() for a in given)
        y = norm(scale, bias, inputs)
        cosines = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
        (y * cosines).sum().backward()
        results[name] = tuple(
            np.zeros(a.shape) if g is None else g.numpy()
            for a, g in ((y, y.detach()), *((a, a.grad) for a in given))
        )
    return results


def expect_close(what, got, expected, rtol):
    for part, a, b in zip(("y", "scale", "bias", "x"), got, expected, strict=True):
        off = np.abs(np.asarray(a, np.float64) - b).max()
        assert off <= rtol * np.abs(b).max(), f"{what}, {part}: off by {off}"


@st.composite
def problems(draw):
    # At least three numbers behind each statistic: two are normalized to -1 and 1 whatever they
    # are, and of the gradient only rounding is left.
    batch = draw(st.sampled_from([1, 3]))
    window = draw(st.sampled_from([(3,), (5, 1), (2, 3), (1, 7), (3, 1, 2)]))
    groups, per_group = draw(st.sampled_from([(1, 3), (3, 1), (2, 3), (3, 5)]))
    return (batch, *window, groups * per_group), groups, draw(st.integers(0, 99))


@pytest.mark.slow
@given(problem=problems())
@settings(
    max_examples=3,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],  # an example takes seconds to compile: too long to shrink
)
def test_norms_and_their_gradients_are_those_of_torch(problem):
    shape, groups, seed = problem
    params = {
        "scale": 1 + 0.3 * normal(shape[-1], seed=seed),
        "bias": normal(shape[-1], seed=seed + 1),
    }
    x = normal(*shape, seed=seed + 2)
    expected = by_torch(torch_norms(groups), params, x)
    with jax.enable_x64(True):
        ours = with_gradients(fnn_norms(groups))
        for dtype, rtol in TOLERANCE.items():
            cast = jax.tree.map(lambda a, dtype=dtype: jnp.asarray(a, dtype), (params, x))
            for name, results in ours(*cast).items():
                assert all(a.dtype == dtype for a in results), name
                expect_close(f"{name} of {shape} in {dtype}", results, expected[name], rtol)


def test_the_running_variance_is_that_of_torch_but_for_its_correction():
    x, n = normal(7, 3), 7
    params, state = layers.batch_norm_init(3)
    _, state = layers.batch_norm(params, state, jnp.asarray(x), train=True, decay=DECAY)
    peer = torch.nn.BatchNorm1d(3, momentum=1 - DECAY)
    peer(torch.tensor(x))
    unbiased = DECAY + (state["var"] - DECAY) * n / (n - 1)
    np.testing.assert_allclose(state["mean"], peer.running_mean.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(unbiased, peer.running_var.numpy(), rtol=1e-6)


@pytest.fixture(scope="module")
def all_norms():
    return with_gradients(fnn_norms(2))


def test_norms_are_exact_where_the_mean_is_ten_thousand_times_the_deviation(all_norms):
    # Flax's default is off by thousands here, torch and a plain two-pass variance by 1e-3.
    x = 1e4 + normal(3, 3, 2, 6)
    params = {"scale": 1 + 0.3 * normal(6), "bias": normal(6, seed=1)}
    expected = by_torch(torch_norms(2), params, x)
    for name, results in all_norms(params, x).items():
        expect_close(name, results, expected[name], TOLERANCE["float32"])


@pytest.mark.parametrize("value", [0.0, -1e-3, 12345.678, 1e30])
def test_a_constant_input_gives_exactly_the_bias_and_finite_gradients(all_norms, value):
    x = np.full((3, 3, 2, 6), value, np.float32)
    params = {"scale": 1 + 0.3 * normal(6), "bias": normal(6, seed=1)}
    for name, (y, *gradients) in all_norms(params, x).items():
        assert all(np.isfinite(g).all() for g in gradients), name
        if name in ("layer_norm", "batch_norm", "group_norm", "instance_norm"):
            assert (np.asarray(y) == params["bias"]).all(), name
        if name == "rms_norm" and value > 1 and value < 1e19:  # the largest float32 square: 1e38
            np.testing.assert_allclose(y, np.broadcast_to(params["scale"], y.shape), rtol=1e-6)


def test_bfloat16_inputs_are_normalized_in_float32_and_keep_their_dtype():
    x = jnp.asarray(3 + normal(3, 5, 6), jnp.bfloat16)
    params = jax.tree.map(jnp.asarray, {"scale": 1 + 0.3 * normal(6), "bias": normal(6, seed=1)})
    norms = fnn_norms(2)
    every = jax.jit(lambda params, x: {name: norm(params, x) for name, norm in norms.items()})
    wide = every(params, x.astype(jnp.float32))
    for name, got in every(params, x).items():
        assert got.dtype == jnp.bfloat16, name
        assert (got == wide[name].astype(jnp.bfloat16)).all(), name


def test_eps_may_be_traced_and_has_a_derivative():
    x, step = normal(4, 5), 1e-6
    with jax.enable_x64(True):
        wide = jnp.asarray(x, jnp.float64)
        for norm in (layers.layer_norm, layers.rms_norm):
            total = jax.jit(
                lambda eps, norm=norm: (norm({"scale": jnp.ones(5)}, wide, eps=eps) ** 3).sum()
            )
            slope = (total(0.1 + step) - total(0.1 - step)) / (2 * step)
            # Central differences of step 1e-6 in float64: 1e-12 of the third derivative, and
            # rounding of 1e-16 / 1e-6.
            np.testing.assert_allclose(jax.grad(total)(0.1), slope, rtol=1e-7)


@pytest.mark.slow
def test_running_statistics_can_be_differentiated():
    # For hyperparameters that are learned through a whole run. d var / d x = 2 (x - mean) / n.
    x = jnp.asarray(normal(5, 1))
    params, state = layers.batch_norm_init(1)

    def running(x, part):
        return layers.batch_norm(params, state, x, train=True, decay=0.5)[1][part].sum()

    np.testing.assert_allclose(jax.grad(running)(x, "mean"), np.full((5, 1), 0.1), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(running)(x, "var"), (x - x.mean()) / 5, atol=1e-6)


def kernel_of(weight):
    """torch's weight (out, in, *window) as a kernel (*window, in, out)."""
    return np.moveaxis(np.moveaxis(weight.detach().numpy(), 0, -1), 0, -2)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [lambda: torch.nn.Linear(5, 3), lambda: torch.nn.Conv2d(2, 3, 3)])
def test_weight_norm_is_that_of_torch(make):
    torch.manual_seed(0)
    peer = parametrizations.weight_norm(make().double())
    scale, direction = (getattr(peer.parametrizations.weight, f"original{i}") for i in range(2))
    with torch.no_grad():
        scale.mul_(1.5)
    expected = kernel_of(peer.weight)
    cosines = np.cos(np.arange(expected.size)).reshape(expected.shape)
    outputs_first = np.moveaxis(np.moveaxis(cosines, -1, 0), -1, 1).copy()
    (peer.weight * torch.tensor(outputs_first)).sum().backward()
    with jax.enable_x64(True):
        for dtype, rtol in TOLERANCE.items():
            params = {
                "direction": jnp.asarray(kernel_of(direction), dtype),
                "scale": jnp.asarray(scale.detach().numpy().ravel(), dtype),
            }
            kernel, pull = jax.vjp(jax.jit(layers.weight_norm), params)
            (grads,) = pull(jnp.asarray(cosines, dtype))
            got = (kernel, grads["scale"], grads["direction"])
            wanted = (expected, scale.grad.numpy().ravel(), kernel_of(direction.grad))
            for a, b in zip(got, wanted, strict=True):
                assert a.dtype == dtype
                assert np.abs(np.asarray(a) - b).max() <= rtol * np.abs(b).max()


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [lambda: torch.nn.Linear(5, 3), lambda: torch.nn.Conv2d(2, 3, 3)])
def test_spectral_norm_and_its_power_iteration_are_those_of_torch(make):
    torch.manual_seed(0)
    peer = parametrizations.spectral_norm(make().double())
    inner = peer.parametrizations.weight
    with torch.no_grad():  # away from the vectors that torch has converged to
        inner.original.add_(torch.randn_like(inner.original), alpha=0.3)
    kernel = kernel_of(inner.original)
    left = inner[0]._v.numpy().reshape(kernel.shape[-2], *kernel.shape[:-2])
    state = {"left": np.moveaxis(left, 0, -1).ravel(), "right": inner[0]._u.numpy().copy()}
    cosines = np.cos(np.arange(kernel.size)).reshape(kernel.shape)
    outputs_first = np.moveaxis(np.moveaxis(cosines, -1, 0), -1, 1).copy()
    with jax.enable_x64(True):
        kernel, state = jax.tree.map(jnp.asarray, (kernel, state))
        for train in (True, True, False):
            peer.train(train)
            inner.original.grad = None
            expected = peer.weight
            (expected * torch.tensor(outputs_first)).sum().backward()
            divided, pull, state = jax.vjp(
                lambda k, state=state, train=train: layers.spectral_norm(k, state, train=train),
                kernel,
                has_aux=True,
            )
            got = divided, *pull(jnp.asarray(cosines)), state["right"]
            wanted = kernel_of(expected), kernel_of(inner.original.grad), inner[0]._u.numpy()
            for a, b in zip(got, wanted, strict=True):
                assert np.abs(np.asarray(a) - b).max() <= 1e-10 * np.abs(b).max()


@pytest.mark.slow
def test_a_spectrally_normalized_kernel_stretches_nothing_once_the_iteration_has_settled():
    kernel = jnp.asarray(normal(6, 4))
    state = layers.spectral_norm_init(jax.random.key(0), kernel)
    step = jax.jit(lambda state: layers.spectral_norm(kernel, state, train=True, iterations=5))
    for _ in range(10):
        divided, state = step(state)
    # 65 iterations at a ratio of singular values of 0.8: what is left is rounding.
    np.testing.assert_allclose(np.linalg.svd(divided)[1][0], 1, rtol=1e-5)


def test_a_kernel_of_zeros_stays_alive_under_spectral_norm():
    zeros = jnp.zeros((3, 2))
    state = layers.spectral_norm_init(jax.random.key(0), zeros)

    @jax.jit
    def norm(kernel, state):
        def total(kernel):
            divided, after = layers.spectral_norm(kernel, state, train=True)
            return divided.sum(), (divided, after)

        return jax.grad(total, has_aux=True)(kernel)

    gradient, (divided, state) = norm(zeros, state)
    assert (divided == 0).all() and jnp.isfinite(gradient).all()
    for _ in range(20):
        _, (divided, state) = norm(jnp.array([[5.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), state)
    np.testing.assert_allclose(divided[0, 0], 1, rtol=1e-5)


def test_a_weight_normalized_layer_starts_as_the_layer_itself():
    x, key = jnp.asarray(normal(4, 3)), jax.random.key(0)
    plain, wrapped = nn.linear(5), nn.weight_norm(nn.linear(5))
    outputs = [
        jax.jit(lambda key, x, model=model: model.apply(*model.init(key, x), x)[0])(key, x)
        for model in (plain, wrapped)
    ]
    np.testing.assert_allclose(*outputs, rtol=1e-5)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: layers.group_norm({}, x, 4), "group_norm: expected num_groups to divide the 6"),
        (lambda x: layers.group_norm({}, x, 0), "group_norm: expected num_groups"),
        (lambda x: layers.instance_norm({}, x[:, :1]), "instance_norm: expected x of shape"),
        (lambda x: layers.instance_norm({}, x[:, 0]), "instance_norm: expected x of shape"),
        (lambda x: layers.rms_norm({"scale": jnp.ones(5)}, x), "rms_norm: expected x of shape"),
        (
            lambda x: layers.spectral_norm(jnp.ones((2, 2)), {}, train=True, iterations=0),
            "spectral_norm: expected .* to be a positive integer, got 0",
        ),
        (
            lambda x: nn.weight_norm(nn.rms_norm()).init(jax.random.key(0), x),
            "expected '\\*kernel' to match a leaf",
        ),
    ],
)
def test_norms_say_what_is_wrong_with_their_input(call, words):
    with pytest.raises(ValueError, match=words):
        call(jnp.ones((2, 3, 6)))
