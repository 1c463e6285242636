"""Attention: its implementations, masks, and the layer with several heads."""

from fnn._arguments import check_exports
from fnn.layers.attention.attention import attention
from fnn.layers.attention.dense import Attend, attention_weights, dot_product_attention
from fnn.layers.attention.masks import (
    AttentionMask,
    Mask,
    causal_mask,
    combine_masks,
    padding_mask,
    segment_mask,
    window_mask,
)
from fnn.layers.attention.multi_head import (
    KVCache,
    Rotate,
    attend_with_cache,
    init_cache,
    multi_head_attention,
    multi_head_attention_init,
    project_key_value,
    project_out,
    project_query,
)

# fmt: off
__all__ = [
    "Attend", "AttentionMask", "KVCache", "Mask", "Rotate", "attend_with_cache", "attention",
    "attention_weights", "causal_mask", "combine_masks", "dot_product_attention", "init_cache",
    "multi_head_attention", "multi_head_attention_init", "padding_mask", "project_key_value",
    "project_out", "project_query", "segment_mask", "window_mask",
]
# fmt: on

check_exports(__name__)
