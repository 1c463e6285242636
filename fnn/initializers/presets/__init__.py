"""Default initializations of torch, Flax and Keras, as arguments of fnn's layers.

Each function is named for a layer and returns keyword arguments for it:
`linear(10, **presets.torch.linear(784))`, `layer_norm(**presets.keras.layer_norm())`. It takes the
sizes that a default depends on, unless the shape of the parameter shows them.
"""

from fnn._arguments import check_exports
from fnn.initializers.presets import flax, keras, torch

__all__ = ["flax", "keras", "torch"]

check_exports(__name__)
