"""The law `supports_all_transforms` over the rows of the registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import testing
from fnn.dtypes import cast_floats
from fnn.testing._quadratic import example_params
from fnn.testing.optimizer_laws import _train
from tests import registry
from tests.registry.rows import normal

_SETS_UP = "its first update only sets up, and divides by 0 there, behind a where"

# Rows that lack a transform, each with the reason. Layers, models and losses have no exception.
EXCEPTIONS = {
    "adopt": f"second derivatives by b1 are NaN: {_SETS_UP}",
    "soap": f"second derivatives by b1 are NaN: {_SETS_UP}",
}

# One of each kind of derivative; the others take long to compile, or are made of plain operations.
QUICK_MODELS = {
    "batch_norm", "conv", "conv_transpose", "linear", "depthwise_conv", "embedding", "gru",
    "layer_norm", "linear_recurrence", "lstm", "max_pool", "moe", "rms_norm", "rnn",
    "stack with state and noise",
}  # fmt: skip
# The others are plain operations, some of them many.
QUICK_LOSSES = {
    "binary_cross_entropy", "cross_entropy", "fused_cross_entropy", "huber", "triplet",
}  # fmt: skip

# One of each kind: the others are made of the same operations.
OPTIMIZERS = {
    "adafactor", "adam", "adopt", "lbfgs", "lion", "lookahead", "master_weights", "muon", "rprop",
    "sam", "schedule_free_adamw", "sgd", "shampoo", "soap", "sophia",
}  # fmt: skip


def over(rows, slow):
    """A test for each row that is no exception; `slow` says which of them take long."""
    marked = [
        pytest.param(row, id=row.name, marks=[pytest.mark.slow] * slow(row))
        for row in rows
        if row.name not in EXCEPTIONS
    ]
    return pytest.mark.parametrize("row", marked)


def drawn(shapes):
    """Numbers in place of parameters: nothing has to be compiled for them."""
    leaves, structure = jax.tree.flatten(shapes)
    draws = [0.5 * normal(*leaf.shape, seed=i).astype(leaf.dtype) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, draws)


@pytest.mark.sampled(12)
@over(registry.MODELS, lambda row: row.name not in QUICK_MODELS)
def test_a_model_has_all_transforms(row):
    model, key = row.make(), jax.random.key(0)
    params, state = jax.eval_shape(model.init, key, row.x)
    state = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), state)
    # A row without finite differences is in float32 inside, or has a kink.
    dtype = jnp.float64 if row.smooth else jnp.float32

    def outputs(params, x, key):
        return model.apply(params, cast_floats(state, dtype), x, key=key, train=True)

    testing.supports_all_transforms(
        outputs, drawn(params), row.x, key, smooth=row.smooth, dtype=dtype
    )


@pytest.mark.sampled(12)
@over(registry.FUNCTIONS, lambda row: False)
def test_an_activation_has_all_transforms(row):
    testing.supports_all_transforms(row.function, normal(2, 3), smooth=row.smooth)


@pytest.mark.sampled(8)
@over(registry.LOSSES, lambda row: row.name not in QUICK_LOSSES)
def test_a_loss_has_all_transforms(row):
    testing.supports_all_transforms(row.loss, row.predictions, row.targets)


@over(registry.SCHEDULES, lambda row: True)
def test_a_schedule_has_all_transforms(row):
    steps = jnp.array([3, 17, 64], jnp.int32)

    def lrs(scalars):
        return jax.vmap(row.make(**scalars))(steps)

    testing.supports_all_transforms(lrs, dict(row.scalars))


@over([row for row in registry.OPTIMIZERS if row.name in OPTIMIZERS], lambda row: True)
def test_training_has_all_transforms_by_the_hyperparameters(row):
    def trained(hyper):
        return _train(row.make, hyper, example_params(), 2)[1]

    testing.supports_all_transforms(trained, {"lr": row.lr, **row.scalars})


def test_every_exception_is_a_row():
    names = {row.name for rows in (registry.MODELS, registry.OPTIMIZERS) for row in rows}
    assert EXCEPTIONS.keys() | QUICK_MODELS | OPTIMIZERS <= names
