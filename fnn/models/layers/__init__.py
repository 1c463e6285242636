"""The layers of `fnn.layers` as models: their sizes come from the input at init."""

from fnn.models.layers.activation import prelu as prelu
from fnn.models.layers.activation import snake as snake
from fnn.models.layers.attention import cross_attention as cross_attention
from fnn.models.layers.attention import self_attention as self_attention
from fnn.models.layers.conv import conv as conv
from fnn.models.layers.conv import conv_transpose as conv_transpose
from fnn.models.layers.conv import depthwise_conv as depthwise_conv
from fnn.models.layers.conv import separable_conv as separable_conv
from fnn.models.layers.dropout import alpha_dropout as alpha_dropout
from fnn.models.layers.dropout import drop_path as drop_path
from fnn.models.layers.dropout import dropout as dropout
from fnn.models.layers.dropout import gaussian_dropout as gaussian_dropout
from fnn.models.layers.dropout import gaussian_noise as gaussian_noise
from fnn.models.layers.dropout import spatial_dropout as spatial_dropout
from fnn.models.layers.dropout import stochastic_depth as stochastic_depth
from fnn.models.layers.embedding import embedding as embedding
from fnn.models.layers.embedding import learned_positions as learned_positions
from fnn.models.layers.embedding import sinusoidal_positions as sinusoidal_positions
from fnn.models.layers.feed_forward import feed_forward as feed_forward
from fnn.models.layers.gated import gated_mlp as gated_mlp
from fnn.models.layers.gated import geglu as geglu
from fnn.models.layers.gated import swiglu as swiglu
from fnn.models.layers.linear import dense as dense
from fnn.models.layers.linear_general import bilinear as bilinear
from fnn.models.layers.linear_general import einsum as einsum
from fnn.models.layers.linear_general import linear_general as linear_general
from fnn.models.layers.moe import moe as moe
from fnn.models.layers.norm import batch_norm as batch_norm
from fnn.models.layers.norm import group_norm as group_norm
from fnn.models.layers.norm import instance_norm as instance_norm
from fnn.models.layers.norm import layer_norm as layer_norm
from fnn.models.layers.norm import rms_norm as rms_norm
from fnn.models.layers.pool import adaptive_average_pool as adaptive_average_pool
from fnn.models.layers.pool import adaptive_max_pool as adaptive_max_pool
from fnn.models.layers.pool import average_pool as average_pool
from fnn.models.layers.pool import global_average_pool as global_average_pool
from fnn.models.layers.pool import global_max_pool as global_max_pool
from fnn.models.layers.pool import max_pool as max_pool
from fnn.models.layers.pool import sum_pool as sum_pool
from fnn.models.layers.recurrent import bidirectional as bidirectional
from fnn.models.layers.recurrent import gru as gru
from fnn.models.layers.recurrent import keep_lengths as keep_lengths
from fnn.models.layers.recurrent import last_step as last_step
from fnn.models.layers.recurrent import linear_recurrence as linear_recurrence
from fnn.models.layers.recurrent import lstm as lstm
from fnn.models.layers.recurrent import rnn as rnn
from fnn.models.layers.resize import patchify as patchify
from fnn.models.layers.resize import pixel_shuffle as pixel_shuffle
from fnn.models.layers.resize import pixel_unshuffle as pixel_unshuffle
from fnn.models.layers.resize import resize_linear as resize_linear
from fnn.models.layers.resize import resize_nearest as resize_nearest
from fnn.models.layers.resize import unpatchify as unpatchify
from fnn.models.layers.resize import upsample_linear as upsample_linear
from fnn.models.layers.resize import upsample_nearest as upsample_nearest
from fnn.models.layers.shape import flatten as flatten
from fnn.models.layers.squeeze_excite import squeeze_excite as squeeze_excite
from fnn.models.layers.weight_norm import spectral_norm as spectral_norm
from fnn.models.layers.weight_norm import weight_norm as weight_norm

# fmt: off
__all__ = [
    "adaptive_average_pool", "adaptive_max_pool", "alpha_dropout", "average_pool", "batch_norm",
    "bidirectional", "bilinear", "conv", "conv_transpose", "cross_attention", "dense",
    "depthwise_conv", "drop_path", "dropout", "einsum", "embedding", "feed_forward", "flatten",
    "gated_mlp", "gaussian_dropout", "gaussian_noise", "geglu", "global_average_pool",
    "global_max_pool", "group_norm", "gru", "instance_norm", "keep_lengths", "last_step",
    "layer_norm", "learned_positions", "linear_general", "linear_recurrence", "lstm",
    "max_pool", "moe", "patchify", "pixel_shuffle", "pixel_unshuffle", "prelu", "resize_linear",
    "resize_nearest", "rms_norm", "rnn", "self_attention", "separable_conv",
    "sinusoidal_positions", "snake", "spatial_dropout", "spectral_norm", "squeeze_excite",
    "stochastic_depth", "sum_pool", "swiglu", "unpatchify", "upsample_linear",
    "upsample_nearest", "weight_norm",
]
# fmt: on
