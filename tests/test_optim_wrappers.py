"""Wrappers over an optimizer against float64 twins and Optax, and what defines them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from fnn.optim._wrap import tree_where
from fnn.types import Objective, unscaled
from tests.optim_runs import GRADS, LR, START, STEPS, expect_path, run, run_weights
from tests.tiny import assert_same_bits

part = functools.partial
CURVATURE = np.array([0.5, 1.0, 2.0, 0.1])


def quartic_gradient(p):
    return CURVATURE * p + 0.2 * p**3


def quartic(params):
    c = jnp.asarray(CURVATURE, jnp.float32)
    value = (c * params["w"] ** 2 / 2 + 0.05 * params["w"] ** 4).sum()
    return value, {"w": c * params["w"] + 0.2 * params["w"] ** 3}


# The twins: float64 paths of (parameters, weights), written from the papers.


def adam_steps(b1=0.9, b2=0.999, eps=1e-8):
    """`step(g)` gives Adam's direction."""
    memory = {"m": 0, "v": 0, "t": 0}

    def step(g):
        memory["t"] += 1
        memory["m"] = b1 * memory["m"] + (1 - b1) * g
        memory["v"] = b2 * memory["v"] + (1 - b2) * g**2
        m, v = memory["m"] / (1 - b1 ** memory["t"]), memory["v"] / (1 - b2 ** memory["t"])
        return m / (np.sqrt(v) + eps)

    return step


def lookahead_twin(period, alpha):
    p = slow = START.astype(np.float64)
    adam = adam_steps()
    for t, g in enumerate(GRADS.astype(np.float64), start=1):
        p = p - LR * adam(g)
        if t % period == 0:
            p = slow = slow + alpha * (p - slow)
        yield p, slow


def cautious_twin():
    p, adam = START.astype(np.float64), adam_steps()
    for g in GRADS.astype(np.float64):
        u = adam(g)
        mask = u * g > 0
        p = p - LR * u * mask * p.size / (mask.sum() + 1)
        yield p, p


def ema_twin(decay):
    p, seen = START.astype(np.float64), []
    for g in GRADS.astype(np.float64):
        p = p - LR * g
        seen.append(p)
        share = decay ** np.arange(len(seen))[::-1]
        yield p, (share[:, None] * np.stack(seen)).sum(0) / share.sum()


def swa_twin(start, period):
    p, kept = START.astype(np.float64), []
    for t, g in enumerate(GRADS.astype(np.float64), start=1):
        p = p - LR * g
        if t >= start and (t - start) % period == 0:
            kept.append(p)
        yield p, np.mean(kept, axis=0) if kept else p


def accumulate_twin(k):
    p, adam, some = START.astype(np.float64), adam_steps(), []
    for g in GRADS.astype(np.float64):
        some.append(g)
        if len(some) == k:
            p = p - LR * adam(np.mean(some, axis=0))
            some = []
        yield p, p


TWINS = {
    "lookahead": (optim.lookahead(optim.adam()), part(lookahead_twin, 5, 0.5)),
    "lookahead 3": (
        optim.lookahead(optim.adam(), period=3, slow_step=0.8),
        part(lookahead_twin, 3, 0.8),
    ),
    "cautious": (optim.cautious(optim.adam()), cautious_twin),
    "ema": (optim.ema(optim.sgd()), part(ema_twin, 0.999)),
    "ema 0.8": (optim.ema(optim.sgd(), decay=0.8), part(ema_twin, 0.8)),
    "swa": (optim.swa(optim.sgd(), start=10), part(swa_twin, 10, 1)),
    "swa 7": (optim.swa(optim.sgd(), start=3, period=7), part(swa_twin, 3, 7)),
    "accumulate": (optim.accumulate(optim.adam(), steps=4), part(accumulate_twin, 4)),
}


@pytest.mark.parametrize(("optimizer", "twin"), TWINS.values(), ids=TWINS)
def test_fifty_updates_and_their_weights_are_those_of_the_paper(optimizer, twin):
    expect_path(run_weights(optimizer)[:2], map(np.stack, zip(*twin(), strict=True)))


def sharp_path(uphill, rate=0.05):
    p = START.astype(np.float64)
    for shift in GRADS.astype(np.float64):
        up = p + uphill(p, quartic_gradient(p) + shift)
        p = p - rate * (quartic_gradient(up) + shift)
        yield p


def sam_uphill(p, g, rho=0.3):
    return rho * g / np.linalg.norm(g)


def asam_uphill(p, g, rho=0.3, eta=0.1):
    size = np.abs(p) + eta
    return rho * size**2 * g / np.linalg.norm(size * g)


