"""Rows of the norms beyond layer and batch norm, and of dropout's relatives."""

import jax.numpy as jnp

from fnn import nn
from tests.registry.rows import ModelRow, normal

MODELS = [
    ModelRow(name="group_norm", make=lambda: nn.group_norm(2), x=normal(3, 2, 3, 4)),
    ModelRow(name="group_norm of rows", make=lambda: nn.group_norm(3), x=normal(3, 6)),
    ModelRow(name="instance_norm", make=nn.instance_norm, x=normal(3, 5, 2)),
    ModelRow(
        name="instance_norm without scale and bias",
        make=lambda: nn.instance_norm(scale=False, bias=False),
        x=normal(3, 2, 2, 2),
    ),
    ModelRow(name="rms_norm", make=nn.rms_norm, x=normal(4, 5)),
    ModelRow(
        name="layer_norm without bias", make=lambda: nn.layer_norm(bias=False), x=normal(4, 5)
    ),
    ModelRow(
        name="batch_norm without scale", make=lambda: nn.batch_norm(scale=False), x=normal(4, 5)
    ),
    ModelRow(name="weight_norm", make=lambda: nn.weight_norm(nn.linear(3)), x=normal(4, 5)),
    ModelRow(
        name="spectral_norm",
        make=lambda: nn.spectral_norm(nn.linear(3)),
        x=normal(4, 5),
        smooth=False,  # its derivative holds the singular vectors fixed while they still move
    ),
    # 20 numbers at rate 0.5: two keys give the same mask once in 2^20, 12 maps once in 2^12 and
    # 8 examples once in 2^8; the keys are fixed, and their masks do differ.
    ModelRow(
        name="spatial_dropout",
        make=lambda: nn.spatial_dropout(0.5),
        x=normal(4, 2, 3),
        noisy=True,
    ),
    ModelRow(name="drop_path", make=lambda: nn.drop_path(0.5), x=normal(8, 2), noisy=True),
    ModelRow(name="alpha_dropout", make=lambda: nn.alpha_dropout(0.5), x=normal(4, 5), noisy=True),
    ModelRow(
        name="gaussian_dropout",
        make=lambda: nn.gaussian_dropout(jnp.float32(0.5)),
        x=normal(4, 5),
        noisy=True,
    ),
    ModelRow(
        name="gaussian_noise", make=lambda: nn.gaussian_noise(0.5), x=normal(4, 5), noisy=True
    ),
    ModelRow(
        name="stochastic_depth",
        make=lambda: nn.stochastic_depth(nn.linear(2), 0.5),
        x=normal(8, 2),
        noisy=True,
    ),
]

HELPERS = [
    "layers.dropout.keep_mask",
    "layers._normalization.affine",
    "layers._normalization.affine_init",
    "layers._normalization.expect_features",
    "layers._normalization.moments",
    "layers._normalization.normalize",
    "layers._normalization.normalize_rms",
]
