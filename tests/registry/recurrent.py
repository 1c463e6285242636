"""Rows of embeddings, positions and recurrent layers."""

import jax.numpy as jnp
import numpy as np

from fnn import models
from fnn.initializers import normal as normal_init
from tests.registry.rows import ModelRow, integers, normal

QUICK = {"recurrent_init": normal_init(0.5)}  # drawing orthogonal matrices is slow to compile
LENGTHS = np.array([4, 1, 3], np.int32)

MODELS = [
    ModelRow(name="embedding", make=lambda: models.embedding(5, 3), x=integers(4, 2, below=5)),
    ModelRow(
        name="embedding of one integer, drawn with deviation 1",
        make=lambda: models.embedding(4, 2, table_init=normal_init()),
        x=integers(3, below=4),
    ),
    ModelRow(name="learned_positions", make=lambda: models.learned_positions(6), x=normal(3, 4, 3)),
    ModelRow(name="sinusoidal_positions", make=models.sinusoidal_positions, x=normal(3, 4, 5)),
    ModelRow(
        name="sinusoidal_positions at a traced base",
        make=lambda: models.sinusoidal_positions(base=jnp.float32(100.0)),
        x=normal(3, 2, 4),
        smooth=False,  # the base is float32, and the law wants float64 throughout
    ),
    ModelRow(name="rnn", make=lambda: models.rnn(3), x=normal(3, 4, 2)),
    ModelRow(name="lstm", make=lambda: models.lstm(2, **QUICK), x=(normal(3, 4, 3), LENGTHS)),
    ModelRow(name="gru", make=lambda: models.gru(2, **QUICK), x=normal(3, 4, 3)),
    ModelRow(
        name="linear_recurrence",
        make=lambda: models.linear_recurrence(2),
        x=(normal(3, 3, 3), np.minimum(LENGTHS, 3)),
    ),
    ModelRow(
        name="bidirectional",
        make=lambda: models.bidirectional(models.rnn(2, **QUICK)),
        x=(normal(3, 4, 2), LENGTHS),
    ),
    ModelRow(
        name="keep_lengths",
        make=lambda: models.keep_lengths(models.dropout(0.5)),
        x=(normal(3, 4, 2), LENGTHS),
        noisy=True,
    ),
    ModelRow(
        name="keep_lengths of an array", make=lambda: models.keep_lengths(jnp.sin), x=normal(3, 2)
    ),
    ModelRow(name="last_step", make=models.last_step, x=(normal(3, 4, 2), LENGTHS)),
]

HELPERS = [  # tests/test_recurrent.py, tests/test_recurrent_torch.py
    "layers.gru_cell",
    "layers.linear_recurrence_cell",
    "layers.lstm_cell",
    "layers.over_tokens",
    "layers.rnn_cell",
    "layers.scan_cell",
    "layers.multilayer",
    "models.layers.recurrent.split_lengths",
]
