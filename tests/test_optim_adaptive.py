"""The elementwise adaptive optimizers against twins of their papers, and what defines each."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from fnn.optim.adam_variants import _effective_length
from tests.optim_runs import GRADS, LR, START, STEPS, expect_updates, mean, run, run_twin
from tests.registry.optimizers_adaptive import OPTIMIZERS as ROWS

part = functools.partial


def signum_twin(g, p, t, memory, mu=0.9):
    return np.sign(mean(memory, "m", mu, g))


def rprop_twin(g, p, t, memory, shrink=0.5, grow=1.2, least=1e-4, most=5e3):
    scale, last = memory.get("scale", np.ones(4)), memory.get("last", np.zeros(4))
    step = np.zeros(4)
    for i in range(4):
        if g[i] * last[i] > 0:
            scale[i] = min(scale[i] * grow, most)
        if g[i] * last[i] < 0:
            scale[i] = max(scale[i] * shrink, least)
            last[i] = 0
        else:
            step[i] = np.sign(g[i]) * scale[i]
            last[i] = g[i]
    memory.update(scale=scale, last=last)
    return step


def adagrad_twin(g, p, t, memory, start=0.0, eps=1e-10):
    memory["v"] = memory.get("v", start) + g**2
    return g / (np.sqrt(memory["v"]) + eps)


def adadelta_twin(g, p, t, memory, rho=0.9, eps=1e-6):
    v, u = mean(memory, "v", rho, g**2), memory.get("u", 0)
    step = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    mean(memory, "u", rho, step**2)
    return step


def nadam_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    m, v = mean(memory, "m", b1, g), mean(memory, "v", b2, g**2)
    ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return ahead / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p


def radam_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8):
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, g**2) / (1 - b2**t)
    most = 2 / (1 - b2) - 1
    rho = most - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return m
    r = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
    return r * m / (np.sqrt(v) + eps)


def adamax_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8):
    m = mean(memory, "m", b1, g) / (1 - b1**t)
    memory["u"] = np.maximum(b2 * memory.get("u", 0), np.abs(g) + eps)
    return m / memory["u"]


def amsgrad_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8):
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, g**2)
    memory["largest"] = np.maximum(memory.get("largest", 0), v)
    return m / (np.sqrt(memory["largest"] / (1 - b2**t)) + eps)


def adabelief_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-16):
    m = mean(memory, "m", b1, g)
    memory["s"] = b2 * memory.get("s", 0) + (1 - b2) * (g - m) ** 2 + eps
    return m / (1 - b1**t) / (np.sqrt(memory["s"] / (1 - b2**t)) + eps)


def yogi_twin(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-3, start=1e-6):
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), memory.get("v", np.full(4, start))
    memory["v"] = v - (1 - b2) * np.sign(v - g**2) * g**2
    return m / (np.sqrt(memory["v"] / (1 - b2**t)) + eps)


def adan_twin(g, p, t, memory, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, decay=0.0):
    change = g - memory.get("last", g)
    memory["last"] = g
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, change) / (1 - b2**t)
    n = mean(memory, "n", b3, (g + b2 * change) ** 2) / (1 - b3**t)
    return (m + b2 * v) / (np.sqrt(n) + eps) + decay * p


def warm_b3(b1, b3, s):
    """The paper's equation, in which numerator and denominator both vanish for b near 1."""
    return math.exp(math.log(b1) * math.log(b3) / ((1 - s) * math.log(b3) + s * math.log(b1)))


def ademamix_twin(
    g, p, t, memory, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, warmup=1, eps=1e-8, decay=0.0
):
    s = min(t / warmup, 1)
    fast, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, g**2) / (1 - b2**t)
    slow = mean(memory, "slow", warm_b3(b1, b3, s), g)
    return (fast + s * alpha * slow) / (np.sqrt(v) + eps) + decay * p


def adopt_twin(g, p, t, memory, b1=0.9, b2=0.9999, eps=1e-6):
    if t == 1:
        memory["v"], memory["m"] = g**2, np.zeros(4)
        return memory["m"]
    clip = (t - 1) ** 0.25
    m = mean(memory, "m", b1, np.clip(g / np.maximum(np.sqrt(memory["v"]), eps), -clip, clip))
    mean(memory, "v", b2, g**2)
    return m


