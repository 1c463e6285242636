"""Rows of the combinators that set models side by side, stack them, or compute them otherwise."""

import jax
import jax.numpy as jnp

from fnn import models
from fnn.activations import tanh
from fnn.combinators import cast, parallel, remat, sequential, stack
from tests.registry.rows import ModelRow, normal


def _block():
    return sequential(
        norm=models.batch_norm(), dense=models.dense(4), tanh=tanh, drop=models.dropout(0.5)
    )


def _two_inputs(run, x):
    halves = [run("half", models.dense(2), part, i) for i, part in enumerate(x)]
    both = run("drop", models.dropout(0.5), jnp.concatenate([*halves, halves[0] * halves[1]], -1))
    return both + run("norm", models.batch_norm(), both)


MODELS = [
    ModelRow(
        name="parallel by place",
        make=lambda: parallel(models.dense(3), tanh, combine=lambda ys: jnp.concatenate(ys, -1)),
        x=normal(3, 4),
    ),
    ModelRow(
        name="parallel by name, with noise",
        make=lambda: parallel(left=models.dense(3), right=models.dropout(0.5)),
        x=normal(3, 8),
        noisy=True,
    ),
    ModelRow(
        name="stack with state and noise",
        make=lambda: stack(_block(), 3),
        x=normal(4, 4),
        noisy=True,
    ),
    ModelRow(
        name="stack, unrolled",
        make=lambda: stack(_block(), 2, scan=False),
        x=normal(4, 4),
        noisy=True,
    ),
    ModelRow(
        name="stack with a policy",
        make=lambda: stack(models.dense(4), 2, policy=jax.checkpoint_policies.dots_saveable),
        x=normal(3, 4),
    ),
    ModelRow(name="remat", make=lambda: remat(_block()), x=normal(4, 4), noisy=True),
    ModelRow(
        name="cast",
        make=lambda: cast(sequential(models.dense(3), models.batch_norm(), tanh), jnp.float32),
        x=normal(4, 3),
        smooth=False,  # float32 inside, whatever the dtype of x
    ),
    ModelRow(
        name="wired",
        make=lambda: models.wired(_two_inputs),
        x=(normal(4, 3), normal(4, 5, seed=1)),
        noisy=True,
    ),
]

HELPERS = [
    "combinators.base.as_model",
    "combinators.base.output_of",
    "combinators.precision.mixed_bfloat16",  # of a recipe, not of a model
    "combinators.precision.mixed_float16",
]
