"""Rows of the initializers without fans, of the orthogonal ones, and of presets that draw."""

import math

from fnn import initializers
from fnn.initializers import presets
from tests.registry.rows import InitializerRow

# The standard deviation of a normal that is cut at two of its deviations.
_CUT = 0.87962566

INITIALIZERS = [
    InitializerRow(
        name="constant",
        initializer=initializers.constant(0.3),
        shape=(7,),
        std=0.0,
        random=False,
    ),
    InitializerRow(
        name="identity", initializer=initializers.identity(), shape=(5, 7), std=0.0, random=False
    ),
    InitializerRow(
        name="dirac",
        initializer=initializers.dirac(groups=2),
        shape=(3, 3, 2, 6),
        std=0.0,
        random=False,
    ),
    InitializerRow(
        name="truncated_normal",
        initializer=initializers.truncated_normal(0.5),
        shape=(40, 50),
        std=0.5 * _CUT,
    ),
    InitializerRow(
        name="uniform",
        initializer=initializers.uniform(-0.6, 0.6),
        shape=(40, 50),
        std=0.6 / math.sqrt(3),
    ),
    InitializerRow(
        name="scaled_residual",
        initializer=initializers.scaled_residual(8, base=initializers.normal(0.4)),
        shape=(40, 50),
        std=0.1,
    ),
    InitializerRow(
        # 1024 entries of variance 1 / 32 among 3072.
        name="delta_orthogonal",
        initializer=initializers.delta_orthogonal(),
        shape=(3, 32, 32),
        std=math.sqrt(1 / 96),
    ),
    InitializerRow(
        name="blockwise",
        initializer=initializers.blockwise(initializers.orthogonal()),
        shape=(32, 96),
        std=math.sqrt(1 / 32),
    ),
    InitializerRow(
        name="torch's bias of an LSTM",
        initializer=presets.torch.lstm(12)["bias_init"],
        shape=(4000,),
        std=math.sqrt(2 / 3 / 12),
    ),
    InitializerRow(
        name="flax's embedding",
        initializer=presets.flax.embedding()["table_init"],
        shape=(50, 40),
        std=math.sqrt(1 / 40),
    ),
]

HELPERS = ["initializers.base.fans", "initializers.constant.middle"]
