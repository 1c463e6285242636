"""Conversion of weights, optimizers and models from and to other libraries."""

from fnn.interop import (
    equinox,
    export,
    haiku,
    huggingface,
    layouts,
    linen,
    nnx,
    optax,
    safetensors,
    torch,
    torchvision,
)
from fnn.interop.equinox import from_equinox, to_equinox
from fnn.interop.haiku import from_haiku
from fnn.interop.linen import from_linen, to_linen
from fnn.interop.nnx import from_nnx, to_nnx
from fnn.interop.optax import from_optax, to_optax
from fnn.interop.rules import Conversion, Layout, Rule, conversion, repeat

# fmt: off
__all__ = [
    "Conversion", "Layout", "Rule", "conversion", "equinox", "export", "from_equinox",
    "from_haiku", "from_linen", "from_nnx", "from_optax", "haiku", "huggingface", "layouts",
    "linen", "nnx", "optax", "repeat", "safetensors", "to_equinox", "to_linen", "to_nnx",
    "to_optax", "torch", "torchvision",
]
# fmt: on
