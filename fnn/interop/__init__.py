"""Weights from elsewhere, optimizers from elsewhere, and models for elsewhere."""

from fnn.interop import export as export
from fnn.interop import huggingface as huggingface
from fnn.interop import layouts as layouts
from fnn.interop import optax as optax
from fnn.interop import safetensors as safetensors
from fnn.interop import torch as torch
from fnn.interop import torchvision as torchvision
from fnn.interop.rules import Conversion as Conversion
from fnn.interop.rules import Layout as Layout
from fnn.interop.rules import Rule as Rule
from fnn.interop.rules import conversion as conversion
from fnn.interop.rules import repeat as repeat

# fmt: off
__all__ = [
    "Conversion", "Layout", "Rule", "conversion", "export", "huggingface", "layouts", "optax",
    "repeat", "safetensors", "torch", "torchvision",
]
# fmt: on