LONG = {"b1": 0.8, "b2": 0.99999, "eps": 0.1}
TWINS = {
    "sign_sgd": (optim.sign_sgd(), lambda g, p, t, memory: np.sign(g)),
    "signum": (optim.signum(), signum_twin),
    "signum 0.5": (optim.signum(momentum=0.5), part(signum_twin, mu=0.5)),
    "rprop": (optim.rprop(), rprop_twin),
    "rprop within limits": (
        optim.rprop(shrink=0.7, grow=1.5, min_scale=0.6, max_scale=2.0),
        part(rprop_twin, shrink=0.7, grow=1.5, least=0.6, most=2.0),
    ),
    "adagrad": (optim.adagrad(), adagrad_twin),
    "adagrad from 0.1": (
        optim.adagrad(start=0.1, eps=0.01), part(adagrad_twin, start=0.1, eps=0.01)
    ),
    "adadelta": (optim.adadelta(), adadelta_twin),
    "adadelta 0.95": (
        optim.adadelta(decay=0.95, eps=0.01), part(adadelta_twin, rho=0.95, eps=0.01)
    ),
    "nadam": (optim.nadam(), nadam_twin),
    "nadam with a long memory": (optim.nadam(**LONG), part(nadam_twin, **LONG)),
    "nadamw": (optim.nadamw(weight_decay=0.1), part(nadam_twin, decay=0.1)),
    "algoperf_nadamw": (
        optim.contrib.algoperf_nadamw(),
        part(nadam_twin, b1=0.93266073836, b2=0.9955159689799007, decay=0.08121616522670176),
    ),
    "radam": (optim.radam(), radam_twin),
    "radam with a long memory": (optim.radam(**LONG), part(radam_twin, **LONG)),
    "radam with a short memory": (optim.radam(b2=0.9), part(radam_twin, b2=0.9)),
    "radam that never rectifies": (optim.radam(b2=0.5), part(radam_twin, b2=0.5)),
    "adamax": (optim.adamax(), adamax_twin),
    "adamax 0.7": (optim.adamax(b2=0.7, eps=0.1), part(adamax_twin, b2=0.7, eps=0.1)),
    "amsgrad": (optim.amsgrad(), amsgrad_twin),
    "amsgrad with a short memory": (optim.amsgrad(b2=0.5), part(amsgrad_twin, b2=0.5)),
    "adabelief": (optim.adabelief(), adabelief_twin),
    "adabelief with a large eps": (optim.adabelief(**LONG), part(adabelief_twin, **LONG)),
    "yogi": (optim.yogi(), yogi_twin),
    "yogi from 0.1": (optim.yogi(b2=0.9, start=0.1), part(yogi_twin, b2=0.9, start=0.1)),
    "adan": (optim.contrib.adan(), adan_twin),
    "adan with decay": (
        optim.contrib.adan(b1=0.9, b2=0.5, b3=0.999, eps=0.1, weight_decay=0.1),
        part(adan_twin, b1=0.9, b2=0.5, b3=0.999, eps=0.1, decay=0.1),
    ),
    "ademamix": (optim.contrib.ademamix(), ademamix_twin),
    "ademamix with a warm-up": (
        optim.contrib.ademamix(warmup_steps=30, weight_decay=0.1, alpha=8.0),
        part(ademamix_twin, warmup=30, decay=0.1, alpha=8.0),
    ),
    "adopt": (optim.contrib.adopt(), adopt_twin),
    "adopt with a large eps": (
        optim.contrib.adopt(b2=0.9, eps=0.8),
        part(adopt_twin, b2=0.9, eps=0.8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_fifty_updates_are_those_of_the_paper(name):
    expect_updates(*TWINS[name])


EPS = 1e-30  # nothing beside the gradients of these tests
WITHOUT_UNIT = {
    "rmsprop": optim.rmsprop(eps=EPS),
    "adam": optim.adam(eps=EPS),
    "nadam": optim.nadam(eps=EPS),
    "adamax": optim.adamax(eps=EPS),
    "amsgrad": optim.amsgrad(eps=EPS),
    "adabelief": optim.adabelief(eps=EPS),
    "adagrad": optim.adagrad(eps=EPS),
    "adan": optim.contrib.adan(eps=EPS),
    "ademamix": optim.contrib.ademamix(eps=EPS),
    "adopt": optim.contrib.adopt(eps=EPS),
    "sign_sgd": optim.sign_sgd(),
    "signum": optim.signum(),
    "lion": optim.lion(),
    "rprop": optim.rprop(),
}


@pytest.mark.parametrize("name", WITHOUT_UNIT)
def test_the_steps_do_not_change_when_the_gradient_is_scaled(name):
    # By powers of two, so that every product and root is the same number with another exponent.
    both = np.concatenate([GRADS * 2.0**-12, GRADS * 2.0**12], axis=1).astype(np.float32)
    path = run(WITHOUT_UNIT[name], grads=both, start=np.tile(START, 2))
    np.testing.assert_array_equal(path[:, :4], path[:, 4:])


def updates(optimizer, grads=GRADS, lr=LR):
    """The updates themselves: from parameters of 0 they are not rounded away."""
    params, state, path = {"w": jnp.zeros(grads.shape[1])}, None, []
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for g in grads:
        step, state = update({"w": jnp.asarray(g, jnp.float32)}, state, params, lr)
        path.append(np.asarray(step["w"]))
    return np.stack(path)


@pytest.mark.parametrize("make", [optim.sign_sgd, optim.signum])
def test_a_step_by_sign_is_the_rate_or_nothing(make):
    grads = GRADS.copy()
    grads[:, 0] = 0
    steps = updates(make(), grads)
    np.testing.assert_array_equal(steps[:, 0], 0)
    np.testing.assert_array_equal(np.abs(steps[:, 1:]), np.float32(LR))


def test_without_momentum_signum_is_sign_sgd():
    np.testing.assert_array_equal(run(optim.signum(momentum=0.0)), run(optim.sign_sgd()))


def test_the_steps_of_rprop_stay_within_its_limits_and_skip_a_turn():
    steps = np.abs(updates(optim.rprop(min_scale=0.4, max_scale=1.3))) / np.float32(LR)
    moving = steps[steps > 0]
    np.testing.assert_allclose([moving.min(), moving.max()], [0.4, 1.3], rtol=1e-6)  # lr is rounded
    turned = np.diff(np.sign(GRADS), axis=0)[0] != 0
    np.testing.assert_array_equal(steps[1] == 0, turned)


def test_rprop_compares_signs_so_that_tiny_gradients_count():
    tiny = np.full((2, 1), 1e-30, np.float32)  # their product is 0 in float32
    np.testing.assert_allclose(updates(optim.rprop(), tiny), [[-LR], [-1.2 * LR]], rtol=1e-6)


def test_the_steps_of_adagrad_shrink_as_one_over_the_root_of_time():
    steps = updates(optim.adagrad(), np.full((STEPS, 1), 7.0, np.float32))[:, 0]
    np.testing.assert_allclose(steps, -LR / np.sqrt(np.arange(1, STEPS + 1)), rtol=1e-6)


def test_adadelta_steps_in_the_unit_of_the_parameters():
    # In half the unit, a parameter is twice as large and its gradient half. Only eps, which has the
    # unit of both squared, sets the size of the first steps: it cancels where u is far above it.
    one, other = (updates(optim.adadelta(eps=1e-6), g) for g in (GRADS, 2.0**10 * GRADS))
    np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "adam"),
    [
        (optim.contrib.adan(b1=0.9, b2=0.0, b3=0.999), optim.adam()),
        (optim.contrib.ademamix(alpha=0.0), optim.adam()),
        (optim.nadam(b1=0.0), optim.adam(b1=0.0)),
    ],
    ids=["adan", "ademamix", "nadam"],
)
def test_with_its_own_part_switched_off_it_is_adam(optimizer, adam):
    # 50 updates of at most two roundings of 6e-8 of an update.
    np.testing.assert_allclose(run(optimizer), run(adam), rtol=0, atol=2 * STEPS * 6e-8 * LR)


def test_radam_is_plain_momentum_until_its_moment_is_ready():
    steps = updates(optim.radam())
    b1, m = 0.9, np.zeros(4)
    for t in range(5):
        m = b1 * m + (1 - b1) * GRADS[t]
        np.testing.assert_allclose(steps[t], -LR * m / (1 - b1 ** (t + 1)), rtol=2e-6)
    # At the sixth step the rectification starts, at 1.7 % of Adam's step.
    share = steps[5] / updates(optim.adam())[5]
    assert 0.01 < share.min() <= share.max() < 0.03


@pytest.mark.sampled(8)
@pytest.mark.parametrize("b2", [0.0, 0.5, 0.9, 0.999, 0.99999])
def test_the_effective_length_of_a_mean_is_exact(b2):
    steps = jnp.array([1.0, 2.0, 5.0, 100.0, 10_000.0, 1_000_000.0])
    most = 2 / (1 - b2) - 1
    expected = [most - 2 * t * b2**t / (1 - b2**t) for t in steps.tolist()]
    plain = jax.vmap(lambda t: _effective_length(b2, t))(steps)
    # A dozen roundings of 6e-8, and the double's own cancellation of 1e-16 * most.
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    rounded = float(np.float32(b2))
    most = 2 / (1 - rounded) - 1
    expected = [most - 2 * t * rounded**t / (1 - rounded**t) for t in steps.tolist()]
    traced = jax.vmap(_effective_length, (None, 0))
    np.testing.assert_allclose(traced(jnp.float32(b2), steps), expected, rtol=1e-6)


def test_the_divisor_of_amsgrad_never_shrinks_and_that_of_adam_does():
    grads = GRADS * np.linspace(1, 0.01, STEPS, dtype=np.float32)[:, None]
    optimizer, params = optim.amsgrad(b2=0.5), {"w": jnp.zeros(4)}
    state, largest, seconds = optimizer.init(params), [], []
    for g in grads:
        _, state = optimizer.update({"w": jnp.asarray(g)}, state, params, LR)
        largest.append(np.asarray(state.largest["w"]))
        seconds.append(np.asarray(state.v["w"]))
    assert (np.diff(largest, axis=0) >= 0).all()
    assert (np.diff(seconds, axis=0) < 0).any()
    np.testing.assert_array_equal(largest, np.maximum.accumulate(seconds))


def test_a_step_of_adamax_has_a_limit():
    rare = np.zeros((STEPS, 1), np.float32)
    rare[-1] = 1e3
    assert np.abs(updates(optim.adamax(), rare)).max() <= LR * (1 + 1e-6)
    assert np.abs(updates(optim.adamax())).max() <= LR / (1 - 0.9)


def test_adabelief_takes_larger_steps_where_gradients_are_steady():
    steady = np.ones((STEPS, 1), np.float32)
    shaky = steady + np.where(np.arange(STEPS) % 2, 0.9, -0.9).astype(np.float32)[:, None]
    sure, unsure = (np.abs(updates(optim.adabelief(b2=0.9), g)[-1, 0]) for g in (steady, shaky))
    alike = [np.abs(updates(optim.adam(b2=0.9), g)[-1, 0]) for g in (steady, shaky)]
    assert sure > 10 * unsure
    assert alike[0] < 2 * alike[1]


def test_yogi_forgets_a_large_gradient_slowly_and_adam_at_a_fixed_rate():
    grads = np.full((STEPS, 1), 0.01, np.float32)
    grads[0] = 10.0
    last = {
        name: np.abs(updates(optimizer, grads)[-1, 0])
        for name, optimizer in {
            "yogi": optim.yogi(b1=0.0, b2=0.9),
            "adam": optim.adam(b1=0.0, b2=0.9),
        }.items()
    }
    assert last["yogi"] < last["adam"] / 5


def test_adopt_waits_a_step_and_then_bounds_its_quotients():
    grads = GRADS * np.where(np.arange(STEPS) % 5, 1, 1e4).astype(np.float32)[:, None]
    steps = updates(optim.contrib.adopt(b1=0.0, b2=0.5), grads)
    np.testing.assert_array_equal(steps[0], 0)
    limit = LR * np.arange(STEPS, dtype=np.float64)[:, None] ** 0.25
    assert (np.abs(steps) <= limit * (1 + 1e-6)).all()
    assert (np.abs(steps[1:]) >= limit[1:] * (1 - 1e-6)).any()


def test_the_divisor_of_adopt_does_not_know_the_newest_gradient():
    two = np.stack([GRADS[0], 0.5 * GRADS[1] / np.abs(GRADS[1]) * np.abs(GRADS[0])])
    one, other = (updates(optim.contrib.adopt(), two * [[1], [share]])[1] for share in (1, 0.01))
    np.testing.assert_allclose(other, 0.01 * one, rtol=1e-5)  # so the step is linear in it


def test_what_the_slow_mean_takes_has_all_its_digits():
    # In float32 1 - 0.9999 has four digits; the large alpha shows the others.
    def expect(got, b3):
        expected = run_twin(part(ademamix_twin, b3=b3, alpha=1e4))
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())

    expect(run(optim.contrib.ademamix(b3=0.9999, alpha=1e4)), 0.9999)
    rounded = jnp.float32(0.9999)
    traced = jax.jit(lambda b3: updates_of(optim.contrib.ademamix(b3=b3, alpha=1e4)))
    expect(traced(rounded), rounded.item())


