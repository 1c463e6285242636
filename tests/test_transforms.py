"""Transforms of gradients against NumPy and Optax, and the properties that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import optim, schedules, tree
from tests.optim_runs import GRADS, START, expect_updates, run

RANDOM = np.random.default_rng(0)
SHAPES = {"scalar": (), "bias": (5,), "kernel": (6, 5), "filters": (3, 3, 4, 5)}
PARAMS = {name: jnp.float32(RANDOM.normal(size=shape)) for name, shape in SHAPES.items()}
NOISY = {name: jnp.float32(RANDOM.normal(size=shape)) for name, shape in SHAPES.items()}


def changed(transform, grads=NOISY, params=PARAMS):
    update = jax.jit(transform.update)  # one program, not one for each operation
    return update(grads, transform.init(params), params)[0]


def by_optax(transform, grads=NOISY, params=PARAMS):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return transform.update(grads, transform.init(params), params)[0]


def expect_close(one, other, rtol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), one, other)


def unit_norm(x):
    """Norm of each unit in float64, shaped to go with x."""
    axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
    return np.sqrt((np.float64(x) ** 2).sum(axis=axes, keepdims=True))


def agc_twin(g, p, clipping, eps=1e-3):
    return g * np.minimum(1, clipping * np.maximum(unit_norm(p), eps) / unit_norm(g))


@pytest.mark.parametrize("clipping", [0.01, 0.5, 1.0, 10.0])
def test_an_adaptive_clip_limits_each_unit_by_its_weights(clipping):
    got = changed(optim.adaptive_clip(clipping))
    expect_close(got, {name: agc_twin(NOISY[name], PARAMS[name], clipping) for name in SHAPES})
    if clipping == 10:
        jax.tree.map(np.testing.assert_array_equal, got, NOISY)  # nothing to clip, to the bit


def test_an_adaptive_clip_is_that_of_optax():
    expect_close(changed(optim.adaptive_clip(0.5)), by_optax(optax.adaptive_grad_clip(0.5)))


def test_an_adaptive_clip_of_three_axes_has_one_unit_an_output_where_optax_has_many():
    params, grads = ({"k": jnp.float32(RANDOM.normal(size=(2, 3, 4)))} for _ in range(2))
    ours = changed(optim.adaptive_clip(0.3), grads, params)["k"]
    theirs = by_optax(optax.adaptive_grad_clip(0.3), grads, params)["k"]
    np.testing.assert_allclose(ours, agc_twin(grads["k"], params["k"], 0.3), rtol=1e-6)
    assert np.abs(ours - theirs).max() > 0.01


@pytest.mark.parametrize("transform", [optim.adaptive_clip(0.1), optim.add_l2(0.1)])
def test_gradients_that_would_only_broadcast_are_refused(transform):
    with pytest.raises(ValueError, match=r"params and grads differ:\n  kernel: expected float32"):
        changed(transform, {**NOISY, "kernel": NOISY["kernel"][:, :1]})


def test_an_adaptive_clip_leaves_the_unmarked_and_lets_zeros_grow():
    params = jax.tree.map(jnp.zeros_like, PARAMS)
    got = changed(optim.adaptive_clip(0.1, eps=0.5, mask=tree.matching("kernel")), params=params)
    np.testing.assert_allclose(unit_norm(got["kernel"]), 0.05, rtol=1e-6)
    np.testing.assert_array_equal(got["filters"], NOISY["filters"])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("max_norm", [0.3, 1e9])
def test_a_clip_by_leaf_limits_each_leaf_by_itself(max_norm):
    def twin(g):
        return g * np.minimum(1, max_norm / np.linalg.norm(np.float64(g).ravel()))

    got = changed(optim.clip_by_leaf_norm(max_norm))
    expect_close(got, {name: twin(g) for name, g in NOISY.items()})
    loud = changed(optim.clip_by_leaf_norm(max_norm), {**NOISY, "bias": 1e6 * NOISY["bias"]})
    np.testing.assert_array_equal(loud["kernel"], got["kernel"])


def test_a_clip_by_leaf_is_the_block_clip_of_optax_times_the_root_of_the_size():
    for name, g in NOISY.items():
        theirs = by_optax(optax.clip_by_block_rms(0.3 / np.sqrt(g.size)), {name: g})
        expect_close(changed(optim.clip_by_leaf_norm(0.3), {name: g}), theirs)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "make",
    [lambda limit: optim.clip_by_leaf_norm(limit), lambda limit: optim.adaptive_clip(limit)],
    ids=["leaf", "adaptive"],
)
def test_clips_are_safe_at_zero_and_pass_on_what_is_not_finite(make):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, changed(make(0.1), zeros), zeros)

    def size(g, p):
        return tree.squared_norms(changed(make(0.1), g, p))[0]

    slope = jax.jit(jax.grad(size, argnums=(0, 1)))
    assert tree.all_finite(slope(zeros, zeros)) and tree.all_finite(slope(NOISY, zeros))
    for bad in (jnp.nan, jnp.inf):
        spoilt = changed(make(0.1), {**NOISY, "bias": NOISY["bias"].at[1].set(bad)})
        assert not tree.all_finite(spoilt["bias"]) and tree.all_finite(spoilt["kernel"])


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "transform",
    [
        optim.clip_by_leaf_norm(0.5),
        optim.adaptive_clip(0.5),
        optim.centralize(),
        optim.zero_not_finite(),
    ],
)
def test_bfloat16_gradients_stay_so_and_norms_are_in_float32(transform):
    half = jax.tree.map(lambda g: g.astype(jnp.bfloat16), NOISY)
    got = changed(transform, half)
    assert {g.dtype for g in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    wide = changed(transform, jax.tree.map(lambda g: g.astype(jnp.float32), half))
    # The factor and the product are rounded to 8 bits.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.01, atol=2e-3),
        got,
        wide,
    )


def test_centralized_gradients_have_no_mean_in_any_unit():
    got = changed(optim.centralize())
    for name in ("kernel", "filters"):
        axes = tuple(range(got[name].ndim - 1))
        np.testing.assert_allclose(got[name].mean(axes), 0, atol=1e-7)
        g = np.float64(NOISY[name])
        np.testing.assert_allclose(got[name], g - g.mean(axes, keepdims=True), atol=5e-7)
    np.testing.assert_array_equal(got["bias"], NOISY["bias"])
    expect_close(changed(optim.centralize(), got), got)  # once is enough


def test_centralizing_keeps_the_mean_weight_of_a_unit_under_gradient_descent():
    opt = optim.chain(optim.centralize(), optim.sgd())
    params = {"kernel": PARAMS["kernel"]}
    updates, _ = opt.update({"kernel": NOISY["kernel"]}, opt.init(params), params, 1.0)
    np.testing.assert_allclose(updates["kernel"].sum(0), 0, atol=1e-6)


def test_centralizing_is_that_of_optax_for_kernels_turned_round():
    turned = {"kernel": NOISY["kernel"].T}
    theirs = by_optax(optax.centralize(), turned)["kernel"].T
    np.testing.assert_allclose(changed(optim.centralize())["kernel"], theirs, atol=1e-6)
    straight = by_optax(optax.centralize())["kernel"]
    assert np.abs(changed(optim.centralize())["kernel"] - straight).max() > 0.1


def test_what_is_not_finite_becomes_zero_and_nothing_else():
    grads = {"w": jnp.array([1.0, jnp.nan, -jnp.inf, -0.0, 3e38])}
    np.testing.assert_array_equal(
        changed(optim.zero_not_finite(), grads)["w"], np.float32([1, 0, 0, 0, 3e38])
    )


def noise_of(steps, params, key=0, **settings):
    """The noise of each step, stacked."""
    transform = optim.add_noise(jax.random.key(key), **settings)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def step(state, _):
        noisy, state = transform.update(zeros, state, params)
        return state, noisy

    return jax.jit(lambda s: jax.lax.scan(step, s, None, steps)[1])(transform.init(params))


def test_noise_has_the_variances_of_the_paper_and_no_mean():
    noise = np.asarray(noise_of(10, {"w": jnp.zeros(40_000)}, eta=0.3, gamma=0.55)["w"])
    expected = np.sqrt(0.3 / (1 + np.arange(10)) ** 0.55)
    # Of 40,000 numbers: the std is known to 0.35 %, the mean to 0.5 % of it; four times that.
    np.testing.assert_allclose(noise.std(1), expected, rtol=0.014)
    assert (np.abs(noise.mean(1)) < 0.02 * expected).all()
    # Steps are independent: correlations of 40,000 pairs are 0.005.
    assert np.abs(np.corrcoef(noise) - np.eye(10)).max() < 0.025


@pytest.mark.slow
def test_noise_has_the_variances_of_optax():
    peer = optax.add_noise(0.3, 0.55, jax.random.key(1))
    zeros, theirs = {"w": jnp.zeros(40_000)}, []
    state = peer.init(zeros)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            noisy, state = peer.update(zeros, state)
            theirs.append(noisy["w"].std())
    ours = noise_of(3, zeros, eta=0.3)["w"].std(1)
    np.testing.assert_allclose(ours, np.stack(theirs), rtol=0.028)  # as above, on both sides


def test_the_noise_of_a_leaf_depends_on_key_step_and_name_alone():
    leaf = jnp.zeros((3, 2))
    noise = noise_of(2, {"a": leaf, "b": leaf})
    assert (noise["a"] != noise["b"]).all() and (noise["a"][0] != noise["a"][1]).all()
    more = noise_of(2, {"b": leaf, "c": leaf, "0": leaf})
    np.testing.assert_array_equal(more["b"], noise["b"])
    assert (noise_of(2, {"b": leaf}, key=1)["b"] != noise["b"]).all()


def test_no_noise_of_variance_zero_and_a_finite_slope_there():
    def size(eta):
        transform = optim.add_noise(jax.random.key(0), eta=eta)
        return tree.squared_norms(changed(transform))[0]

    value, slope = jax.jit(jax.value_and_grad(size))(0.0)
    np.testing.assert_allclose(value, tree.squared_norms(NOISY)[0], rtol=1e-6)
    assert jnp.isfinite(slope)


def test_l2_is_the_gradient_of_half_the_squared_norm():
    penalty = jax.grad(lambda p: 0.5 * 0.3 * tree.squared_norms(p)[0])(PARAMS)
    got = changed(optim.add_l2(0.3))
    expect_close(got, jax.tree.map(jnp.add, NOISY, penalty))
    marked = changed(optim.add_l2(0.3, mask=tree.matching("kernel")))
    np.testing.assert_array_equal(marked["kernel"], got["kernel"])
    np.testing.assert_array_equal(marked["bias"], NOISY["bias"])


def test_l2_of_bfloat16_weights_is_not_rounded_away():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    got = changed(optim.add_l2(1e-4), params, params)["w"]
    np.testing.assert_allclose(got, 1.0001, rtol=1e-6)


def adam_with(l2=0.0, decay=0.0, b1=0.9, b2=0.999, eps=1e-8):
    def direction(g, p, t, memory):
        g = g + l2 * p
        memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
        memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * g**2
        m, v = memory["m"] / (1 - b1**t), memory["v"] / (1 - b2**t)
        return m / (np.sqrt(v) + eps) + decay * p

    return direction


def test_the_two_decays_of_adam_are_their_papers():
    expect_updates(optim.chain(optim.add_l2(0.3), optim.adam()), adam_with(l2=0.3))
    expect_updates(optim.decoupled_decay(optim.adam(), 0.3), adam_with(decay=0.3))


def test_decoupled_decay_of_adam_is_adamw():
    one = run(optim.adamw(weight_decay=0.3))
    np.testing.assert_allclose(run(optim.decoupled_decay(optim.adam(), 0.3)), one, atol=4e-6)


def test_for_gradient_descent_the_two_decays_are_one():
    one = run(optim.chain(optim.add_l2(0.3), optim.sgd()))
    np.testing.assert_allclose(run(optim.decoupled_decay(optim.sgd(), 0.3)), one, atol=2e-6)


def test_decoupled_decay_shrinks_the_marked_alone():
    opt = optim.decoupled_decay(optim.sgd(), 0.5, mask=tree.matching("kernel"))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = opt.update(zeros, opt.init(PARAMS), PARAMS, 0.1)
    np.testing.assert_allclose(updates["kernel"], -0.05 * PARAMS["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], zeros["bias"])


def pipeline(optimizer, *, decay):
    """Clips, decay and a schedule, by fnn."""
    parts = [optim.clip_by_value(1.5), optim.clip_by_global_norm(1.0)]
    return optim.chain(*parts, optim.decoupled_decay(optimizer, decay))


def test_fifty_steps_with_clips_decay_and_schedule_are_those_of_optax():
    rates = 0.1 * np.linspace(1, 0, len(GRADS), dtype=np.float32)
    peer = optax.chain(
        optax.clip(1.5),
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.3),
    )

    def step(carry, inputs):
        (params, state), (g, lr) = carry, inputs
        updates, state = peer.update({"w": g}, state, params)
        params = jax.tree.map(lambda p, u: p - lr * u, params, updates)
        return (params, state), params["w"]

    params = {"w": jnp.asarray(START)}
    with jax.numpy_dtype_promotion("standard"):
        expected = jax.lax.scan(step, (params, peer.init(params)), (GRADS, rates))[1]
    got = run(pipeline(optim.adam(), decay=0.3), lr=rates)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_momentum_that_follows_a_schedule_is_the_formula():
    def twin(g, p, t, memory):
        memory["v"] = (0.9 - 0.01 * (t - 1)) * memory.get("v", 0) + g
        return memory["v"]

    falling = schedules.linear(0.9, end=0.4, total_steps=50)
    expect_updates(optim.scheduled(optim.sgd, momentum=falling), twin)


def test_a_scheduled_constant_is_the_plain_optimizer():
    fixed = optim.scheduled(optim.adam, b1=lambda step: jnp.float32(0.8))
    np.testing.assert_allclose(run(fixed), run(optim.adam(b1=0.8)), atol=4e-6)
