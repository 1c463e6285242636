"""Models: pairs (init, apply), made of the layers' functions and the combinators."""

from fnn.models.layers import batch_norm as batch_norm
from fnn.models.layers import dense as dense
from fnn.models.layers import dropout as dropout
from fnn.models.layers import flatten as flatten
from fnn.models.layers import layer_norm as layer_norm
from fnn.models.mlp import MLPConfig as MLPConfig
from fnn.models.mlp import mlp as mlp
