"""Layers as functions: `thing_init(key, ...) -> params` and `thing(params, x, ...) -> y`."""

from fnn.arguments import check_exports
from fnn.layers.adaptive_pool import adaptive_average_pool as adaptive_average_pool
from fnn.layers.adaptive_pool import adaptive_max_pool as adaptive_max_pool
from fnn.layers.attention import attention_weights as attention_weights
from fnn.layers.attention import dot_product_attention as dot_product_attention
from fnn.layers.cache import KVCache as KVCache
from fnn.layers.cache import attend_with_cache as attend_with_cache
from fnn.layers.cache import init_cache as init_cache
from fnn.layers.conv import conv as conv
from fnn.layers.conv import conv_init as conv_init
from fnn.layers.conv import depthwise_conv as depthwise_conv
from fnn.layers.conv import depthwise_conv_init as depthwise_conv_init
from fnn.layers.conv import separable_conv as separable_conv
from fnn.layers.conv import separable_conv_init as separable_conv_init
from fnn.layers.conv_transpose import conv_transpose as conv_transpose
from fnn.layers.conv_transpose import conv_transpose_init as conv_transpose_init
from fnn.layers.dropout import drop_path as drop_path
from fnn.layers.dropout import dropout as dropout
from fnn.layers.dropout import spatial_dropout as spatial_dropout
from fnn.layers.einsum import einsum as einsum
from fnn.layers.einsum import einsum_init as einsum_init
from fnn.layers.embedding import embedding as embedding
from fnn.layers.embedding import embedding_init as embedding_init
from fnn.layers.embedding import learned_positions as learned_positions
from fnn.layers.embedding import learned_positions_init as learned_positions_init
from fnn.layers.embedding import unembed as unembed
from fnn.layers.embedding import unit_rows as unit_rows
from fnn.layers.feed_forward import feed_forward as feed_forward
from fnn.layers.feed_forward import feed_forward_init as feed_forward_init
from fnn.layers.gated import gated_mlp as gated_mlp
from fnn.layers.gated import gated_mlp_init as gated_mlp_init
from fnn.layers.gated import geglu as geglu
from fnn.layers.gated import swiglu as swiglu
from fnn.layers.group_norm import group_norm as group_norm
from fnn.layers.group_norm import group_norm_init as group_norm_init
from fnn.layers.group_norm import instance_norm as instance_norm
from fnn.layers.group_norm import instance_norm_init as instance_norm_init
from fnn.layers.linear import linear as linear
from fnn.layers.linear import linear_init as linear_init
from fnn.layers.linear_general import bilinear as bilinear
from fnn.layers.linear_general import bilinear_init as bilinear_init
from fnn.layers.linear_general import linear_general as linear_general
from fnn.layers.linear_general import linear_general_init as linear_general_init
from fnn.layers.linear_recurrence import linear_recurrence as linear_recurrence
from fnn.layers.linear_recurrence import linear_recurrence_cell as linear_recurrence_cell
from fnn.layers.linear_recurrence import linear_recurrence_cell_init as linear_recurrence_cell_init
from fnn.layers.linear_recurrence import linear_scan as linear_scan
from fnn.layers.masks import causal_mask as causal_mask
from fnn.layers.masks import combine_masks as combine_masks
from fnn.layers.masks import padding_mask as padding_mask
from fnn.layers.masks import segment_mask as segment_mask
from fnn.layers.masks import window_mask as window_mask
from fnn.layers.moe import moe as moe
from fnn.layers.moe import moe_init as moe_init
from fnn.layers.moe import normalised_gates as normalised_gates
from fnn.layers.multi_head import multi_head_attention as multi_head_attention
from fnn.layers.multi_head import multi_head_attention_init as multi_head_attention_init
from fnn.layers.noise import alpha_dropout as alpha_dropout
from fnn.layers.noise import gaussian_dropout as gaussian_dropout
from fnn.layers.noise import gaussian_noise as gaussian_noise
from fnn.layers.norm import batch_norm as batch_norm
from fnn.layers.norm import batch_norm_init as batch_norm_init
from fnn.layers.norm import layer_norm as layer_norm
from fnn.layers.norm import layer_norm_init as layer_norm_init
from fnn.layers.patches import patches as patches
from fnn.layers.patches import patchify as patchify
from fnn.layers.patches import unpatchify as unpatchify
from fnn.layers.pool import average_pool as average_pool
from fnn.layers.pool import global_average_pool as global_average_pool
from fnn.layers.pool import global_max_pool as global_max_pool
from fnn.layers.pool import max_pool as max_pool
from fnn.layers.pool import sum_pool as sum_pool
from fnn.layers.positions import alibi as alibi
from fnn.layers.positions import alibi_slopes as alibi_slopes
from fnn.layers.positions import rope as rope
from fnn.layers.positions import sinusoidal_positions as sinusoidal_positions
from fnn.layers.prelu import prelu as prelu
from fnn.layers.prelu import prelu_init as prelu_init
from fnn.layers.recurrent import LSTMCarry as LSTMCarry
from fnn.layers.recurrent import gru as gru
from fnn.layers.recurrent import gru_cell as gru_cell
from fnn.layers.recurrent import gru_cell_init as gru_cell_init
from fnn.layers.recurrent import lstm as lstm
from fnn.layers.recurrent import lstm_cell as lstm_cell
from fnn.layers.recurrent import lstm_cell_init as lstm_cell_init
from fnn.layers.recurrent import over_tokens as over_tokens
from fnn.layers.recurrent import rnn as rnn
from fnn.layers.recurrent import rnn_cell as rnn_cell
from fnn.layers.recurrent import rnn_cell_init as rnn_cell_init
from fnn.layers.resize import pixel_shuffle as pixel_shuffle
from fnn.layers.resize import pixel_unshuffle as pixel_unshuffle
from fnn.layers.resize import resize_linear as resize_linear
from fnn.layers.resize import resize_nearest as resize_nearest
from fnn.layers.resize import upsample_linear as upsample_linear
from fnn.layers.resize import upsample_nearest as upsample_nearest
from fnn.layers.rms_norm import rms_norm as rms_norm
from fnn.layers.rms_norm import rms_norm_init as rms_norm_init
from fnn.layers.snake import snake as snake
from fnn.layers.snake import snake_init as snake_init
from fnn.layers.squeeze_excite import squeeze_excite as squeeze_excite
from fnn.layers.squeeze_excite import squeeze_excite_init as squeeze_excite_init
from fnn.layers.unroll import bidirectional as bidirectional
from fnn.layers.unroll import multilayer as multilayer
from fnn.layers.unroll import reverse_sequences as reverse_sequences
from fnn.layers.unroll import scan_cell as scan_cell
from fnn.layers.weight_norm import spectral_norm as spectral_norm
from fnn.layers.weight_norm import spectral_norm_init as spectral_norm_init
from fnn.layers.weight_norm import weight_norm as weight_norm
from fnn.layers.weight_norm import weight_norm_init as weight_norm_init
from fnn.layers.window import Padding as Padding

