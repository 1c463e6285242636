"""The layers of `fnn.layers` as models: their sizes come from the input at init."""

from fnn.models.layers.dropout import dropout as dropout
from fnn.models.layers.linear import dense as dense
from fnn.models.layers.norm import batch_norm as batch_norm
from fnn.models.layers.norm import layer_norm as layer_norm
from fnn.models.layers.shape import flatten as flatten
