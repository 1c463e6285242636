"""Matrices made orthogonal by matrix products alone."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.autodiff import safe_norm
from fnn.types import Scalar

# Keller Jordan's: as steep at 0 as they can be while every singular value in (0, 1] ends near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    x: Float[Array, "*n rows columns"],
    *,
    iterations: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: Scalar = 1e-7,
) -> Float[Array, "*n rows columns"]:
    """About U V^T, where x = U S V^T: the orthogonal factor of each matrix.

        x <- x / (||x||_F + eps)
        x <- a x + (b A + c A^2) x,   A = x x^T          5 times

    The polynomial acts on the singular values alone. With the coefficients given, those above a
    hundredth of the norm come to lie in [0.68, 1.14]: near 1, not at 1.

    Args:
      x: matrices, in the last two axes.
      iterations: 5, the published number, brings the values above 0.01 near 1.
      coefficients: a, b, c.
      eps: added to the norm, in its unit: matrices far below it come out small, and 0 stays 0.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Deviates: in the dtype
      of x, where the authors (and PyTorch) compute in bfloat16.

    >>> newton_schulz(jnp.diag(jnp.array([9.0, 0.5]))).round(1).tolist()
    [[0.699999988079071, 0.0], [0.0, 0.9000000357627869]]
    """
    a, b, c = coefficients
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT  # A is on the shorter side
    x = x / (safe_norm(x, (-2, -1)) + jnp.asarray(eps, x.dtype))
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x if wide else x.mT
