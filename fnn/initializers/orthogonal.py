"""Orthogonal initializers, also for convolutions and for kernels of several gates."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.initializers.base import Initializer, Shape, fans
from fnn.initializers.constant import middle
from fnn.types import PRNGKey, Scalar


def orthogonal(scale: Scalar = 1.0) -> Initializer:
    """A matrix with orthonormal rows or columns, whichever are fewer, times `scale`.

    All axes but the last are merged.

    Source: Saxe et al. 2014, arXiv:1312.6120. Multiplying Q by the signs of R's diagonal makes the
    distribution uniform over orthogonal matrices (Mezzadri 2007).

    >>> q = orthogonal()(jax.random.key(0), (4, 3))
    >>> bool(jnp.allclose(q.T @ q, jnp.eye(3), atol=1e-5))
    True
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        fans(shape)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        wide = at_least_float32(jnp.zeros((), dtype))
        q, r = jnp.linalg.qr(jax.random.normal(key, (max(rows, columns), min(rows, columns)), wide))
        q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(wide)[None]
        q = q if rows >= columns else q.T
        return (jnp.asarray(scale, wide) * q.reshape(shape)).astype(dtype)

    return init


def delta_orthogonal(scale: Scalar = 1.0) -> Initializer:
    """A convolution kernel that is orthogonal at the center of its window, and 0 elsewhere.

    It preserves the norm of the features at every position, so that plain convolutional networks of
    thousands of layers train.

    Raises: ValueError, from the initializer, for a kernel without a window, and for fewer outputs
      than inputs.
    Source: Xiao et al. 2018, arXiv:1806.05393, section 3.3. The center of an even window is that of
      SAME padding, as in JAX.

    >>> kernel = delta_orthogonal()(jax.random.key(0), (3, 2, 2))
    >>> bool(jnp.allclose(kernel[1].T @ kernel[1], jnp.eye(2), atol=1e-5)), kernel[0].tolist()
    (True, [[0.0, 0.0], [0.0, 0.0]])
    """
    matrix = orthogonal(scale)

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        if len(shape) < 3 or shape[-2] > shape[-1]:
            raise ValueError(
                f"initializers.delta_orthogonal: expected a kernel of shape (*window, in, out) "
                f"with at least as many outputs as inputs, got {shape}; use orthogonal"
            )
        return jnp.zeros(shape, dtype).at[middle(shape)].set(matrix(key, shape[-2:], dtype))

    return init


def blockwise(initializer: Initializer) -> Initializer:
    """Square blocks side by side, each drawn separately: for recurrent kernels of several gates.

    Raises: ValueError, from the initializer, for a shape other than (rows, n * rows).

    >>> kernel = blockwise(orthogonal())(jax.random.key(0), (2, 6))
    >>> bool(jnp.allclose(kernel[:, 2:4].T @ kernel[:, 2:4], jnp.eye(2), atol=1e-5))
    True
    """

    def init(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        if len(shape) != 2 or shape[1] % max(shape[0], 1):
            raise ValueError(
                f"initializers.blockwise: expected a kernel (rows, n * rows), got {shape}; "
                "use the initializer itself"
            )
        rows, columns = shape
        if not rows * columns:
            return jnp.zeros(shape, dtype)
        blocks = [
            initializer(jax.random.fold_in(key, block), (rows, rows), dtype)
            for block in range(columns // rows)
        ]
        return jnp.concatenate(blocks, axis=1)

    return init
