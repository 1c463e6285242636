"""Layers as functions: `thing_init(key, ...) -> params` and `thing(params, x, ...) -> y`."""

from fnn._arguments import check_exports
from fnn.layers._window import Padding
from fnn.layers.attention import (
    AttentionMask,
    KVCache,
    attend_with_cache,
    attention,
    attention_weights,
    causal_mask,
    combine_masks,
    dot_product_attention,
    init_cache,
    multi_head_attention,
    multi_head_attention_init,
    padding_mask,
    segment_mask,
    window_mask,
)
from fnn.layers.conv import (
    conv,
    conv_init,
    conv_transpose,
    conv_transpose_init,
    depthwise_conv,
    depthwise_conv_init,
    separable_conv,
    separable_conv_init,
)
from fnn.layers.dropout import (
    alpha_dropout,
    drop_path,
    dropout,
    gaussian_dropout,
    gaussian_noise,
    spatial_dropout,
)
from fnn.layers.embedding import (
    alibi,
    alibi_slopes,
    embedding,
    embedding_init,
    learned_positions,
    learned_positions_init,
    rope,
    sinusoidal_positions,
    unembed,
    unit_rows,
)
from fnn.layers.feed_forward import (
    feed_forward,
    feed_forward_init,
    gated_mlp,
    gated_mlp_init,
    geglu,
    swiglu,
)
from fnn.layers.learned_activations import prelu, prelu_init, snake, snake_init
from fnn.layers.linear import linear, linear_init
from fnn.layers.linear_general import (
    bilinear,
    bilinear_init,
    einsum,
    einsum_init,
    linear_general,
    linear_general_init,
)
from fnn.layers.linear_recurrence import (
    linear_recurrence,
    linear_recurrence_cell,
    linear_recurrence_cell_init,
    linear_scan,
)
from fnn.layers.moe import moe, moe_init, normalize_gates
from fnn.layers.normalization import (
    batch_norm,
    batch_norm_init,
    group_norm,
    group_norm_init,
    instance_norm,
    instance_norm_init,
    layer_norm,
    layer_norm_init,
    rms_norm,
    rms_norm_init,
)
from fnn.layers.pool import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    sum_pool,
)
from fnn.layers.recurrent import (
    LSTMCarry,
    gru,
    gru_cell,
    gru_cell_init,
    lstm,
    lstm_cell,
    lstm_cell_init,
    over_tokens,
    rnn,
    rnn_cell,
    rnn_cell_init,
)
from fnn.layers.resize import (
    patches,
    patchify,
    pixel_shuffle,
    pixel_unshuffle,
    resize_linear,
    resize_nearest,
    unpatchify,
    upsample_linear,
    upsample_nearest,
)
from fnn.layers.sequence import bidirectional, multilayer, reverse_sequences, scan_cell
from fnn.layers.squeeze_excite import squeeze_excite, squeeze_excite_init
from fnn.layers.weight_norm import spectral_norm, spectral_norm_init, weight_norm, weight_norm_init

# fmt: off
__all__ = [
    "AttentionMask", "KVCache", "LSTMCarry", "Padding", "adaptive_average_pool",
    "adaptive_max_pool", "alibi", "alibi_slopes", "alpha_dropout", "attend_with_cache",
    "attention", "attention_weights", "average_pool", "batch_norm", "batch_norm_init",
    "bidirectional", "bilinear", "bilinear_init", "causal_mask", "combine_masks", "conv",
    "conv_init", "conv_transpose", "conv_transpose_init", "depthwise_conv",
    "depthwise_conv_init", "dot_product_attention", "drop_path", "dropout", "einsum",
    "einsum_init", "embedding", "embedding_init", "feed_forward", "feed_forward_init",
    "gated_mlp", "gated_mlp_init", "gaussian_dropout", "gaussian_noise", "geglu",
    "global_average_pool", "global_max_pool", "group_norm", "group_norm_init", "gru",
    "gru_cell", "gru_cell_init", "init_cache", "instance_norm", "instance_norm_init",
    "layer_norm", "layer_norm_init", "learned_positions", "learned_positions_init", "linear",
    "linear_general", "linear_general_init", "linear_init", "linear_recurrence",
    "linear_recurrence_cell", "linear_recurrence_cell_init", "linear_scan", "lstm", "lstm_cell",
    "lstm_cell_init", "max_pool", "moe", "moe_init", "multi_head_attention",
    "multi_head_attention_init", "multilayer", "normalize_gates", "over_tokens", "padding_mask",
    "patches", "patchify", "pixel_shuffle", "pixel_unshuffle", "prelu", "prelu_init",
    "resize_linear", "resize_nearest", "reverse_sequences", "rms_norm", "rms_norm_init", "rnn",
    "rnn_cell", "rnn_cell_init", "rope", "scan_cell", "segment_mask", "separable_conv",
    "separable_conv_init", "sinusoidal_positions", "snake", "snake_init", "spatial_dropout",
    "spectral_norm", "spectral_norm_init", "squeeze_excite", "squeeze_excite_init", "sum_pool",
    "swiglu", "unembed", "unit_rows", "unpatchify", "upsample_linear", "upsample_nearest",
    "weight_norm", "weight_norm_init", "window_mask",
]
# fmt: on

check_exports(__name__)
