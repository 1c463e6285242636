"""How torch, Flax and Keras start their layers: the arguments that make fnn's start alike.

Each function is named for a layer and gives keyword arguments of that layer and of its init:
`linear(10, **presets.torch.linear(784))`, `layer_norm(**presets.keras.layer_norm())`. Sizes are
arguments only where a default depends on them and the shape of the parameter does not show them.
"""

from fnn.arguments import check_exports
from fnn.initializers.presets import flax, keras, torch

__all__ = ["flax", "keras", "torch"]

check_exports(__name__)