SHARP = {
    "sam": (optim.sam(optim.sgd(), rho=0.3), sam_uphill),
    "asam": (optim.asam(optim.sgd(), rho=0.3, eta=0.1), asam_uphill),
}


@pytest.mark.parametrize(("optimizer", "uphill"), SHARP.values(), ids=SHARP)
def test_fifty_updates_by_the_sharper_gradient_are_those_of_the_paper(optimizer, uphill):
    path, _, _ = run_weights(optimizer, lr=0.05, objective=quartic)
    expect_path([path], [np.stack(list(sharp_path(uphill)))])


# The peer. Optax is run as it wants to be, with promotion of dtypes.


def run_optax(transformation, grads=GRADS, start=START, **extra):
    import optax

    def step(carry, g):
        params, state = carry
        more = {k: make(g) for k, make in extra.items()}
        if more:
            g = more["grad_fn"](params, 0)
        updates, state = transformation.update(g, state, params, **more)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = jnp.asarray(start)
        carry = (params, transformation.init(params))
        return np.asarray(jax.jit(lambda c, g: jax.lax.scan(step, c, g)[1])(carry, grads))


def test_accumulation_and_skipping_are_those_of_optax():
    optax = pytest.importorskip("optax")
    inner = optax.adam(LR)
    spoilt = GRADS.copy()
    spoilt[[4, 5, 20], [0, 1, 2]] = [np.nan, np.inf, -np.inf]
    for ours, theirs, grads in [
        (optim.accumulate(optim.adam(), steps=4), optax.MultiSteps(inner, 4), GRADS),
        (optim.skip_not_finite(optim.adam()), optax.apply_if_finite(inner, 1000), spoilt),
    ]:
        # Fifty steps of Adam, whose bias correction Optax rounds in float32 (4e-6 of the step).
        np.testing.assert_allclose(run(ours, grads=grads), run_optax(theirs, grads), atol=1e-5)


def test_lookahead_is_that_of_optax():
    optax = pytest.importorskip("optax")
    theirs = optax.lookahead(optax.sgd(LR), 5, 0.5)

    def step(carry, g):
        params, state = carry
        updates, state = theirs.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params.fast, params.slow)

    params = optax.LookaheadParams(jnp.asarray(START), jnp.asarray(START))
    with jax.numpy_dtype_promotion("standard"):
        scan = jax.jit(lambda c, g: jax.lax.scan(step, c, g)[1])
        expected = scan((params, theirs.init(params)), GRADS)
    expect_path(run_weights(optim.lookahead(optim.sgd()))[:2], map(np.asarray, expected))


def test_sam_is_that_of_optax():
    optax = pytest.importorskip("optax")
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(0.3))
    theirs = optax.contrib.sam(optax.sgd(0.05), uphill, opaque_mode=True)
    expected = run_optax(theirs, grad_fn=lambda g: lambda p, _: quartic({"w": p})[1]["w"] + g)
    ours, _, _ = run_weights(SHARP["sam"][0], lr=0.05, objective=quartic)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


# What defines them.


def with_bad_rows(rows, values):
    return np.insert(GRADS, rows, np.float32(values), axis=0), np.insert(
        np.ones(STEPS, bool), rows, False
    )


def test_a_gradient_that_is_not_finite_is_as_if_it_had_not_been():
    bad = np.float32([[np.nan, 1, 1, 1], [1, np.inf, 1, 1], [1, 1, -np.inf, 1]])
    grads, kept = with_bad_rows([1, 7, 7], bad)
    path, _, state = run_weights(optim.skip_not_finite(optim.adam()), grads=grads)
    expect_path([path[kept]], [run(optim.adam())])
    np.testing.assert_array_equal(path[~kept], path[np.flatnonzero(~kept) - 1], strict=True)
    assert state.skipped == 3


def test_gradients_through_training_are_blind_to_what_was_skipped():
    grads, _ = with_bad_rows([1, 7], np.nan)

    def last(lr, grads):
        optimizer = optim.skip_not_finite(optim.adam())

        def step(carry, g):
            updates, state = optimizer.update({"w": g}, carry[1], carry[0], lr)
            return (tree.add(carry[0], updates), state), None

        params = {"w": jnp.asarray(START)}
        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, jnp.asarray(grads))[0][0]["w"].sum()

    slope = jax.jit(jax.grad(last))
    np.testing.assert_allclose(slope(LR, grads), slope(LR, GRADS), rtol=1e-5)


def test_a_spike_is_as_if_it_had_not_been_once_there_is_a_mean():
    grads, kept = with_bad_rows([2, 20, 40, 40], [[50.0] * 4, [50.0] * 4, [np.nan] * 4, [1e30] * 4])
    kept[2] = True  # too early to tell
    path, _, state = run_weights(optim.skip_spikes(optim.adam(), warmup_steps=10), grads=grads)
    expect_path([path[kept]], [run(optim.adam(), grads=grads[kept])])
    np.testing.assert_array_equal(path[~kept], path[np.flatnonzero(~kept) - 1], strict=True)
    assert state.skipped == 3


