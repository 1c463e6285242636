"""Training steps are lowered for GPUs and TPUs, on a machine that has none."""

import jax
import jax.numpy as jnp
import pytest

from fnn import losses, nn, optim, schedules
from fnn.dtypes import is_float
from fnn.recipe import Recipe
from fnn.train import make_init, make_step
from tests import registry
from tests.registry.rows import normal

PLATFORMS = ("cuda", "rocm", "tpu")
KEY = jax.random.key(0)
HYPER = {"lr": 0.1}


def lowered(recipe, x, y):
    """The program of a training step, for all platforms at once: they share what is alike."""
    state = jax.eval_shape(make_init(recipe), KEY, HYPER, x)
    step = jax.jit(make_step(recipe))
    return jax.export.export(step, platforms=PLATFORMS)(state, (x, y), KEY, HYPER)


def mean_square(outputs, targets):
    """A loss for outputs of any structure: the mean of an example's squares."""
    leaves = jax.tree.leaves(outputs, is_leaf=lambda leaf: isinstance(leaf, losses.LazyLogits))
    floats = [leaf for leaf in leaves if is_float(leaf)]
    batched = [jnp.square(y.reshape(len(targets), -1)).mean(axis=1) for y in floats]
    return sum(y.astype(jnp.float32) for y in batched)


QUICK = {
    "adafactor", "adam", "batch_norm", "cnn", "conv", "gpt", "layer_norm", "lbfgs", "lstm", "moe",
    "muon", "rnn_lm", "sgd", "shampoo", "vae",
}  # fmt: skip


def over(rows):
    """A test for each row; those of the parts of others bear the marker."""
    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.name not in QUICK))
            for row in rows
        ],
    )


@pytest.mark.sampled(6)
@over(registry.MODELS)
def test_the_step_of_a_model_is_lowered(row):
    def recipe(hyper):
        return Recipe(row.make(), mean_square, optim.sgd(), schedules.constant(hyper["lr"]))

    examples = len(jax.tree.leaves(row.x)[0])
    assert lowered(recipe, row.x, normal(examples)).platforms == PLATFORMS


@pytest.mark.sampled(2)
@over(registry.OPTIMIZERS)
def test_the_step_of_an_optimizer_is_lowered(row):
    def recipe(hyper):
        optimizer, schedule = row.make(**row.scalars), schedules.constant(hyper["lr"])
        return Recipe(nn.linear(2), losses.mean_squared_error, optimizer, schedule)

    assert lowered(recipe, normal(4, 3), normal(4, 2)).platforms == PLATFORMS