def updates_of(optimizer):
    def step(carry, g):
        params, state = carry
        new, state = optimizer.update({"w": g}, state, params, LR)
        params = tree.add(params, new)
        return (params, state), params["w"]

    params = {"w": jnp.asarray(START)}
    return jax.lax.scan(step, (params, optimizer.init(params)), jnp.asarray(GRADS))[1]


DECAYING = {
    "adamax": part(optim.adamax, weight_decay=0.2),
    "nadamw": part(optim.nadamw, weight_decay=0.2),
    "algoperf_nadamw": part(optim.contrib.algoperf_nadamw, weight_decay=0.2),
    "adan": part(optim.contrib.adan, weight_decay=0.2),
    "ademamix": part(optim.contrib.ademamix, weight_decay=0.2),
}


@pytest.mark.parametrize("name", DECAYING)
def test_decay_without_a_gradient_shrinks_the_marked_leaves_alone(name):
    params = {"kernel": jnp.array([2.0, -3.0]), "bias": jnp.array([5.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask, bias in ((None, -LR * 0.2 * 5.0), (tree.matching("kernel"), 0.0)):
        optimizer = DECAYING[name](mask=mask)
        step, _ = optimizer.update(zeros, optimizer.init(params), params, LR)
        np.testing.assert_allclose(step["kernel"], -LR * 0.2 * params["kernel"], rtol=1e-6)
        np.testing.assert_allclose(step["bias"], [bias], rtol=1e-6)


@pytest.mark.sampled(12)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_gradients_by_every_scalar_are_finite_also_where_a_gradient_is_zero(row):
    grads = GRADS[:20].copy()
    grads[:, 0] = 0  # always
    grads[1::2, 1] = 0  # now and then
    grads[:3, 2] = 0  # at first

    def trained(hyper):
        optimizer = row.make(**{name: hyper[name] for name in row.scalars})

        def step(carry, g):
            params, state = carry
            new, state = optimizer.update({"w": g}, state, params, hyper["lr"])
            return (tree.add(params, new), state), None

        params = {"w": jnp.asarray(START)}
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.asarray(grads))
        return jnp.square(params["w"]).sum()

    small = {name: 1e-8 if name == "eps" else value for name, value in row.scalars.items()}
    hyper = jax.tree.map(jnp.float32, {"lr": row.lr, **small})
    assert tree.all_finite(jax.jit(jax.grad(trained))(hyper))


IN_PLACE = {
    make.__name__: make
    for make in (
        optim.adam, optim.nadam, optim.radam, optim.adamax, optim.amsgrad, optim.adabelief,
        optim.yogi, optim.contrib.adan, optim.contrib.ademamix, optim.sgd, optim.rmsprop,
        optim.adagrad, optim.contrib.adopt, optim.schedule_free_sgd,
    )
}  # fmt: skip
IN_PLACE["sgd with momentum"] = part(optim.sgd, momentum=0.9)
IN_PLACE["sgd with nesterov"] = part(optim.sgd, momentum=0.9, nesterov=True)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("make", IN_PLACE.values(), ids=IN_PLACE)
def test_a_donated_state_is_overwritten_without_a_copy(make):
    optimizer = make()
    params = {"w": jnp.zeros((32, 64))}

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params, LR)
        return tree.add(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1))
    used = program.lower(params, optimizer.init(params), params).compile().memory_analysis()
    assert used.temp_size_in_bytes < params["w"].nbytes / 4  # some scalars
