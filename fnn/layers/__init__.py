"""Layers as functions: `thing_init(key, ...) -> params` and `thing(params, x, ...) -> y`."""

from fnn.layers.dropout import dropout as dropout
from fnn.layers.linear import linear as linear
from fnn.layers.linear import linear_init as linear_init
from fnn.layers.norm import batch_norm as batch_norm
from fnn.layers.norm import batch_norm_init as batch_norm_init
from fnn.layers.norm import layer_norm as layer_norm
from fnn.layers.norm import layer_norm_init as layer_norm_init
