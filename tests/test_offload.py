"""Optimizer states and intermediate values in host memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from fnn import Recipe, losses, nn, optim, schedules
from fnn.checkpoint import RunDir
from fnn.train import fit, make_run, silent
from fnn.train.devices import everywhere
from fnn.types import Batch, Data

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (64, 4))
DATA = Data(train=Batch(X, X[:, :1] ** 2), valid=Batch(X, X[:, :1] ** 2))
HYPER = {"lr": 0.01}


def of(optimizer):
    def recipe(hyper):
        model = nn.sequential(nn.linear(8), jnp.tanh, nn.linear(1))
        schedule = schedules.constant(hyper["lr"])
        return Recipe(model, losses.mean_squared_error, optimizer, schedule)

    return recipe


trained = partial(
    fit, data=DATA, key=KEY, hyper=HYPER, batch_size=8, eval_every=20, progress=silent
)


def kinds(state):
    return {a.sharding.memory_kind for a in jax.tree.leaves(state.opt_state) if a.ndim}


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(*jax.device_get((x, y))), a, b))


@pytest.mark.parametrize("inner", [optim.adam(), optim.ema(optim.adam(), decay=0.9)])
def test_fit_and_its_resume_are_bitwise_those_without_offload(inner, tmp_path):
    plain = trained(of(inner), steps=40)
    moved = partial(trained, of(optim.offload(inner)), store=RunDir(tmp_path))
    moved(steps=20)
    again = moved(steps=40, resume=True)
    assert kinds(plain.state) == {"device"} and kinds(again.state) == {"pinned_host"}
    assert same(again.state, plain.state)


def test_a_checkpoint_of_one_is_one_of_the_other(tmp_path):
    trained(of(optim.adam()), steps=20, store=RunDir(tmp_path))
    on = trained(of(optim.offload(optim.adam())), steps=40, store=RunDir(tmp_path), resume=True)
    assert kinds(on.state) == {"pinned_host"}
    assert same(on.state, trained(of(optim.adam()), steps=40).state)


def test_a_compiled_run_and_a_sweep_of_runs():
    runs = [
        make_run(of(o), steps=20, batch_size=8) for o in (optim.adam(), optim.offload(optim.adam()))
    ]
    lrs = {"lr": jnp.array([0.01, 0.1])}
    plain, moved = (jax.jit(jax.vmap(run, (None, 0, None)))(KEY, lrs, DATA)[0] for run in runs)
    assert kinds(moved) == {"device", "pinned_host"} and same(moved, plain)  # counts of two runs


def test_replicated_states_stay_in_their_memory():
    state = optim.offload(optim.adam()).init({"w": jnp.ones(3)})
    placed = everywhere(jax.devices()[:1], state)
    assert placed.m["w"].sharding.memory_kind == "pinned_host"


def test_offloaded_values_give_the_gradients_of_saved_ones():
    def layer(x):
        return jnp.sin(checkpoint_name(jnp.exp(x), "exp")) * x

    x = jnp.linspace(0, 1, 5)[None]
    for layers in (nn.offload("exp"), nn.offload("exp", save=("other",))):
        model = nn.remat(layer, layers)
        program = jax.jit(jax.grad(lambda x, m=model: m.apply({}, (), x)[0].sum()))
        wanted = jax.jit(jax.grad(lambda x: layer(x).sum()))(x)
        np.testing.assert_allclose(program(x), wanted, rtol=1e-6)
        assert "pinned_host" in program.lower(x).as_text() or "<host>" in str(
            jax.make_jaxpr(program)(x)
        )


def test_a_policy_needs_names():
    with pytest.raises(ValueError, match="expected the names of values to offload, got none"):
        nn.offload()
