"""Optimizers that see a leaf as a whole, against Optax and PyTorch, on a schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import torch

from fnn import optim, tree
from fnn.types import Objective
from tests.test_optim_lbfgs import minimize, rosenbrock
from tests.test_optim_matrix import GRADS, START, STEPS, cast

torch.set_num_threads(1)
RATES = np.float32(0.1 * np.linspace(1, 0.1, STEPS))
MATRICES = ("one", "two")


def scanned(step, init):
    def both(carry, inputs):
        carry = step(carry, *inputs)
        return carry, carry[0]

    params = cast(START)
    scan = jax.jit(lambda carry, xs: jax.lax.scan(both, carry, xs)[1])
    return scan((params, init(params)), (cast(GRADS), jnp.asarray(RATES)))


def run(optimizer):
    def step(carry, g, lr):
        params, state = carry
        updates, state = optimizer.update(g, state, params, lr)
        return tree.add(params, updates), state

    return scanned(step, optimizer.init)


def run_optax(transformation):
    """With a transformation whose learning rate is 1."""

    def step(carry, g, lr):
        params, state = carry
        updates, state = transformation.update(g, state, params)
        return jax.tree.map(lambda p, u: p + lr * u, params, updates), state

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return scanned(step, transformation.init)


def run_torch(make, names=MATRICES, turned=False):
    turn = (lambda x: x.T) if turned else (lambda x: x)
    params = {n: torch.nn.Parameter(torch.tensor(np.float32(turn(START[n])))) for n in names}
    optimizer = make(list(params.values()))
    path: dict[str, list] = {n: [] for n in names}
    for t, lr in enumerate(RATES):
        for n, p in params.items():
            p.grad = torch.tensor(np.float32(turn(GRADS[n][t])))
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.step()
        for n, p in params.items():
            path[n].append(turn(p.detach().numpy()).copy())
    return {n: np.stack(rows) for n, rows in path.items()}


def apart(got, expected):
    """The largest difference, as a fraction of the largest parameter."""
    return max(np.abs(got[n] - expected[n]).max() / np.abs(expected[n]).max() for n in expected)


CLIP = optax.clip_by_global_norm(3.0)
OPTAX = {
    "lamb": (optim.lamb(weight_decay=0.1), optax.lamb(1.0, weight_decay=0.1)),
    "adafactor": (
        optim.adafactor(min_factored=2),
        optax.adafactor(1.0, min_dim_size_to_factor=2),
    ),
    "adafactor_absolute": (
        optim.adafactor_absolute(min_factored=99),
        optax.adafactor(1.0, multiply_by_parameter_scale=False),
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", OPTAX)
def test_fifty_clipped_and_scheduled_updates_are_those_of_optax(name):
    ours, theirs = OPTAX[name]
    got = run(optim.chain(optim.clip_by_global_norm(3.0), ours))
    expected = run_optax(optax.chain(CLIP, theirs))
    if name == "adafactor":  # Optax factors the window over its two longest axes: 3 and 5, as here
        assert START["window"].shape == (2, 3, 5)
    assert apart(got, expected) < 1e-5


def constant(monkeypatch):
    monkeypatch.setattr(__name__ + ".RATES", np.full(STEPS, 0.1, np.float32))


def test_lars_is_that_of_optax_without_decay_at_a_constant_rate(monkeypatch):
    constant(monkeypatch)
    # Optax has the rate inside of its momentum; at a constant rate that makes no difference.
    assert (
        apart(run(optim.lars(trust=0.1)), run_optax(optax.lars(1.0, trust_coefficient=0.1))) < 1e-5
    )


def test_lars_of_optax_has_another_ratio_with_decay(monkeypatch):
    constant(monkeypatch)
    ours = run(optim.lars(trust=0.1, weight_decay=0.3))
    theirs = run_optax(optax.lars(1.0, trust_coefficient=0.1, weight_decay=0.3))
    assert 1e-3 < apart(ours, theirs)


def test_the_first_update_of_muon_is_that_of_optax_and_the_others_are_near():
    ours = run(optim.muon(companion=optim.sgd()))
    theirs = run_optax(optax.contrib.muon(1.0, eps=1e-7))
    first = [{n: np.asarray(path[n][:1]) for n in MATRICES} for path in (ours, theirs)]
    all_updates = [{n: np.asarray(path[n]) for n in MATRICES} for path in (ours, theirs)]
    assert apart(*first) < 1e-5
    assert 1e-4 < apart(*all_updates) < 0.3


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", [(4, 4), (3, 9), (9, 3)])
def test_newton_schulz_is_that_of_optax(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):
        coefficients = jnp.array([3.4445, -4.7750, 2.0315])
        theirs = optax.contrib._muon.orthogonalize_via_newton_schulz(x, coefficients, eps=1e-7)
    np.testing.assert_allclose(optim.newton_schulz(jnp.asarray(x)), theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("scale", "theirs"), [(optim.width_scale, "original"), (optim.adamw_scale, "match_rms_adamw")]
)
def test_muon_is_that_of_torch_up_to_bfloat16(scale, theirs):
    ours = run(optim.muon(companion=optim.sgd(), weight_decay=0.1, scale=scale))
    # Kernels of torch are (out, in).
    expected = run_torch(lambda p: torch.optim.Muon(p, adjust_lr_fn=theirs), turned=True)
    # Its iteration keeps 8 bits, whose errors of 4e-3 of a step add up at random over 50 steps.
    length = RATES.sum() * scale(4, 3)
    assert apart(ours, expected) < 4e-3 * length


def test_adafactor_is_that_of_torch():
    ours = run(optim.adafactor(min_factored=2))
    # Its limit of the rate, 1 / sqrt(t), is above RATES throughout.
    expected = run_torch(lambda p: torch.optim.Adafactor(p, eps=(1e-30, 1e-3)))
    assert apart(ours, expected) < 1e-5


@pytest.mark.slow
def test_sophia_of_optax_uses_the_curvature_of_the_last_look():
    key, params = jax.random.key(0), {"x": jnp.array([0.3, -0.2])}
    at = jax.value_and_grad(lambda p: jnp.sum(jnp.array([1.0, 4.0]) * p["x"] ** 2) / 2)
    ours = optim.contrib.sophia(key=key, b1=0.0, b2=0.0, scale=0.5)
    value, grads = at(params)
    updates, state = ours.update(grads, ours.init(params), params, 1.0, Objective(value, at))
    np.testing.assert_allclose(state.h["x"], [1, 4], rtol=1e-6)
    np.testing.assert_allclose(updates["x"], [-0.6, 0.4], rtol=1e-6)
    with jax.numpy_dtype_promotion("standard"):
        look = optax.contrib.hutchinson_estimator_diag_hessian(jax.random.PRNGKey(0))
        theirs = optax.contrib.sophia(
            1.0, b1=0.0, b2=0.0, gamma=0.5, weight_decay=0.0, update_interval=1,
            hessian_diagonal_fn=look,
        )  # fmt: skip
        state = theirs.init(params)
        for expected in ([-1, 1], [-0.6, 0.4]):  # without curvature, then as ours
            updates, state = theirs.update(grads, state, params, obj_fn=lambda p: at(p)[0])
            np.testing.assert_allclose(updates["x"], expected, rtol=1e-6)


@pytest.mark.slow
def test_lbfgs_without_a_search_is_that_of_optax():
    def loss(x):
        return rosenbrock(x) / 100 + jnp.sum(x**2)

    start = np.array([-0.5, 0.4, 0.3], np.float32)
    path, _ = minimize(optim.lbfgs(memory=5, search=optim.full_step()), start, 12, loss, lr=0.5)
    theirs = optax.lbfgs(0.5, memory_size=5, linesearch=None)
    x, state = jnp.asarray(start), theirs.init(jnp.asarray(start))
    with jax.numpy_dtype_promotion("standard"):
        update = jax.jit(theirs.update)
        for ours in path:
            np.testing.assert_allclose(ours, x, atol=1e-5)
            updates, state = update(jax.grad(loss)(x), state, x)
            x = x + updates


def test_lbfgs_with_a_search_needs_few_gradients_where_torch_does():
    start = np.array([-1.2, 1.0], np.float32)
    _, values = minimize(optim.lbfgs(), start, 50)
    x = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.LBFGS([x], max_iter=50, history_size=10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        loss.backward()
        return loss

    optimizer.step(closure)
    assert values[-1] < 1e-8 and closure().item() < 1e-8
