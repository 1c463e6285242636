"""The networks of `compiled.py`: their sizes, and the shapes of their batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LR, WEIGHT_DECAY, MOMENTUM = 1e-3, 0.1, 0.9


class Transformer(NamedTuple):
    """A stack of blocks; the first sizes are GPT-2's."""

    layers: int = 12
    features: int = 768
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 50304  # GPT-2's, rounded up to a multiple of 64
    length: int = 1024


GPT2 = Transformer()
LLAMA = Transformer(24, 2048, 16, 5504, 32000, 2048)
BERT = Transformer(vocabulary=30522, length=512)
VIT = Transformer(vocabulary=1000, length=197)  # classes; patches and a class token
PATCH, PIXELS = 16, 224


class Network(NamedTuple):
    title: str
    batch: int
    remat: bool = False  # of each block


NETWORKS = {
    "gpt2": Network("GPT-2 124M, 8 x 1,024 tokens", 8),
    "gpt2-remat": Network("GPT-2 124M, 8 x 1,024 tokens, blocks rematerialized", 8, True),
    "llama": Network("Llama-like 1.3B, 4 x 2,048 tokens, blocks rematerialized", 4, True),
    "bert": Network("BERT base, 32 x 512 tokens, masked language model", 32),
    "vit": Network("ViT-B/16, 128 images of 224 x 224", 128),
    "resnet50": Network("ResNet-50, 256 images of 224 x 224", 256),
}


def batch_of(name: str) -> tuple[Any, Any]:
    """The shapes of inputs and labels."""
    n, kind = NETWORKS[name].batch, name.partition("-")[0]
    if kind in ("vit", "resnet50"):
        images = jax.ShapeDtypeStruct((n, PIXELS, PIXELS, 3), jnp.float32)
        return images, jax.ShapeDtypeStruct((n,), jnp.int32)
    length = {"gpt2": GPT2, "llama": LLAMA, "bert": BERT}[kind].length
    tokens = jax.ShapeDtypeStruct((n, length), jnp.int32)
    return tokens, tokens
