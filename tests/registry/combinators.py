"""Rows of the combinators that set models side by side, stack them, or compute them otherwise."""

import jax
import jax.numpy as jnp

from fnn import nn
from fnn.activations import tanh
from fnn.nn import cast, parallel, remat, sequential, stack
from tests.registry.rows import ModelRow, normal


def _block():
    return sequential(norm=nn.batch_norm(), dense=nn.linear(4), tanh=tanh, drop=nn.dropout(0.5))


def _two_inputs(run, x):
    halves = [run("half", nn.linear(2), part, i) for i, part in enumerate(x)]
    both = run("drop", nn.dropout(0.5), jnp.concatenate([*halves, halves[0] * halves[1]], -1))
    return both + run("norm", nn.batch_norm(), both)


MODELS = [
    ModelRow(
        name="parallel by place",
        make=lambda: parallel(nn.linear(3), tanh, combine=lambda ys: jnp.concatenate(ys, -1)),
        x=normal(3, 4),
    ),
    ModelRow(
        name="parallel by name, with noise",
        make=lambda: parallel(left=nn.linear(3), right=nn.dropout(0.5)),
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
        make=lambda: stack(nn.linear(4), 2, policy=jax.checkpoint_policies.dots_saveable),
        x=normal(3, 4),
    ),
    ModelRow(name="remat", make=lambda: remat(_block()), x=normal(4, 4), noisy=True),
    ModelRow(
        name="cast",
        make=lambda: cast(sequential(nn.linear(3), nn.batch_norm(), tanh), jnp.float32),
        x=normal(4, 3),
        smooth=False,  # float32 inside, whatever the dtype of x
    ),
    ModelRow(
        name="compact",
        make=lambda: nn.compact(_two_inputs),
        x=(normal(4, 3), normal(4, 5, seed=1)),
        noisy=True,
    ),
]

HELPERS = [
    "nn.base.as_model",
    "nn.base.output_of",
    "nn.precision.mixed_bfloat16",  # of a recipe, not of a model
    "nn.precision.mixed_float16",
    "nn.fp8.fp8",  # the same: tests/test_fp8.py
    "nn.compute.offload",  # a policy: tests/test_offload.py
]
