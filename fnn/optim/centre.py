"""Gradients with the mean taken out."""

import jax
from jaxtyping import Array

from fnn.dtypes import at_least_float32
from fnn.types import Transform


def centralise() -> Transform:
    """Take the mean out of the gradient of each unit of a kernel.

        g_i <- g_i - mean(g_i)   over all axes but the last, for leaves of two axes and more

    The mean of each unit's weights then stays what it was at the start (under gradient descent):
    a regulariser that costs nothing. Put it last, just before the optimizer.

    State: (). Vectors and scalars pass as they are.
    Source: Yong et al. 2020, arXiv:2004.01461, equation 1.
    Compat: Optax's centralize averages over all axes but the first, which is the same for kernels
      (out, in), and another thing for kernels (in, out) as Flax and fnn have them.

    >>> grads = {'kernel': jnp.array([[1.0, 5.0], [3.0, 5.0]]), 'bias': jnp.array([1.0, 2.0])}
    >>> centred, _ = centralise().update(grads, (), {})
    >>> centred['kernel'].tolist(), centred['bias'].tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [1.0, 2.0])
    """

    def leaf(g: Array) -> Array:
        if g.ndim < 2:
            return g
        mean = g.mean(axis=tuple(range(g.ndim - 1)), keepdims=True, dtype=at_least_float32(g))
        return (g.astype(mean.dtype) - mean).astype(g.dtype)

    return Transform(init=lambda params: (), update=lambda g, s, p: (jax.tree.map(leaf, g), s))