# fmt: off
__all__ = [
    "KVCache", "LSTMCarry", "Padding", "adaptive_average_pool", "adaptive_max_pool", "alibi",
    "alibi_slopes", "alpha_dropout", "attend_with_cache", "attention_weights", "average_pool",
    "batch_norm", "batch_norm_init", "bidirectional", "bilinear", "bilinear_init",
    "causal_mask", "combine_masks", "conv", "conv_init", "conv_transpose",
    "conv_transpose_init", "depthwise_conv", "depthwise_conv_init", "dot_product_attention",
    "drop_path", "dropout", "einsum", "einsum_init", "embedding", "embedding_init",
    "feed_forward", "feed_forward_init", "gated_mlp", "gated_mlp_init", "gaussian_dropout",
    "gaussian_noise", "geglu", "global_average_pool", "global_max_pool", "group_norm",
    "group_norm_init", "gru", "gru_cell", "gru_cell_init", "init_cache", "instance_norm",
    "instance_norm_init", "layer_norm", "layer_norm_init", "learned_positions",
    "learned_positions_init", "linear", "linear_general", "linear_general_init", "linear_init",
    "linear_recurrence", "linear_recurrence_cell", "linear_recurrence_cell_init", "linear_scan",
    "lstm", "lstm_cell", "lstm_cell_init", "max_pool", "moe", "moe_init",
    "multi_head_attention", "multi_head_attention_init", "multilayer", "normalised_gates",
    "over_tokens", "padding_mask", "patches", "patchify", "pixel_shuffle", "pixel_unshuffle",
    "prelu", "prelu_init", "resize_linear", "resize_nearest", "reverse_sequences", "rms_norm",
    "rms_norm_init", "rnn", "rnn_cell", "rnn_cell_init", "rope", "scan_cell", "segment_mask",
    "separable_conv", "separable_conv_init", "sinusoidal_positions", "snake", "snake_init",
    "spatial_dropout", "spectral_norm", "spectral_norm_init", "squeeze_excite",
    "squeeze_excite_init", "sum_pool", "swiglu", "unembed", "unit_rows", "unpatchify",
    "upsample_linear", "upsample_nearest", "weight_norm", "weight_norm_init", "window_mask",
]
# fmt: on

check_exports(__name__)
