"""Rows of embeddings, positions and recurrent layers."""

import jax.numpy as jnp
import numpy as np

from fnn import nn
from fnn.initializers import normal as normal_init
from tests.registry.rows import ModelRow, integers, normal

QUICK = {"recurrent_init": normal_init(0.5)}  # drawing orthogonal matrices is slow to compile
LENGTHS = np.array([4, 1, 3], np.int32)

MODELS = [
    ModelRow(name="embedding", make=lambda: nn.embedding(5, 3), x=integers(4, 2, below=5)),
    ModelRow(
        name="embedding of one integer, drawn with deviation 1",
        make=lambda: nn.embedding(4, 2, table_init=normal_init()),
        x=integers(3, below=4),
    ),
    ModelRow(name="learned_positions", make=lambda: nn.learned_positions(6), x=normal(3, 4, 3)),
    ModelRow(name="sinusoidal_positions", make=nn.sinusoidal_positions, x=normal(3, 4, 5)),
    ModelRow(
        name="sinusoidal_positions at a traced base",
        make=lambda: nn.sinusoidal_positions(base=jnp.float32(100.0)),
        x=normal(3, 2, 4),
        smooth=False,  # the base is float32, and the law wants float64 throughout
    ),
    ModelRow(name="rnn", make=lambda: nn.rnn(3), x=normal(3, 4, 2)),
    ModelRow(name="lstm", make=lambda: nn.lstm(2, **QUICK), x=(normal(3, 4, 3), LENGTHS)),
    ModelRow(name="gru", make=lambda: nn.gru(2, **QUICK), x=normal(3, 4, 3)),
    ModelRow(
        name="linear_recurrence",
        make=lambda: nn.linear_recurrence(2),
        x=(normal(3, 3, 3), np.minimum(LENGTHS, 3)),
    ),
    ModelRow(
        name="bidirectional",
        make=lambda: nn.bidirectional(nn.rnn(2, **QUICK)),
        x=(normal(3, 4, 2), LENGTHS),
    ),
    ModelRow(
        name="keep_lengths",
        make=lambda: nn.keep_lengths(nn.dropout(0.5)),
        x=(normal(3, 4, 2), LENGTHS),
        noisy=True,
    ),
    ModelRow(
        name="keep_lengths of an array", make=lambda: nn.keep_lengths(jnp.sin), x=normal(3, 2)
    ),
    ModelRow(name="last_step", make=nn.last_step, x=(normal(3, 4, 2), LENGTHS)),
]

HELPERS = [  # tests/test_recurrent.py, tests/test_recurrent_torch.py
    "layers.gru_cell",
    "layers.linear_recurrence_cell",
    "layers.lstm_cell",
    "layers.over_tokens",
    "layers.rnn_cell",
    "layers.scan_cell",
    "layers.multilayer",
    "nn.recurrent.split_lengths",
]
