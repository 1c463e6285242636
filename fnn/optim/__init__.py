"""Optimizers and gradient transforms as pure state transitions."""

from fnn.optim.adaptive import adam as adam
from fnn.optim.adaptive import adamw as adamw
from fnn.optim.adaptive import rmsprop as rmsprop
from fnn.optim.base import from_direction as from_direction
from fnn.optim.first_order import momentum as momentum
from fnn.optim.first_order import nesterov as nesterov
from fnn.optim.first_order import sgd as sgd
from fnn.optim.sign import lion as lion
from fnn.optim.transforms import chain as chain
from fnn.optim.transforms import clip_by_global_norm as clip_by_global_norm
from fnn.optim.transforms import clip_by_value as clip_by_value
