"""Optimizers against float64 twins of their papers, and the properties that define them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from fnn.optim._base import bias_correction, decay_weights, moving_average
from tests import registry
from tests.optim_runs import GRADS, LR, START, STEPS, adam_twin, expect_updates, mean, run
from tests.shapes import unchecked


def momentum_twin(g, p, t, memory, mu=0.9, ahead=False):
    memory["v"] = mu * memory.get("v", 0) + g
    return g + mu * memory["v"] if ahead else memory["v"]


def rmsprop_twin(g, p, t, memory, rho=0.9, eps=1e-8):
    return g / (np.sqrt(mean(memory, "v", rho, g**2)) + eps)


def lion_twin(g, p, t, memory, b1=0.9, b2=0.99, decay=0.0):
    m = memory.get("m", 0)
    mean(memory, "m", b2, g)
    return np.sign(b1 * m + (1 - b1) * g) + decay * p


part = functools.partial
TWINS = [
    (optim.sgd(), lambda g, p, t, memory: g),
    (optim.sgd(momentum=0.9), momentum_twin),
    (optim.sgd(momentum=0.5), part(momentum_twin, mu=0.5)),
    (optim.sgd(momentum=0.9, nesterov=True), part(momentum_twin, ahead=True)),
    (optim.rmsprop(), rmsprop_twin),
    (optim.rmsprop(decay=0.99, eps=0.1), part(rmsprop_twin, rho=0.99, eps=0.1)),
    (optim.adam(), adam_twin),
    (optim.adam(b1=0.8, b2=0.99999, eps=0.1), part(adam_twin, b1=0.8, b2=0.99999, eps=0.1)),
    (optim.adamw(weight_decay=0.1), part(adam_twin, decay=0.1)),
    (optim.lion(), lion_twin),
    (optim.lion(b1=0.7, weight_decay=0.3), part(lion_twin, b1=0.7, decay=0.3)),
]
NAMES = [
    "sgd", "momentum", "momentum 0.5", "nesterov", "rmsprop", "rmsprop with a large eps", "adam",
    "adam with a long memory", "adamw", "lion", "lion with decay",
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "twin"), TWINS, ids=NAMES)
def test_fifty_updates_are_those_of_the_paper(optimizer, twin):
    expect_updates(optimizer, twin)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_that_is_an_array_of_0_is_gradient_descent(nesterov):
    traced = optim.sgd(momentum=jnp.float32(0), nesterov=nesterov)
    np.testing.assert_array_equal(run(traced), run(optim.sgd()))


@pytest.mark.parametrize("zero", [0, 0.0])
def test_without_momentum_there_is_no_state(zero):
    params = {"w": jnp.ones(3)}
    assert optim.sgd(momentum=zero).init(params) == optim.sgd().init(params) == ()
    velocity = optim.sgd(momentum=jnp.float32(0)).init(params).v
    np.testing.assert_array_equal(velocity["w"], np.zeros(3))


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match="sgd: expected momentum above 0 .* got 0; pass momentum="):
        optim.sgd(nesterov=True)


def test_gradient_descent_is_linear_in_the_rate_and_the_gradient():
    moved = run(optim.sgd(), lr=0.5) - START
    np.testing.assert_allclose(run(optim.sgd(), grads=2 * GRADS, lr=0.25) - START, moved, rtol=1e-6)


def test_adam_without_memory_steps_by_the_sign():
    updates = np.diff(run(optim.adam(b1=0.0, b2=0.0, eps=0.0)), axis=0)
    np.testing.assert_allclose(updates, -LR * np.sign(GRADS[1:]), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_first_step_of_adam_is_the_sign_of_the_gradient_of_any_size(scale):
    first = run(optim.adam(), grads=scale * GRADS[:1], start=np.zeros(4, np.float32))[0]
    # eps is 1e-8 against gradients of 1e-4 and more.
    np.testing.assert_allclose(first, -LR * np.sign(GRADS[0]), rtol=2e-4)


def test_a_step_of_adam_has_a_limit():
    b1, b2 = 0.9, 0.999
    rare = np.zeros((STEPS, 4), np.float32)
    rare[-1] = 1e3  # the worst case: one gradient after many zeros
    updates = np.diff(
        run(optim.adam(b1=b1, b2=b2), grads=rare, start=np.zeros(4, np.float32)), axis=0
    )
    limit = LR * max(1, (1 - b1) / math.sqrt(1 - b2))
    assert 0 < np.abs(updates).max() <= limit * (1 + 1e-5)


def test_a_step_of_lion_is_the_rate_or_nothing():
    optimizer, params = optim.lion(), {"w": jnp.zeros(3)}
    state = optimizer.init(params)
    updates, _ = optimizer.update({"w": jnp.array([5.0, 0.0, -1e-3])}, state, params, LR)
    np.testing.assert_array_equal(updates["w"], np.float32([-LR, 0, LR]))


def first_update(optimizer, params, grads, lr=LR):
    return optimizer.update(grads, optimizer.init(params), params, lr)[0]


@pytest.mark.parametrize(
    "make", [part(optim.adamw, weight_decay=0.2), part(optim.lion, weight_decay=0.2)]
)
def test_decay_without_a_gradient_shrinks_the_marked_leaves_alone(make):
    params = {"kernel": jnp.array([2.0, -3.0]), "bias": jnp.array([5.0])}
    zeros = jax.tree.map(jnp.zeros_like, params)
    both = first_update(make(), params, zeros)
    marked = first_update(make(mask=tree.matching("kernel")), params, zeros)
    np.testing.assert_allclose(both["kernel"], -LR * 0.2 * params["kernel"], rtol=1e-6)
    np.testing.assert_allclose(both["bias"], -LR * 0.2 * params["bias"], rtol=1e-6)
    np.testing.assert_array_equal(marked["kernel"], both["kernel"])
    np.testing.assert_array_equal(marked["bias"], [0])


@pytest.mark.parametrize("row", registry.OPTIMIZERS, ids=lambda row: row.name)
def test_gradients_of_another_shape_or_structure_are_refused(row):
    optimizer = row.make(**row.scalars)
    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    state = optimizer.init(params)
    with pytest.raises(
        ValueError, match=r"params and grads.*differ:\n  kernel: expected float32\[2,2\]"
    ):
        optimizer.update({**params, "kernel": jnp.zeros((2, 1))}, state, params, LR)
    with pytest.raises(ValueError, match=r"params and grads.*differ:\n  bias: .* got no such leaf"):
        optimizer.update({"kernel": params["kernel"]}, state, params, LR)


def expect_exact_correction(correction, b, t):
    step = jnp.float32(t)
    plain = correction(b, step)
    # Three roundings of 6e-8: the logarithm, its product with t, the result.
    np.testing.assert_allclose(plain, -math.expm1(t * math.log(b)), rtol=3e-7)
    traced = jax.jit(lambda b: correction(b, step))(jnp.float32(b))
    rounded = float(np.float32(b))  # what the traced function was given
    np.testing.assert_allclose(traced, -math.expm1(t * math.log(rounded)), rtol=3e-7)


@pytest.mark.parametrize("b", [0.9, 0.999, 0.99999])
@pytest.mark.parametrize("t", [1, 2, 100, 10_000])
def test_the_correction_of_a_young_mean_is_exact(b, t):
    expect_exact_correction(bias_correction, b, t)


@pytest.mark.parametrize("b", [0, 0.0, jnp.float32(0)])
def test_a_mean_without_memory_needs_no_correction(b):
    assert bias_correction(b, jnp.float32(1)) == 1


def test_a_moving_average_keeps_the_dtype_of_what_it_moves():
    moved = moving_average(jnp.float32(0.75), jnp.zeros(2), jnp.full(2, 4.0))
    assert moved.tolist() == [1, 1]
    assert decay_weights({"w": jnp.zeros(1)}, {"w": jnp.ones(1, jnp.bfloat16)}, 0.5, None)[
        "w"
    ].dtype == jnp.float32  # fmt: skip


def clip(max_norm, grads):
    return optim.clip_by_global_norm(max_norm).update(grads, (), {})[0]


TWO = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}


def test_clipping_keeps_the_direction_and_limits_the_norm():
    clipped = clip(2.0, TWO)
    np.testing.assert_allclose(tree.global_norm(clipped), 2.0, rtol=1e-6)
    jax.tree.map(lambda c, g: np.testing.assert_allclose(c, g * 0.4, rtol=1e-6), clipped, TWO)


@pytest.mark.parametrize("max_norm", [5.0, 6.0, 1e9])
def test_below_the_limit_clipping_is_bitwise_the_identity(max_norm):
    jax.tree.map(np.testing.assert_array_equal, clip(max_norm, TWO), TWO)


@pytest.mark.slow
def test_clipping_zero_gradients_is_safe_and_has_a_finite_slope():
    zeros = jax.tree.map(jnp.zeros_like, TWO)
    jax.tree.map(np.testing.assert_array_equal, clip(1.0, zeros), zeros)
    slope = jax.grad(lambda g: tree.squared_norms(clip(1.0, g))[0])(zeros)
    assert tree.all_finite(slope)


def test_a_gradient_that_is_not_finite_stays_so():
    for bad in (jnp.nan, jnp.inf):
        assert not tree.all_finite(clip(1.0, {"a": jnp.array([1.0, bad])}))


def test_clipping_by_value_clips_each_element():
    grads = {"w": jnp.array([-3.0, 0.2, 0.5])}
    assert optim.clip_by_value(0.5).update(grads, (), {})[0]["w"].tolist() == [
        -0.5,
        np.float32(0.2),
        0.5,
    ]


def test_clipping_by_value_takes_a_traced_limit_and_bfloat16():
    cut = jax.jit(lambda limit, g: optim.clip_by_value(limit).update({"w": g}, (), {})[0]["w"])
    assert cut(jnp.float32(0.5), jnp.array([2.0], jnp.bfloat16)).tolist() == [0.5]


def test_a_chain_is_its_parts_one_after_another():
    chain = optim.chain(
        optim.clip_by_value(0.5), optim.clip_by_global_norm(0.6), optim.sgd(momentum=0.9)
    )
    by_hand = np.clip(GRADS.astype(np.float64), -0.5, 0.5)
    by_hand *= np.minimum(1, 0.6 / np.linalg.norm(by_hand, axis=1, keepdims=True))
    expected = run(optim.sgd(momentum=0.9), grads=by_hand.astype(np.float32))
    np.testing.assert_allclose(run(chain), expected, atol=2e-6)


def test_a_chain_of_transforms_is_a_transform():
    clips = optim.chain(optim.clip_by_value(0.5), optim.clip_by_global_norm(0.6))
    assert type(clips) is type(optim.clip_by_value(1.0))
    np.testing.assert_allclose(
        run(optim.chain(clips, optim.sgd())),
        run(optim.chain(optim.clip_by_value(0.5), optim.clip_by_global_norm(0.6), optim.sgd())),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        ((), r"\[\]"),
        ((optim.sgd(), optim.clip_by_value(1.0)), r"\['Optimizer', 'Transform'\]"),
        ((optim.sgd(), optim.adam()), r"\['Optimizer', 'Optimizer'\]"),
    ],
)
def test_a_chain_wants_transforms_and_then_one_optimizer(parts, got):
    with pytest.raises(ValueError, match=f"chain: expected transforms, .* got {got}; move"):
        optim.chain(*parts)


def test_a_chain_refuses_what_is_neither():
    with pytest.raises(ValueError, match="chain: expected transforms"):
        unchecked(optim.chain)(jnp.sin, optim.sgd())