def test_the_mean_of_the_norms_is_the_running_mean_of_the_cut_norms():
    grads = np.float32([[2, 0, 0, 0], [0, 4, 0, 0], [100, 0, 0, 0]])
    skipper = optim.skip_spikes(optim.sgd(), factor=3.0, decay=0.5, warmup_steps=2)
    _, _, state = run_weights(skipper, grads=grads)
    second = (0.5 * 2 + 4) / 1.5
    np.testing.assert_allclose(state.mean, (0.25 * 2 + 0.5 * 4 + 3 * second) / 1.75, rtol=1e-6)


def test_a_lasting_change_of_the_gradients_size_is_followed():
    grads = np.concatenate([GRADS, 100 * np.tile(GRADS, (10, 1))])
    skipper = optim.skip_spikes(optim.sgd(), factor=3.0, decay=0.9, warmup_steps=10)
    _, _, state = run_weights(skipper, grads=grads)
    assert 1 < state.skipped < 100


def test_a_loss_scale_grows_after_good_steps_and_shrinks_after_a_bad_one():
    optimizer = optim.dynamic_loss_scale(optim.sgd(), start=4.0, growth_steps=2)
    params = {"w": jnp.ones(1)}
    state, scales = optimizer.init(params), []
    for g in (1.0, 1.0, 1.0, jnp.nan, 1.0, jnp.inf, jnp.inf, jnp.inf, 1.0, 1.0):
        updates, state = optimizer.update({"w": jnp.array([g])}, state, params, 1.0)
        assert updates["w"] == (-1 if g == 1 else 0)
        scales.append(optimizer.loss_scale(state).item())
    assert scales == [4, 8, 8, 4, 4, 2, 1, 1, 1, 2]
    assert state.skipped == 4


def test_a_loss_scale_stays_finite():
    optimizer = optim.dynamic_loss_scale(optim.sgd(), start=2.0**127, growth_steps=1)
    _, _, state = run_weights(optimizer)
    assert optimizer.loss_scale(state) == 2.0**127


INNER = optim.dynamic_loss_scale(optim.ema(optim.sgd(), decay=0.5), start=8.0)
WRAPPERS = {
    "accumulate": part(optim.accumulate, steps=1),
    "asam": optim.asam,
    "cautious": optim.cautious,
    "chain": lambda inner: optim.chain(optim.clip_by_value(10.0), inner),
    "dynamic_loss_scale": part(optim.dynamic_loss_scale, start=8.0),
    "ema": part(optim.ema, decay=0.0),
    "lookahead": part(optim.lookahead, period=100),
    "master_weights": optim.master_weights,
    "sam": optim.sam,
    "skip_not_finite": optim.skip_not_finite,
    "skip_spikes": optim.skip_spikes,
    "stochastic_rounding": lambda inner: optim.stochastic_rounding(inner, jax.random.key(0)),
    "swa": part(optim.swa, start=100),
}


def needs_the_objective():
    def update(grads, state, params, lr, objective=None):
        value, gradient = objective.at(params)
        return jax.tree.map(lambda g: -g * value, gradient), state

    return optim.sgd()._replace(update=update)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_passes_on_the_weights_and_the_loss_scale(wrap):
    optimizer, params = wrap(INNER), {"w": jnp.asarray(START)}
    state = optimizer.init(params)
    assert optimizer.loss_scale(state) == 8.0
    for _ in range(2):
        batch = Objective(*(quartic(params)[0], quartic))
        updates, state = optimizer.update(quartic(params)[1], state, params, LR, batch)
        params = tree.add(params, updates)
    # An average of the last two parameters, whatever is around it.
    assert np.abs(optimizer.weights(state, params)["w"] - params["w"]).max() > LR / 20


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "dynamic_loss_scale"])
def test_a_wrapper_asks_for_no_loss_scale_of_its_own(name):
    assert WRAPPERS[name](optim.sgd()).loss_scale is unscaled  # so a step leaves it out


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name != "accumulate"])
def test_a_wrapper_passes_on_the_objective(name):
    optimizer, params = WRAPPERS[name](needs_the_objective()), {"w": jnp.asarray(START)}
    value, grads = quartic(params)
    batch = Objective(value, quartic)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, LR, batch)
    assert np.abs(updates["w"]).max() > 1


