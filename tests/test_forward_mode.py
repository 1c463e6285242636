"""Derivatives of whole runs in forward mode: those of reverse mode, in memory without steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules
from fnn.recipe import Recipe
from fnn.train import make_run
from fnn.types import Batch, Data
from tests.registry.rows import integers, normal
from tests.tiny import BATCH, DATA

STEPS = 12


def halves(x, y):
    n = len(x) // 2
    return Data(train=Batch(x[:n], y[:n]), valid=Batch(x[n:], y[n:]))


MODELS = {
    "mlp": (
        lambda rate: models.mlp.mlp(models.mlp.MLPConfig(widths=(8, 8), out_features=2), rate=rate),
        DATA,
    ),
    "cnn": (
        lambda rate: models.cnn.cnn(
            models.cnn.CNNConfig(stages=((4,), (8,)), out_features=3), rate=rate
        ),
        halves(normal(24, 8, 8, 1), integers(24, below=3)),
    ),
    "transformer": (
        lambda rate: models.gpt.gpt(
            models.gpt.gpt2(vocab_size=7, max_length=6, features=8, num_layers=1, num_heads=2),
            rate=rate,
        ),
        halves(integers(24, 6, below=7), integers(24, 6, below=7, seed=1)),
    ),
}
HYPER = {"lr": 0.01, "warmup_steps": 3.5, "weight_decay": 0.1, "b1": 0.8, "eps": 1e-3, "rate": 0.1}


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MODELS)
def test_every_hypergradient_of_forward_mode_is_that_of_reverse_mode(name):
    make, data = MODELS[name]

    def recipe(hyper):
        return Recipe(
            model=make(hyper["rate"]),
            loss=losses.cross_entropy,
            optimizer=optim.adamw(
                weight_decay=hyper["weight_decay"], b1=hyper["b1"], eps=hyper["eps"]
            ),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=hyper["warmup_steps"], total_steps=STEPS
            ),
        )

    run = make_run(recipe, steps=STEPS, batch_size=6)

    def final(hyper):
        return run(jax.random.key(0), hyper, data)[1].valid["loss"][-1]

    hyper = jax.tree.map(jnp.float32, HYPER)
    forward, reverse = jax.jit(jax.jacfwd(final))(hyper), jax.jit(jax.grad(final))(hyper)
    for leaf in hyper:
        assert forward[leaf] != 0, leaf
        # Roundings of 6e-8, which twelve steps of training amplify.
        np.testing.assert_allclose(forward[leaf], reverse[leaf], rtol=2e-3, err_msg=leaf)


def temporary_bytes(derivative, steps):
    def recipe(hyper):
        return Recipe(
            model=nn.linear(256),
            loss=losses.cross_entropy,
            optimizer=optim.sgd(momentum=0.9),
            schedule=schedules.constant(hyper["lr"]),
            measures=(),
        )

    run = make_run(recipe, steps=steps, batch_size=BATCH)

    def final(hyper):
        return run(jax.random.key(0), hyper, DATA)[1].valid["loss"][-1]

    program = jax.jit(derivative(final)).lower({"lr": jnp.float32(0.1)}).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_the_memory_of_forward_mode_does_not_grow_with_the_steps():
    few, many = (temporary_bytes(jax.jacfwd, steps) for steps in (30, 300))
    # Beside the history: loss and lr with their tangents, in each leg and in all.
    assert many - few <= 2 * 16 * 270
    few, many = (temporary_bytes(jax.grad, steps) for steps in (30, 300))
    assert many > 5 * few
