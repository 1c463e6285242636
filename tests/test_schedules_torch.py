"""Schedules against those of torch, stepped one by one, and the differences in definition."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from fnn import schedules
from tests.test_plateau import LOSSES, factors
from tests.test_schedules import STEPS, lrs

PEERS = {
    "step_decay": (
        schedules.step_decay(0.8, factor=0.7, every_steps=41),
        lambda opt: lr_scheduler.StepLR(opt, 41, 0.7),
    ),
    "multi_step": (
        schedules.multi_step(0.8, factor=0.7, boundaries=[20, 50]),
        lambda opt: lr_scheduler.MultiStepLR(opt, [20, 50], 0.7),
    ),
    "exponential_decay": (
        schedules.exponential_decay(0.8, factor=0.97, every_steps=1),
        lambda opt: lr_scheduler.ExponentialLR(opt, 0.97),
    ),
    "linear": (
        schedules.linear(0.4, end=0.8, total_steps=30),
        lambda opt: lr_scheduler.LinearLR(opt, 0.5, 1.0, 30),
    ),
    "polynomial": (
        schedules.polynomial(0.8, total_steps=90, power=3),
        lambda opt: lr_scheduler.PolynomialLR(opt, 90, 3),
    ),
    "cosine_restarts": (
        schedules.cosine_restarts(0.8, first_steps=9, growth=2, end=0.1),
        lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 9, 2, 0.1),
    ),
    "cyclic": (
        schedules.cyclic(0.1, high=0.8, half_steps=7),
        lambda opt: lr_scheduler.CyclicLR(opt, 0.1, 0.8, 7, cycle_momentum=False),
    ),
    "cyclic_halving": (
        schedules.cyclic_halving(0.1, high=0.8, half_steps=7),
        lambda opt: lr_scheduler.CyclicLR(
            opt, 0.1, 0.8, 7, mode="triangular2", cycle_momentum=False
        ),
    ),
    "cyclic_exponential": (
        schedules.cyclic_exponential(0.1, high=0.8, half_steps=7, factor=0.97),
        lambda opt: lr_scheduler.CyclicLR(
            opt, 0.1, 0.8, 7, mode="exp_range", gamma=0.97, cycle_momentum=False
        ),
    ),
}


def stepped(make, steps):
    """What torch's optimizer has at each step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.8, momentum=0.9)
    scheduler, values = make(optimizer), []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("name", PEERS)
def test_every_step_is_that_of_torch(name):
    ours, theirs = PEERS[name]
    expected = stepped(theirs, len(STEPS))
    np.testing.assert_allclose(lrs(ours), expected, rtol=0, atol=1e-6)


def test_a_cosine_is_that_of_torch_until_its_end_where_torch_rises_again():
    ours = lrs(schedules.cosine(0.8, total_steps=60, end=0.1))
    theirs = stepped(lambda opt: lr_scheduler.CosineAnnealingLR(opt, 60, 0.1), len(STEPS))
    np.testing.assert_allclose(ours[:61], theirs[:61], rtol=0, atol=1e-6)
    assert theirs[120] > 0.7 and ours[120] == np.float32(0.1)


def test_one_cycle_is_that_of_torch_with_its_ends_a_step_earlier():
    steps, share = 100, 0.3

    def make(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 0.8, total_steps=steps, pct_start=share)

    same = dict(total_steps=steps - 1, warmup_fraction=(share * steps - 1) / (steps - 1))
    rate, momentum = schedules.one_cycle(0.8, **same), schedules.one_cycle_momentum(**same)
    theirs = torch_one_cycle(make, steps)
    np.testing.assert_allclose(lrs(rate, np.arange(steps)), theirs[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(lrs(momentum, np.arange(steps)), theirs[1], rtol=0, atol=1e-6)
    plain = lrs(schedules.one_cycle(0.8, total_steps=steps), np.arange(steps))
    assert plain.argmax() == 30 and np.argmax(theirs[0]) == 29


def torch_one_cycle(make, steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.8, momentum=0.9)
    scheduler, values = make(optimizer), []
    for step in range(steps):
        group = optimizer.param_groups[0]
        values.append((group["lr"], group["momentum"]))
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return np.array(values).T


@pytest.mark.sampled(2)
@pytest.mark.parametrize("patience", [0, 2, 5])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_a_plateau_is_that_of_torch(patience, cooldown):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    arguments = dict(factor=0.7, cooldown=cooldown)
    peer = lr_scheduler.ReduceLROnPlateau(
        optimizer, **arguments, patience=patience, threshold=0.05, min_lr=0.05
    )
    expected = []
    for loss in LOSSES:
        peer.step(float(jnp.float32(loss)))
        expected.append(optimizer.param_groups[0]["lr"])
    ours = schedules.reduce_on_plateau(**arguments, patience=patience, rtol=0.05, least=0.05)
    np.testing.assert_allclose(factors(ours, LOSSES), expected, rtol=1e-5)
