"""CIFAR-10 as the input of a network."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

# Of each channel, in the training part.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cifar_normalize(x: Num[Array, "n height width 3"]) -> Float[Array, "n height width 3"]:
    """Bytes to float32 of mean 0 and standard deviation 1 in each channel."""
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (MEAN, STD))
    return (x.astype(jnp.float32) / 255 - mean) / std
