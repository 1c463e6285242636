"""Normalisation by the root mean square."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.layers.normalise import affine, affine_init, expect_features, normalise_rms
from fnn.types import Params, Scalar


def rms_norm_init(features: int) -> Params:
    """Parameters of `rms_norm`: {'scale': ones of shape (features,)}, float32.

    >>> rms_norm_init(2)['scale'].tolist()
    [1.0, 1.0]
    """
    return affine_init(features, bias=False)


@within(eps="[0, inf)")
def rms_norm(
    params: Params, x: Float[Array, "*batch features"], *, eps: Scalar = 1e-6
) -> Float[Array, "*batch features"]:
    """x / sqrt(mean of x^2 + eps) * scale, with the mean of each row.

    Args:
      x: (..., features); normalised over the last axis, in at least float32.
      eps: added to the mean square, in the unit of x squared.

    Returns: the shape and dtype of x. A row of zeros gives zeros.
    Raises: ValueError if the last axis of x does not fit the parameters.
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, equation 4. eps as in Flax and Keras; PyTorch
      takes the spacing of the dtype at 1, 1.2e-7 in float32.

    >>> rms_norm(rms_norm_init(2), jnp.array([[3.0, 3.0]])).round(3).tolist()
    [[1.0, 1.0]]
    """
    expect_features("rms_norm", params, x)
    wide = x.astype(at_least_float32(x))
    normalised = normalise_rms(wide, jnp.asarray(eps, wide.dtype))
    return affine(params, normalised).astype(x.dtype)
