"""Layers as models, and combinators that make models from models."""

from fnn._arguments import check_exports
from fnn.nn._base import Layer, as_model, lift, output_of
from fnn.nn.attention import cross_attention, self_attention
from fnn.nn.compact import compact
from fnn.nn.compute import cast, mixed_bfloat16, mixed_float16, offload, remat
from fnn.nn.conv import conv, conv_transpose, depthwise_conv, separable_conv
from fnn.nn.dropout import (
    alpha_dropout,
    drop_path,
    dropout,
    gaussian_dropout,
    gaussian_noise,
    spatial_dropout,
    stochastic_depth,
)
from fnn.nn.embedding import embedding, learned_positions, sinusoidal_positions
from fnn.nn.feed_forward import feed_forward, gated_mlp, geglu, swiglu
from fnn.nn.fp8 import fp8
from fnn.nn.learned_activations import prelu, snake
from fnn.nn.linear import bilinear, einsum, flatten, linear, linear_general
from fnn.nn.moe import moe
from fnn.nn.normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    spectral_norm,
    weight_norm,
)
from fnn.nn.pool import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    sum_pool,
)
from fnn.nn.recurrent import (
    bidirectional,
    gru,
    keep_lengths,
    last_step,
    linear_recurrence,
    lstm,
    rnn,
)
from fnn.nn.resize import (
    patchify,
    pixel_shuffle,
    pixel_unshuffle,
    resize_linear,
    resize_nearest,
    unpatchify,
    upsample_linear,
    upsample_nearest,
)
from fnn.nn.sequential import parallel, residual, sequential
from fnn.nn.squeeze_excite import squeeze_excite
from fnn.nn.stack import stack

# fmt: off
__all__ = [
    "Layer", "adaptive_average_pool", "adaptive_max_pool", "alpha_dropout", "as_model",
    "average_pool", "batch_norm", "bidirectional", "bilinear", "cast", "compact", "conv",
    "conv_transpose", "cross_attention", "depthwise_conv", "drop_path", "dropout", "einsum",
    "embedding", "feed_forward", "flatten", "fp8", "gated_mlp", "gaussian_dropout",
    "gaussian_noise", "geglu", "global_average_pool", "global_max_pool", "group_norm", "gru",
    "instance_norm", "keep_lengths", "last_step", "layer_norm", "learned_positions", "lift",
    "linear", "linear_general", "linear_recurrence", "lstm", "max_pool", "mixed_bfloat16",
    "mixed_float16", "moe", "offload", "output_of", "parallel", "patchify", "pixel_shuffle",
    "pixel_unshuffle", "prelu", "remat", "residual", "resize_linear", "resize_nearest", "rms_norm",
    "rnn", "self_attention", "separable_conv", "sequential", "sinusoidal_positions", "snake",
    "spatial_dropout", "spectral_norm", "squeeze_excite", "stack", "stochastic_depth", "sum_pool",
    "swiglu", "unpatchify", "upsample_linear", "upsample_nearest", "weight_norm",
]
# fmt: on

check_exports(__name__, leave=("layer",))  # which `as_model` refuses
