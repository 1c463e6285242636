"""Rows of the linear, norm, dropout and shape layers."""

import jax.numpy as jnp

from fnn import nn
from fnn.initializers import normal as normal_init
from fnn.nn import lift
from tests.registry.rows import ModelRow, normal

MODELS = [
    ModelRow(name="linear", make=lambda: nn.linear(5), x=normal(4, 3)),
    ModelRow(
        name="linear without bias, two leading axes",
        make=lambda: nn.linear(2, bias=False),
        x=normal(4, 2, 3),
    ),
    ModelRow(
        name="linear with a random bias",
        make=lambda: nn.linear(2, bias_init=normal_init(0.1)),
        x=normal(4, 3),
    ),
    ModelRow(name="layer_norm", make=nn.layer_norm, x=normal(4, 5)),
    ModelRow(
        name="layer_norm over the last of three axes",
        make=lambda: nn.layer_norm(eps=1e-3),
        x=normal(3, 2, 5),
    ),
    ModelRow(name="batch_norm", make=nn.batch_norm, x=normal(4, 5)),
    ModelRow(
        name="batch_norm of images",
        make=lambda: nn.batch_norm(decay=0.5),
        x=normal(3, 2, 2, 4),
    ),
    # 20 numbers at rate 0.5: two keys give the same mask once in 2^20.
    ModelRow(name="dropout", make=lambda: nn.dropout(0.5), x=normal(4, 5), noisy=True),
    ModelRow(name="dropout at rate 0", make=lambda: nn.dropout(0.0), x=normal(4, 5)),
    ModelRow(
        name="dropout at a traced rate",
        make=lambda: nn.dropout(jnp.float32(0.5)),
        x=normal(4, 5),
        noisy=True,
    ),
    ModelRow(name="flatten", make=nn.flatten, x=normal(3, 2, 4)),
    ModelRow(name="lift", make=lambda: lift(jnp.sin), x=normal(4, 3)),
]

HELPERS = ["nn._base.features_of"]