@pytest.mark.parametrize("wrap", [optim.sam, optim.asam])
def test_the_optimizer_in_a_sharp_one_sees_the_sharp_objective(wrap):
    def update(grads, state, params, lr, objective=None):
        value, gradient = objective.at(params)
        assert value == objective.value != quartic(params)[0]
        np.testing.assert_array_equal(gradient["w"], grads["w"])
        return grads, state

    params = {"w": jnp.asarray(START)}
    value, grads = quartic(params)
    sharp = wrap(optim.sgd()._replace(update=update))
    sharp.update(grads, (), params, LR, Objective(value, quartic))


@pytest.mark.parametrize("wrap", [optim.sam, optim.asam])
def test_without_an_objective_a_second_gradient_is_an_error(wrap):
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"sam: expected the objective .* got None; pass objec"):
        wrap(optim.sgd()).update(params, (), params, LR)


def test_accumulation_around_sam_is_refused_and_inside_it_allowed():
    params, objective = {"w": jnp.asarray(START)}, Objective(*(quartic({"w": START})[0], quartic))
    outside = optim.accumulate(optim.sam(optim.sgd()), steps=2)
    with pytest.raises(ValueError, match="put accumulate inside"):
        outside.update(params, outside.init(params), params, LR, objective)
    inside = optim.sam(optim.accumulate(optim.sgd(), steps=2))
    updates, _ = inside.update(params, inside.init(params), params, LR, objective)
    np.testing.assert_array_equal(updates["w"], 0)


def test_accumulation_wants_at_least_one_step():
    with pytest.raises(
        ValueError, match="accumulate: expected steps to be a positive integer, got"
    ):
        optim.accumulate(optim.sgd(), steps=0)


def test_accumulation_of_one_is_the_optimizer():
    np.testing.assert_allclose(
        run(optim.accumulate(optim.adam(), steps=1)), run(optim.adam()), atol=1e-6
    )


def test_the_rate_of_the_last_small_batch_counts():
    rates = np.tile(np.float32([9.0, 0.5]), STEPS // 2)
    path = run(optim.accumulate(optim.sgd(), steps=2), lr=rates)
    mean = GRADS.reshape(-1, 2, 4).mean(axis=1)
    np.testing.assert_allclose(path[1::2], run(optim.sgd(), grads=mean, lr=0.5), atol=2e-6)
    np.testing.assert_array_equal(path[2::2], path[1:-1:2])


def test_a_zero_gradient_is_no_way_uphill():
    params = {"w": jnp.zeros(4)}
    for wrap in (optim.sam, optim.asam):
        update = jax.jit(lambda p, w=wrap: w(optim.sgd()).update(
            quartic(p)[1], (), p, LR, Objective(quartic(p)[0], quartic)
        )[0]["w"])  # fmt: skip
        np.testing.assert_array_equal(update(params), 0)
        assert jnp.isfinite(jax.jacobian(update)(params)["w"]).all()


def test_asam_is_blind_to_a_rescaling_that_the_loss_does_not_see():
    # The loss depends on a * b: (a, b) and (2 a, b / 2) are one model, and go one way uphill.
    def product(params):
        a, b = params["w"][0], params["w"][1]
        return jax.value_and_grad(lambda p: (p["w"][0] * p["w"][1] - 3.0) ** 2)(
            {"w": jnp.stack([a, b])}
        )

    def sharpened(start):
        params = {"w": jnp.asarray(start)}
        value, grads = product(params)
        seen = []
        spy = optim.sgd()._replace(
            update=lambda g, s, p, lr, objective=None: (seen.append(objective.value), (g, s))[1]
        )
        optim.asam(spy, eta=0.0).update(grads, (), params, LR, Objective(value, product))
        return seen[0]

    np.testing.assert_allclose(sharpened([1.0, 2.0]), sharpened([2.0, 1.0]), rtol=1e-6)


def test_training_under_an_average_is_training():
    for wrap in (part(optim.ema, decay=0.9), part(optim.swa, start=5)):
        np.testing.assert_array_equal(run(wrap(optim.adam())), run(optim.adam()))


def test_before_the_first_update_the_weights_are_the_parameters():
    params = {"w": jnp.asarray(START, jnp.bfloat16)}
    for optimizer in (
        optim.ema(optim.sgd()), optim.swa(optim.sgd(), start=1), optim.lookahead(optim.sgd()),
        optim.schedule_free_sgd(), optim.master_weights(optim.sgd()),
    ):  # fmt: skip
        weights = optimizer.weights(optimizer.init(params), params)
        assert weights["w"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.float32(weights["w"]), np.float32(params["w"]))


def test_typed_keys_may_be_part_of_a_state_that_is_chosen():
    one, other = jax.random.key(1), jax.random.key(2)
    chosen = tree_where(jnp.array(False), {"key": one}, {"key": other})["key"]
    assert_same_bits(jax.random.key_data(chosen), jax.random.key_data(other))
