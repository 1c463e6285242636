"""The optimizers against Optax and PyTorch: with a schedule, decay and clipping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import torch

from fnn import optim, schedules
from tests.optim_runs import GRADS, LR, START, STEPS, apart, mean, run, run_twin
from tests.test_optim_adaptive import adan_twin, amsgrad_twin, radam_twin

torch.set_num_threads(1)
part = functools.partial
SCHEDULE = schedules.warmup_cosine(LR, warmup_steps=5, total_steps=STEPS, start=0.01)
RATES = np.array([SCHEDULE(t).item() for t in range(STEPS)], np.float32)
MAX_NORM = 1.5  # between the smallest and the largest norm of GRADS


def run_optax(transformation, lr=RATES):
    """Parameters after every update of a transformation whose learning rate is 1."""

    def step(carry, inputs):
        (params, state), (g, rate) = carry, inputs
        updates, state = transformation.update(g, state, params)
        params = params + rate * updates
        return (params, state), params

    with jax.numpy_dtype_promotion("standard"):
        start = jnp.asarray(START)
        rates = jnp.broadcast_to(jnp.asarray(lr, jnp.float32), STEPS)
        scan = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs)[1])
        return np.asarray(scan((start, transformation.init(start)), (jnp.asarray(GRADS), rates)))


def run_torch(make, lr=RATES, max_norm=None):
    """Parameters after every update of the optimizer `make([parameter])`."""
    p = torch.nn.Parameter(torch.tensor(START))
    optimizer, path = make([p]), []
    for g, rate in zip(GRADS, np.broadcast_to(lr, STEPS), strict=True):
        p.grad = torch.tensor(g)
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([p], max_norm)
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.step()
        path.append(p.detach().numpy().copy())
    return np.stack(path)


def expect_close(got, expected):
    # Two float32 runs, each within 2e-6 of the exact one, and the peers' corrections of the moments
    # lose digits at the first steps (1 - 0.999^t in float32).
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def clipped(optimizer):
    return optim.chain(optim.clip_by_global_norm(MAX_NORM), optimizer)


OPTAX = {
    "sgd": (optim.sgd(), optax.sgd(1.0)),
    "momentum": (optim.sgd(momentum=0.9), optax.sgd(1.0, momentum=0.9)),
    "nesterov": (
        optim.sgd(momentum=0.9, nesterov=True),
        optax.sgd(1.0, momentum=0.9, nesterov=True),
    ),
    "rmsprop": (optim.rmsprop(), optax.rmsprop(1.0, eps_in_sqrt=False)),
    "adam": (optim.adam(), optax.adam(1.0)),
    "adamw": (optim.adamw(weight_decay=0.1), optax.adamw(1.0, weight_decay=0.1)),
    "lion": (optim.lion(weight_decay=0.3), optax.lion(1.0, weight_decay=0.3)),
    "sign_sgd": (optim.sign_sgd(), optax.sign_sgd(1.0)),
    "signum": (optim.signum(), optax.signum(1.0)),
    "adagrad": (optim.adagrad(start=0.1), optax.adagrad(1.0)),
    "adadelta": (optim.adadelta(), optax.adadelta(1.0)),
    "nadam": (optim.nadam(), optax.nadam(1.0)),
    "nadamw": (optim.nadamw(weight_decay=0.1), optax.nadamw(1.0, weight_decay=0.1)),
    # With b2 = 0.999 Optax loses the digits of rho: see below.
    "radam": (optim.radam(b2=0.9), optax.radam(1.0, b2=0.9)),
    "adamax": (optim.adamax(), optax.adamax(1.0)),
    "adamaxw": (optim.adamax(weight_decay=0.1), optax.adamaxw(1.0, weight_decay=0.1)),
    "adabelief": (optim.adabelief(), optax.adabelief(1.0)),
    "yogi": (optim.yogi(), optax.yogi(1.0)),
    "ademamix": (
        optim.contrib.ademamix(alpha=8.0, weight_decay=0.1),
        optax.contrib.ademamix(1.0, alpha=8.0, weight_decay=0.1),
    ),
    "adopt": (optim.contrib.adopt(), optax.contrib.adopt(1.0)),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", OPTAX)
def test_fifty_clipped_updates_are_those_of_optax(name):
    optimizer, transformation = OPTAX[name]
    reference = optax.chain(optax.clip_by_global_norm(MAX_NORM), transformation)
    expect_close(run(clipped(optimizer), lr=RATES), run_optax(reference))


TORCH = {
    "sgd": (optim.sgd(), torch.optim.SGD),
    "momentum": (optim.sgd(momentum=0.9), part(torch.optim.SGD, momentum=0.9)),
    "nesterov": (
        optim.sgd(momentum=0.9, nesterov=True),
        part(torch.optim.SGD, momentum=0.9, nesterov=True),
    ),
    "rmsprop": (optim.rmsprop(decay=0.99), torch.optim.RMSprop),
    "adam": (optim.adam(), torch.optim.Adam),
    "adamw": (optim.adamw(weight_decay=0.1), part(torch.optim.AdamW, weight_decay=0.1)),
    "adagrad": (optim.adagrad(), torch.optim.Adagrad),
    "adadelta": (optim.adadelta(), torch.optim.Adadelta),
    "radam": (optim.radam(), torch.optim.RAdam),
    "adamax": (optim.adamax(), torch.optim.Adamax),
    "amsgrad": (optim.amsgrad(), part(torch.optim.Adam, amsgrad=True)),
    # Its momentum grows with the time constant 1 / momentum_decay; so it is constant.
    "nadam": (optim.nadam(), part(torch.optim.NAdam, momentum_decay=1e6)),
    "nadamw": (
        optim.nadamw(weight_decay=0.1),
        part(torch.optim.NAdam, momentum_decay=1e6, weight_decay=0.1, decoupled_weight_decay=True),
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", TORCH)
def test_fifty_clipped_updates_are_those_of_torch(name):
    optimizer, make = TORCH[name]
    expect_close(run(clipped(optimizer), lr=RATES), run_torch(make, max_norm=MAX_NORM))


def test_rprop_is_that_of_torch_with_limits_in_units_of_lr():
    # A constant lr: torch keeps the sizes of the steps, and looks at lr only once.
    make = part(torch.optim.Rprop, lr=LR, etas=(0.6, 1.4), step_sizes=(0.03, 0.2))
    ours = optim.rprop(shrink=0.6, grow=1.4, min_scale=0.3, max_scale=2.0)
    expect_close(run(ours, lr=LR), run_torch(make, lr=LR))


def test_rprop_of_optax_is_a_step_late():
    ours = np.diff(run(optim.rprop(), lr=LR), axis=0, prepend=START[None])
    turned = ours == 0
    late = np.concatenate([np.zeros_like(START)[None], ours[:-1]])
    theirs = run_optax(optax.rprop(LR), lr=1.0)
    expect_close(START + np.cumsum(np.where(turned, 0, late), axis=0), theirs)
    assert apart(run(optim.rprop(), lr=LR), theirs) > 1e-2


def amsgrad_of_optax(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8):
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, g**2) / (1 - b2**t)
    memory["largest"] = np.maximum(memory.get("largest", 0), v)
    return m / (np.sqrt(memory["largest"]) + eps)


def test_amsgrad_of_optax_takes_the_maximum_of_the_corrected_moment():
    theirs = run_optax(optax.amsgrad(1.0), lr=LR)
    expect_close(run_twin(amsgrad_of_optax), theirs)
    assert apart(run_twin(amsgrad_twin), theirs) > 1e-2


def nadam_of_torch(g, p, t, memory, b1=0.9, b2=0.999, eps=1e-8, growth=4e-3):
    now, following = (b1 * (1 - 0.5 * 0.96 ** (s * growth)) for s in (t, t + 1))
    memory["product"] = memory.get("product", 1) * now
    m, v = mean(memory, "m", b1, g), mean(memory, "v", b2, g**2) / (1 - b2**t)
    ahead = following * m / (1 - memory["product"] * following)
    return (ahead + (1 - now) * g / (1 - memory["product"])) / (np.sqrt(v) + eps)


def test_nadam_of_torch_begins_with_half_the_momentum():
    theirs = run_torch(torch.optim.NAdam, lr=LR)
    expect_close(run_twin(nadam_of_torch), theirs)
    assert apart(run(optim.nadam(), lr=LR), theirs) > 1e-2


def test_the_sum_of_adagrad_starts_at_0_in_torch_and_at_a_tenth_in_optax():
    theirs = run_optax(optax.adagrad(1.0), lr=LR)
    assert apart(run(optim.adagrad(), lr=LR), theirs) > 1e-3
    start = part(torch.optim.Adagrad, initial_accumulator_value=0.1)
    expect_close(run(optim.adagrad(start=0.1), lr=LR), run_torch(start, lr=LR))


def adan_of_optax(g, p, t, memory, b1=0.98, b2=0.92, b3=0.99, eps=1e-8):
    change = g - memory.get("last", g)
    memory["last"] = g
    m, v = mean(memory, "m", b1, g) / (1 - b1**t), mean(memory, "v", b2, change) / (1 - b2**t)
    n = mean(memory, "n", b3, (g + (1 - b2) * change) ** 2) / (1 - b3**t)
    return (m + (1 - b2) * v) / (np.sqrt(n + eps) + eps)


def test_adan_of_optax_weighs_the_change_by_what_the_paper_takes_from_one():
    theirs = run_optax(optax.adan(1.0), lr=LR)
    expect_close(run_twin(adan_of_optax), theirs)
    assert apart(run_twin(adan_twin), theirs) > 1e-2


def test_yogi_of_optax_moves_where_the_gradient_is_zero():
    zeros, theirs, ours = jnp.zeros(1), optax.yogi(1.0), optim.yogi()
    with jax.numpy_dtype_promotion("standard"):
        assert theirs.update(zeros, theirs.init(zeros), zeros)[0] != 0
    assert ours.update({"w": zeros}, ours.init({"w": zeros}), {"w": zeros}, 1.0)[0]["w"] == 0


def test_radam_of_optax_rectifies_with_few_digits_where_b2_is_near_one():
    expected = run_twin(part(radam_twin, b2=0.9999))
    assert apart(run_optax(optax.radam(1.0, b2=0.9999), lr=LR), expected) > 1e-4
    assert apart(run(optim.radam(b2=0.9999), lr=LR), expected) < 2e-6


def test_rmsprop_of_optax_has_eps_inside_the_root():
    theirs = run_optax(optax.rmsprop(1.0, eps=0.1), lr=LR)
    assert apart(run(optim.rmsprop(eps=0.1), lr=LR), theirs) > 1e-2


def test_ademamix_takes_the_schedules_that_optax_is_given():
    length = 30

    def log_b3(t):
        s = jnp.minimum((t + 1) / length, 1)
        return 1 / ((1 - s) / np.log(0.9) + s / np.log(0.999))

    theirs = optax.contrib.ademamix(
        1.0,
        b3=lambda t: jnp.exp(log_b3(t)),
        alpha=lambda t: 5.0 * jnp.minimum((t + 1) / length, 1),
    )
    expect_close(
        run(optim.contrib.ademamix(b3=0.999, warmup_steps=length), lr=LR), run_optax(theirs, LR)
    )
