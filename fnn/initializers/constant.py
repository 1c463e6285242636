"""Deterministic initializers: constants and identity kernels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn.initializers.base import Initializer, Shape, fans
from fnn.types import PRNGKey, Scalar


def zeros(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    """All zeros; the key may be None.

    >>> zeros(None, (2,)).tolist()
    [0.0, 0.0]
    """
    return jnp.zeros(shape, dtype)


def ones(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    """All ones; the key may be None.

    >>> ones(None, (2,)).tolist()
    [1.0, 1.0]
    """
    return jnp.ones(shape, dtype)


def constant(value: Scalar) -> Initializer:
    """A constant, which may be traced; the key may be None.

    >>> constant(0.5)(None, (2,)).tolist()
    [0.5, 0.5]
    """

    def init(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

    return init


def identity(scale: Scalar = 1.0) -> Initializer:
    """The identity matrix times `scale`; the key may be None.

    Non-square kernels pass through the first min(in, out) features.

    Raises: ValueError, from the initializer, for a shape without exactly two axes.
    Source: Le, Jaitly & Hinton 2015, arXiv:1504.00941, for recurrent relu layers.

    >>> identity()(None, (2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    def init(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        if len(shape) != 2:
            raise ValueError(
                f"initializers.identity: expected a kernel of shape (in, out), got {shape}; "
                "use dirac for convolutions"
            )
        return jnp.asarray(scale, dtype) * jnp.eye(*shape, dtype=dtype)

    return init


def dirac(*, groups: int = 1) -> Initializer:
    """The identity kernel of a convolution: 1 at the center of the window, 0 elsewhere.

    In each group, output d is input d for d < min(in, out). The key may be None.

    Args:
      groups: of the convolution, whose kernel is (*window, in / groups, out).

    Raises: ValueError, from the initializer, for a kernel without a window, and for groups that do
      not divide the outputs.
    Source: Zagoruyko & Komodakis 2017, arXiv:1706.00388. Deviates: the center of an even window is
      that of SAME padding, (size - 1) // 2; PyTorch uses size // 2.

    >>> dirac()(None, (3, 1, 2))[:, 0].T.tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """

    def init(key: PRNGKey | None, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        inputs, outputs = shape[-2:] if len(shape) > 2 else fans(shape)
        if len(shape) < 3 or groups < 1 or outputs % groups:
            raise ValueError(
                f"initializers.dirac: expected a kernel of shape (*window, in, out) with outputs "
                f"that {groups} groups divide, got {shape}; use identity for matrices"
            )
        one_group = np.eye(inputs, outputs // groups)
        kernel = np.zeros(shape)
        kernel[middle(shape)] = np.tile(one_group, (1, groups))
        return jnp.asarray(kernel, dtype)

    return init


def middle(shape: Shape) -> tuple[int, ...]:
    """The index in a kernel's window that SAME padding aligns with the output: (1, 1) for 3 x 4."""
    return tuple((size - 1) // 2 for size in shape[:-2])
