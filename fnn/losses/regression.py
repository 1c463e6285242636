"""Regression losses: means over the features of each example."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from fnn.expect import within
from fnn.losses._elements import Mask, aligned, magnitude, mean_of_example, weighted
from fnn.types import Scalar, Weighted

Predictions = Float[Array, "batch *features"]
Targets = Num[Array, "..."]
PerExample = Float[Array, " batch"] | Weighted


def mean_squared_error(
    predictions: Predictions, targets: Targets, *, where: Mask = None
) -> PerExample:
    """Mean over the features of (prediction - target)^2, per example.

    Args:
      predictions, targets: the same shape; the first axis is the batch.
      where: mask of the same shape; True counts.

    Returns: float of shape (batch,), at least 0. With `where`, a Weighted: the mean over the
      elements that count, weighted by their number.
    Raises: ValueError if the shapes differ: (n, 1) against (n,) would broadcast to (n, n).

    >>> mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])).tolist()
    [2.0]
    """
    predictions, targets = aligned("mean_squared_error", predictions, targets, where)
    return mean_of_example(jnp.square(predictions - targets), where)


def mean_absolute_error(
    predictions: Predictions, targets: Targets, *, where: Mask = None
) -> PerExample:
    """Mean over the features of |prediction - target|, with derivative 0 at 0.

    Args, Returns, Raises: as in `mean_squared_error`.

    >>> mean_absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])).tolist()
    [1.0]
    """
    predictions, targets = aligned("mean_absolute_error", predictions, targets, where)
    return mean_of_example(magnitude(predictions - targets), where)


@within(delta="(0, inf)")
def huber(
    predictions: Predictions, targets: Targets, *, delta: Scalar = 1.0, where: Mask = None
) -> PerExample:
    """Huber loss: quadratic for small errors e and linear for large ones.

        l = e^2 / 2                        |e| <= delta
        l = delta (|e| - delta / 2)        otherwise

    Args:
      predictions, targets, where: as in `mean_squared_error`.
      delta: threshold, in the unit of the targets, above 0; may be traced. All peers use 1.
        PyTorch's smooth_l1_loss with beta = delta is this divided by delta.

    Returns, Raises: as in `mean_squared_error`.
    Source: Huber 1964, Robust estimation of a location parameter.

    >>> huber(jnp.array([[0.5], [3.0]]), jnp.zeros((2, 1))).tolist()
    [0.125, 2.5]
    """
    predictions, targets = aligned("huber", predictions, targets, where)
    delta = jnp.asarray(delta, predictions.dtype)
    error = predictions - targets
    small = jnp.abs(error) <= delta
    square = 0.5 * jnp.square(jnp.where(small, error, 0))
    return mean_of_example(jnp.where(small, square, delta * (jnp.abs(error) - 0.5 * delta)), where)


def log_cosh(predictions: Predictions, targets: Targets, *, where: Mask = None) -> PerExample:
    """log cosh(prediction - target): about e^2 / 2 for small errors, |e| - log 2 for large ones.

    Args, Returns, Raises: as in `mean_squared_error`.
    Source: Chen et al. 2019, Log hyperbolic cosine loss improves variational auto-encoder.

    >>> f"{log_cosh(jnp.array([1e4]), jnp.array([0.0]))[0]:.3f}"
    '9999.307'
    """
    predictions, targets = aligned("log_cosh", predictions, targets, where)
    error = predictions - targets
    small = jnp.abs(error) < 1
    # By cosh(e) = 1 + 2 sinh(e/2)^2, since near 0 cosh rounds to 1.
    near = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.where(small, error, 0))))
    size = jnp.abs(jnp.where(small, 1, error))
    far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return mean_of_example(jnp.where(small, near, far), where)


@within(q="[0, 1]")
def quantile(
    predictions: Predictions, targets: Targets, *, q: Scalar, where: Mask = None
) -> PerExample:
    """Quantile (pinball) loss, minimal where a fraction q of the targets is below the prediction.

        l = max(q e, (q - 1) e),    e = target - prediction

    Args:
      predictions, targets, where: as in `mean_squared_error`.
      q: the quantile, in [0, 1]; may be traced. At 0.5 the loss is half the absolute error.

    Returns, Raises: as in `mean_squared_error`.
    Source: Koenker & Bassett 1978, Regression quantiles.

    >>> quantile(jnp.array([0.0, 0.0]), jnp.array([4.0, -4.0]), q=0.75).tolist()
    [3.0, 1.0]
    """
    predictions, targets = aligned("quantile", predictions, targets, where)
    q = jnp.asarray(q, predictions.dtype)
    error = targets - predictions
    return mean_of_example(jnp.where(error > 0, q * error, (q - 1) * error), where)


def poisson(log_rates: Predictions, targets: Targets, *, where: Mask = None) -> PerExample:
    """Poisson negative log-likelihood, without its constant log(y!).

        l = exp(z) - y z

    Args:
      log_rates: z, the logarithm of the expected count.
      targets: y, counts of at least 0, of the same shape.
      where: mask of the same shape; True counts.

    Returns: float of shape (batch,), minimal at z = log y and negative there for y > e. As
      PyTorch's default; Keras takes the rate instead of its logarithm.
    Raises: ValueError if the shapes differ.

    >>> poisson(jnp.array([0.0]), jnp.array([2])).tolist()
    [1.0]
    """
    z, y = aligned("poisson", log_rates, targets, where)
    return mean_of_example(jnp.exp(z) - weighted(y, z), where)


def gaussian_nll(
    predictions: tuple[Predictions, Targets], targets: Targets, *, where: Mask = None
) -> PerExample:
    """Gaussian negative log-likelihood, without its constant log(2 pi) / 2.

        l = (s + (y - m)^2 exp(-s)) / 2

    Args:
      predictions: a pair (m, s) of mean and log variance, of the same shape. PyTorch takes the
        variance, which it has to clip.
      targets: y, of the same shape.
      where: mask of the same shape; True counts.

    Returns: float of shape (batch,), negative for small variances.
    Raises: ValueError if the shapes differ.
    Source: Nix & Weigend 1994, Estimating the mean and variance of the target distribution.

    >>> gaussian_nll((jnp.array([1.0]), jnp.array([0.0])), jnp.array([3.0])).tolist()
    [2.0]
    """
    mean, y = aligned("gaussian_nll", predictions[0], targets, where)
    s, _ = aligned("gaussian_nll", predictions[1], targets, where)
    error = y - mean
    exact = (error == 0) & (s < -80)  # where exp(-s) overflows, and 0 * inf would be NaN
    square = jnp.square(error * jnp.exp(-0.5 * jnp.where(exact, 0, s)))
    return mean_of_example(0.5 * (s + square), where)
