"""Rows of the dense, norm, dropout and shape layers."""

import jax.numpy as jnp

from fnn import models
from fnn.combinators import lift
from fnn.initializers import normal as normal_init
from tests.registry.rows import ModelRow, normal

MODELS = [
    ModelRow(name="dense", make=lambda: models.dense(5), x=normal(4, 3)),
    ModelRow(
        name="dense without bias, two leading axes",
        make=lambda: models.dense(2, bias=False),
        x=normal(4, 2, 3),
    ),
    ModelRow(
        name="dense with a random bias",
        make=lambda: models.dense(2, bias_init=normal_init(0.1)),
        x=normal(4, 3),
    ),
    ModelRow(name="layer_norm", make=models.layer_norm, x=normal(4, 5)),
    ModelRow(
        name="layer_norm over the last of three axes",
        make=lambda: models.layer_norm(eps=1e-3),
        x=normal(3, 2, 5),
    ),
    ModelRow(name="batch_norm", make=models.batch_norm, x=normal(4, 5)),
    ModelRow(
        name="batch_norm of pictures",
        make=lambda: models.batch_norm(decay=0.5),
        x=normal(3, 2, 2, 4),
    ),
    # 20 numbers at rate 0.5: two keys give the same mask once in 2^20.
    ModelRow(name="dropout", make=lambda: models.dropout(0.5), x=normal(4, 5), noisy=True),
    ModelRow(name="dropout at rate 0", make=lambda: models.dropout(0.0), x=normal(4, 5)),
    ModelRow(
        name="dropout at a traced rate",
        make=lambda: models.dropout(jnp.float32(0.5)),
        x=normal(4, 5),
        noisy=True,
    ),
    ModelRow(name="flatten", make=models.flatten, x=normal(3, 2, 4)),
    ModelRow(name="lift", make=lambda: lift(jnp.sin), x=normal(4, 3)),
]

HELPERS = ["models.layers.shape.features_of"]
