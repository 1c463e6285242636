"""Conversion of weights, optimizers and models from and to other libraries."""

from fnn.interop import export, huggingface, layouts, optax, safetensors, torch, torchvision
from fnn.interop.rules import Conversion, Layout, Rule, conversion, repeat

# fmt: off
__all__ = [
    "Conversion", "Layout", "Rule", "conversion", "export", "huggingface", "layouts", "optax",
    "repeat", "safetensors", "torch", "torchvision",
]
# fmt: on
