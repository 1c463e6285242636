"""The optimizers of `fnn.optim.contrib` against Optax, on matrices and vectors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from fnn import optim
from fnn.optim import contrib
from tests import contrib_twins as twins
from tests.contrib_twins import START, apart, run, run_twin
from tests.test_optim_contrib import ORIGIN, run_ours

part = functools.partial
ONLY_SQUARE = {"bias", "square"}


def run_optax(transformation, lr=1.0, *, with_loss=False, **given):
    """With `lr` times the updates of a transformation whose learning rate is 1."""

    def update(grads, state, params, objective):
        extra = {"value": objective.value} if with_loss else {}
        updates, state = transformation.update(grads, state, params, **extra)
        return jax.tree.map(lambda u: (lr * u).astype(u.dtype), updates), state

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return run(update, transformation.init, **given)


# Optimizer, transformation, lr of the optimizer, factor on the transformation's updates.
OPTAX = {
    "cocob": (contrib.cocob(), optax.contrib.cocob(), 1.0, 1.0),
    "cocob, other": (
        contrib.cocob(alpha=5.0, eps=0.5), optax.contrib.cocob(0.3, alpha=5.0, eps=0.5), 0.3, 1.0
    ),
    "cocob with decay": (
        optim.chain(optim.add_l2(0.1), contrib.cocob(alpha=5.0)),
        optax.contrib.cocob(alpha=5.0, weight_decay=0.1),
        1.0,
        1.0,
    ),
    "dog": (contrib.dog(), optax.contrib.dog(), 1.0, 1.0),
    "dog, other": (
        optim.chain(optim.add_l2(0.1), contrib.dog(relative_distance=0.05, eps=0.1)),
        optax.contrib.dog(0.7, ("heuristic", 0.05), eps=0.1, weight_decay=0.1),
        0.7,
        1.0,
    ),
    "dowg": (contrib.dowg(), optax.contrib.dowg(), 1.0, 1.0),
    "dowg, other": (
        optim.chain(optim.add_l2(0.1), contrib.dowg(first_distance=0.2, eps=0.1)),
        optax.contrib.dowg(0.7, 0.2**2, eps=0.1, weight_decay=0.1),
        0.7,
        1.0,
    ),
    "fromage": (contrib.fromage(), optax.fromage(0.01), 0.01, 1.0),
    "fromage with a large least norm": (
        contrib.fromage(min_norm=2.5), optax.fromage(0.1, 2.5), 0.1, 1.0
    ),
    # Optax recomputes the offset by a division by sum(s) + eps.
    "mechanize": (
        contrib.mechanize(optim.sgd(), first_scale=0.01),
        optax.contrib.mechanize(optax.sgd(1.0), s_init=0.01),
        1.0,
        1.0,
    ),
    "mechanize, other": (
        contrib.mechanize(
            optim.adam(b1=0.8), first_scale=0.05, weight_decay=0.1, eps=1e-9, num_betas=3
        ),
        optax.contrib.mechanize(
            optax.adam(0.1, b1=0.8), s_init=0.05, weight_decay=0.1, eps=1e-9, num_betas=3
        ),
        0.1,
        1.0,
    ),
    "novograd": (contrib.novograd(), optax.novograd(1.0), 0.05, 0.05),
    "novograd, other": (
        contrib.novograd(b1=0.5, b2=0.9, eps=0.1, weight_decay=0.1),
        optax.novograd(1.0, b1=0.5, b2=0.9, eps=0.1, weight_decay=0.1),
        0.1,
        0.1,
    ),
    "optimistic_adam": (
        contrib.optimistic_adam(), optax.optimistic_adam_v2(1.0, nesterov=False), 0.1, 0.1
    ),
    "optimistic_adam, other": (
        contrib.optimistic_adam(b1=0.5, b2=0.9, eps=0.1, alpha=0.7, beta=1.5),
        optax.optimistic_adam_v2(
            1.0, b1=0.5, b2=0.9, eps=0.1, alpha=0.7, beta=1.5, nesterov=False
        ),
        0.1,
        0.1,
    ),
    "optimistic_gradient_descent": (
        contrib.optimistic_gradient_descent(), optax.optimistic_gradient_descent(1.0), 0.1, 0.1
    ),
    "optimistic_gradient_descent, other": (
        contrib.optimistic_gradient_descent(alpha=0.7, beta=1.5),
        optax.optimistic_gradient_descent(1.0, 0.7, 1.5),
        0.1,
        0.1,
    ),
    "simplified_ademamix": (
        contrib.simplified_ademamix(), optax.contrib.simplified_ademamix(1.0), 0.001, 0.001
    ),
    "simplified_ademamix, other": (
        contrib.simplified_ademamix(b1=0.9, b2=0.8, alpha=3.0, eps=0.1, weight_decay=0.1),
        optax.contrib.simplified_ademamix(
            1.0, b1=0.9, b2=0.8, alpha=3.0, eps=0.1, weight_decay=0.1
        ),
        0.01,
        0.01,
    ),
    "sm3": (contrib.sm3(), optax.sm3(1.0), 0.3, 0.3),
    "sm3, other": (contrib.sm3(momentum=0.5), optax.sm3(1.0, momentum=0.5), 0.3, 0.3),
}  # fmt: skip


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", OPTAX)
def test_fifty_updates_are_those_of_optax(name):
    ours, theirs, lr, factor = OPTAX[name]
    # Where parameters are 1, two float32 programs round the first steps of a millionth apart.
    start = ORIGIN if name in ("dog", "dowg") else START
    got, expected = run_ours(ours, lr, start=start)[0], run_optax(theirs, factor, start=start)[0]
    assert apart(got, expected) < 1e-5
    assert max(np.abs(got[n][-1] - p).max() for n, p in start.items()) > 1e-4  # they have moved


WITH_LOSS = {
    "momo": (contrib.momo(), optax.contrib.momo(), 1.0),
    "momo, other": (
        contrib.momo(beta=0.6, lower_bound=0.9), optax.contrib.momo(0.3, 0.6, 0.9), 0.3
    ),
    "momo with a bound that adapts": (
        contrib.momo(lower_bound=-3.0, adapt_bound=True),
        optax.contrib.momo(0.8, lower_bound=-3.0, adapt_lower_bound=True),
        0.8,
    ),
    "momo_adam": (contrib.momo_adam(), optax.contrib.momo_adam(0.3), 0.3),
    "momo_adam, other": (
        contrib.momo_adam(b1=0.6, b2=0.9, eps=0.1, lower_bound=0.9),
        optax.contrib.momo_adam(0.1, b1=0.6, b2=0.9, eps=0.1, lower_bound=0.9),
        0.1,
    ),
    "momo_adam with a bound that adapts": (
        contrib.momo_adam(lower_bound=-3.0, adapt_bound=True),
        optax.contrib.momo_adam(0.3, lower_bound=-3.0, adapt_lower_bound=True),
        0.3,
    ),
    "polyak_sgd": (contrib.polyak_sgd(), optax.polyak_sgd(), 1.0),
    # Optax takes the norm of what it has scaled.
    "polyak_sgd, other": (
        contrib.polyak_sgd(lower_bound=12.0, scale=0.5, eps=0.1),
        optax.polyak_sgd(0.15, 2.0, f_min=12.0, eps=0.4, variant="sps+"),
        0.3,
    ),
}  # fmt: skip


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WITH_LOSS)
def test_fifty_updates_by_the_loss_are_those_of_optax(name):
    ours, theirs, lr = WITH_LOSS[name]
    assert apart(run_ours(ours, lr)[0], run_optax(theirs, with_loss=True)[0]) < 1e-5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["momo", "momo_adam"])
def test_optax_decays_beside_the_step_of_momo_and_not_all_of_it(name):
    theirs = getattr(optax.contrib, name)(0.3, weight_decay=0.1)
    expected = run_optax(theirs, with_loss=True)[0]
    twin = part(getattr(twins, name), decay=0.1)
    assert apart(run_twin(twin(both_divided=False), 0.3), expected) < 1e-5
    ours = run_ours(getattr(contrib, name)(weight_decay=0.1), 0.3)[0]
    assert apart(ours, run_twin(twin(), 0.3)) < 1e-5
    assert apart(ours, expected) > 1e-3


def test_acprop_of_optax_centers_by_the_mean_before_the_step():
    theirs = optax.contrib.acprop(1.0, b1=0.6, b2=0.9, eps=0.01, eps_root=0.01, weight_decay=0.1)
    expected = run_optax(theirs, 0.1)[0]
    twin = part(twins.acprop, 0.6, 0.9, 0.01, 0.1)
    assert apart(run_twin(twin(old_mean=True), 0.1), expected) < 1e-5
    ours = run_ours(contrib.acprop(b1=0.6, b2=0.9, eps=0.01, weight_decay=0.1), 0.1)[0]
    assert apart(ours, run_twin(twin(), 0.1)) < 1e-5
    assert apart(ours, expected) > 1e-3


def test_without_a_mean_acprop_is_that_of_optax():
    # The mean is then the gradient itself or 0: v is eps, or the mean of the squares.
    theirs = run_optax(optax.contrib.acprop(1.0, b1=1.0, b2=0.9, eps=0.1, eps_root=0.1), 0.1)[0]
    ours = run_ours(contrib.acprop(b1=1.0, b2=0.9, eps=0.1), 0.1)[0]
    assert apart(ours, theirs) < 1e-5


def test_madgrad_is_that_of_optax_up_to_an_eps_in_the_rate():
    expected = run_optax(optax.contrib.madgrad(0.1, momentum=0.5, eps=1e-3))[0]
    twin = part(twins.madgrad, 0.5, 1e-3)
    assert apart(run_twin(twin(eps_in_lr=True), 0.1), expected) < 1e-5
    # The rate with its eps, so that the two are the same.
    ours = run_ours(contrib.madgrad(momentum=0.5, eps=1e-3), 0.1 + 1e-3)[0]
    assert apart(ours, expected) < 1e-5


def test_madgrad_with_the_gradient_of_a_penalty_is_optax_with_decay():
    ours = optim.chain(optim.add_l2(0.1), contrib.madgrad(eps=1e-8))
    theirs = optax.contrib.madgrad(0.1, weight_decay=0.1, eps=1e-8)
    assert apart(run_ours(ours, 0.1)[0], run_optax(theirs)[0]) < 1e-5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("every", [200, 7])
def test_galore_of_square_matrices_is_that_of_optax(every):
    ours = contrib.galore(optim.adam(b1=0.8), rank=2, every_steps=every, scale=0.7)
    theirs = optax.contrib.galore(1.0, 2, every, 0.7, base_optimizer=optax.scale_by_adam(b1=0.8))
    start = {n: START[n] for n in ONLY_SQUARE}
    noise = {n: twins.NOISE[n] for n in ONLY_SQUARE}
    given = dict(start=start, noise=noise)
    assert apart(run_ours(ours, 0.1, **given)[0], run_optax(theirs, 0.1, **given)[0]) < 1e-5


def test_galore_of_optax_projects_the_longer_side():
    tall = jnp.zeros((20, 7))
    ours = contrib.galore(optim.adam(), rank=2).init({"w": tall})
    theirs = optax.contrib.galore(1.0, rank=2).init({"w": tall})[0]
    assert ours.basis["w"].shape == (7, 2) and ours.inner.m["w"].shape == (20, 2)
    assert theirs.projector["w"].shape == (20, 2)


def test_the_noise_of_noisy_sgd_is_distributed_as_that_of_optax():
    params = {"w": jnp.zeros((100, 100))}
    ours = contrib.noisy_sgd(jax.random.key(0), eta=0.3, gamma=0.8)
    theirs = optax.noisy_sgd(1.0, 0.3, 0.8, jax.random.key(1))
    grads = {"w": jnp.full((100, 100), 0.5)}
    states, drawn = [ours.init(params), theirs.init(params)], []
    for _ in range(4):
        one, states[0] = ours.update(grads, states[0], params, 1.0)
        with jax.numpy_dtype_promotion("standard"):
            other, states[1] = theirs.update(grads, states[1], params)
        drawn.append([one["w"], other["w"]])
    means, deviations = (
        np.array([[f(x) for x in pair] for pair in drawn]) for f in (np.mean, np.std)
    )
    # 10,000 draws: four standard errors of the mean, and of the deviation.
    np.testing.assert_allclose(means, -0.5, atol=4 * 0.55 / 100)
    np.testing.assert_allclose(deviations[:, 0], deviations[:, 1], rtol=4 * 1.4 / 100)
    np.testing.assert_allclose(deviations[:, 0] ** 2, 0.3 / np.arange(1, 5) ** 0.8, rtol=0.06)
