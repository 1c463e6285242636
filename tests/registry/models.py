"""Rows of the combinators and the multi-layer perceptron."""

import jax.numpy as jnp

from fnn import models
from fnn.activations import tanh
from fnn.combinators import residual, sequential
from tests.registry.rows import ModelRow, normal


def _noisy_residual():
    inner = sequential(models.layer_norm(), models.dense(4), models.dropout(0.5))
    return residual(inner)


MODELS = [
    ModelRow(
        name="sequential by place",
        make=lambda: sequential(models.flatten(), models.dense(4), tanh, models.dense(2)),
        x=normal(3, 2, 4),
    ),
    ModelRow(
        name="sequential by name, with state and noise",
        make=lambda: sequential(
            first=models.dense(6), norm=models.batch_norm(), drop=models.dropout(0.5), last=jnp.sin
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(name="residual", make=lambda: residual(models.dense(4)), x=normal(3, 4)),
    ModelRow(name="residual with noise", make=_noisy_residual, x=normal(4, 4), noisy=True),
    ModelRow(
        name="mlp",
        make=lambda: models.mlp(models.MLPConfig(widths=(6, 5), out_features=2)),
        x=normal(4, 3),
    ),
    ModelRow(
        name="mlp without hidden layers",
        make=lambda: models.mlp(models.MLPConfig(widths=(), out_features=2)),
        x=normal(4, 3),
    ),
    ModelRow(
        name="mlp with batch norm and dropout",
        make=lambda: models.mlp(
            models.MLPConfig(widths=(8,), out_features=3, activation=tanh, norm=models.batch_norm),
            rate=0.5,
        ),
        x=normal(4, 3),
        noisy=True,
    ),
]

HELPERS = ["combinators.as_model", "combinators.output_of"]
