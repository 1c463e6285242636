"""Standardization to mean 0 and standard deviation 1, with fitted statistics and an inverse."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from fnn.autodiff import magnitude, safe_sqrt
from fnn.data._arrays import expect_numbers
from fnn.dtypes import at_least_float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Standardizer:
    """The mean and standard deviation of a training set: a pytree that checkpoints can hold.

    >>> s = Standardizer(mean=jnp.array([[10.0]]), std=jnp.array([[2.0]]))
    >>> s.apply(jnp.array([[14.0]])).tolist(), s.invert(jnp.array([[2.0]])).tolist()
    ([[2.0]], [[14.0]])
    """

    mean: Float[Array, "..."]  # of the rank of the data; an axis that was averaged over has size 1
    std: Float[Array, "..."]  # 1 where the data do not vary by more than their rounding

    def apply(self, x: Num[Array, "batch *features"]) -> Float[Array, "batch *features"]:
        """(x - mean) / std.

        Raises: ValueError for features of another shape than the fitted ones.
        """
        self._expect_features("apply", x)
        return (x.astype(self.mean.dtype) - self.mean) / self.std

    def invert(self, z: Float[Array, "batch *features"]) -> Float[Array, "batch *features"]:
        """z std + mean, the inverse of `apply`.

        Raises: ValueError for features of another shape than the fitted ones.
        """
        self._expect_features("invert", z)
        return z.astype(self.mean.dtype) * self.std + self.mean

    def _expect_features(self, name: str, x: Array) -> None:
        expect_numbers(f"Standardizer.{name}", x)
        alike = x.ndim == self.mean.ndim and all(
            m in (1, n) for m, n in zip(self.mean.shape, x.shape, strict=True)
        )
        if not alike:
            raise ValueError(
                f"Standardizer.{name}: expected x to fit statistics of shape {self.mean.shape}, "
                f"got {x.shape}; give it the features that it was fitted on"
            )


def fit_standardizer(
    x: Num[Array, "..."], *, axis: int | tuple[int, ...] | None = 0
) -> Standardizer:
    """Mean and standard deviation over the examples.

        mean = sum_i x_i / n        std = sqrt(sum_i (x_i - mean)^2 / n)

    Fit it on the training part alone: statistics of the other parts are a leak. A deviation within
    the rounding of the data, max |x| eps, counts as 0, and std is 1 there as for a constant.

    Args:
      x: the batch axis first; integers and narrow floats are cast to float32.
      axis: axes to average over: 0 for statistics of each feature, (0, 1, 2) for those of each
        channel of images (N, H, W, C), None for a single mean and std.

    Returns: Standardizer, in at least float32. NaN in x makes its statistics NaN.
    Raises: ValueError for no examples, and for anything but an array of numbers.

    >>> s = fit_standardizer(jnp.array([[1.0, 5.0], [3.0, 5.0]]))   # the second is constant
    >>> s.mean.tolist(), s.std.tolist()
    ([[2.0, 5.0]], [[1.0, 1.0]])
    """
    expect_numbers("fit_standardizer", x)
    if x.ndim < 1 or x.size == 0:
        raise ValueError(
            f"fit_standardizer: expected at least one example, got shape {x.shape}; check the split"
        )
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    wide = jnp.asarray(x).astype(at_least_float32(x) if floating else jnp.float32)
    averaged = np.arange(x.ndim) if axis is None else np.arange(x.ndim)[np.atleast_1d(axis)]
    # Shifted by one of its values a constant is exactly 0, and large values do not cancel.
    origin = wide[tuple(slice(1 if a in averaged else None) for a in range(x.ndim))]
    scale = magnitude(wide - origin, axis)  # so that no sum and no square overflows
    shifted = (wide - origin) / scale
    mean = shifted.mean(axis=axis, keepdims=True)
    std = safe_sqrt(jnp.square(shifted - mean).mean(axis=axis, keepdims=True))
    largest = jnp.abs(lax.stop_gradient(wide)).max(axis=axis, keepdims=True)
    constant = scale * std <= largest * jnp.finfo(wide.dtype).eps
    return Standardizer(mean=origin + scale * mean, std=jnp.where(constant, 1, scale * std))
