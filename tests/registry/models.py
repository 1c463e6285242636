"""Rows of the combinators and of whole networks."""

import jax.numpy as jnp

from fnn import models
from fnn.activations import tanh
from fnn.combinators import residual, sequential
from tests.registry.rows import ModelRow, integers, normal


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
    ModelRow(
        name="cnn",
        make=lambda: models.cnn(
            models.CNNConfig(
                stages=((2,), (3,)), out_features=2, activation=tanh, pool=models.average_pool(2)
            ),
            rate=0.5,
        ),
        x=normal(3, 4, 4, 1),
        noisy=True,
    ),
    ModelRow(
        name="lenet",
        make=lambda: models.lenet(models.LeNetConfig(out_features=2)),
        x=normal(3, 28, 28, 1),
    ),
    ModelRow(
        name="rnn_lm",
        make=lambda: models.rnn_lm(
            models.RNNLMConfig(vocabulary=5, features=2, widths=(3,), cell=models.GRU), rate=0.5
        ),
        x=integers(3, 4, below=5),
        noisy=True,
    ),
    ModelRow(name="perceptron", make=models.perceptron, x=normal(3, 2)),
    ModelRow(
        name="gpt",
        make=lambda: models.gpt(
            models.gpt2(vocabulary=5, max_length=4, features=4, num_layers=1, num_heads=2),
            rate=0.5,
        ),
        x=integers(3, 4, below=5),
        noisy=True,
    ),
    ModelRow(
        name="gpt as llama, scanned",
        make=lambda: models.gpt(
            models.llama(
                vocabulary=5,
                max_length=4,
                features=4,
                num_layers=2,
                num_heads=2,
                num_kv_heads=1,
                hidden_features=6,
                scan=True,
            )
        ),
        x=integers(3, 4, below=5),
    ),
]

HELPERS = [
    "combinators.as_model",
    "combinators.output_of",
    "models.rnn_decoder",  # tests/test_models_rnn_lm.py
    "models.gpt2",  # tests/test_models_gpt.py
    "models.gpt_decoder",
    "models.gpt_features",
    "models.llama",
    "models.says_yes",
]
