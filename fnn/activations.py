"""Activations: pure functions of an array, elementwise unless they take an axis.

Values and derivatives are free of NaN for all finite inputs, and for infinities where the function
has a limit. All preserve the dtype.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.autodiff import linear_call
from fnn.dtypes import at_least_float32
from fnn.expect import expect_real, within
from fnn.types import Scalar

# For larger |x| every gate below is exactly 0 or 1, in float64 too.
_SATURATED = 1e3


def _clamp(x: Array, low: Scalar, high: Scalar) -> Array:
    """x clipped to [low, high], with derivative 0 at both ends, as in PyTorch."""
    return lax.clamp(jnp.asarray(low, x.dtype), x, jnp.asarray(high, x.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gated(gate: Callable[[Array], Array], x: Array) -> Array:
    """x gate(x), for a gate with limits 0 at -inf and 1 at inf."""
    return _times_gate(x, gate(x))


@_gated.defjvp
def _gated_jvp(gate: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    # Clipping once costs less on a CPU than selects around each infinity. The backward pass reads
    # the slope alone: a scan would save each of the intermediate values of its product with dx.
    (x,), (dx,) = primals, tangents
    inside = jnp.clip(x, -_SATURATED, _SATURATED)
    g, dg = jax.jvp(gate, (inside,), (jnp.ones_like(inside),))
    return _times_gate(x, g), (g + inside * dg) * dx


def _times_gate(x: Array, gate: Array) -> Array:
    return jnp.where(x < -_SATURATED, 0, x * gate)  # -inf * 0 would be NaN


def relu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """max(x, 0), with derivative 0 at 0.

    >>> relu(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return _relu(jnp.asarray(x))


@jax.custom_jvp
def _relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


@_relu.defjvp
def _relu_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # From the output, which the next layer saves anyway, rather than from a mask.
    y = _relu(*primals)
    return y, linear_call(_where_positive, _where_positive, y, *tangents)


def _where_positive(y: Array, dx: Array) -> Array:
    """The derivative of relu; its own transpose."""
    return jnp.where(y == 0, 0, dx)  # of y > 0, XLA would make x > 0, and keep x as well


def relu6(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """min(max(x, 0), 6), with derivative 0 at 0 and at 6.

    Source: Krizhevsky 2010, Convolutional deep belief networks on CIFAR-10.

    >>> relu6(jnp.array([-1.0, 2.0, 7.0])).tolist()
    [0.0, 2.0, 6.0]
    """
    return _clamp(x, 0.0, 6.0)


def squared_relu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """max(x, 0)^2.

    Source: So et al. 2021, arXiv:2109.08668 (Primer).

    >>> squared_relu(jnp.array([-1.0, 3.0])).tolist()
    [0.0, 9.0]
    """
    return jnp.square(relu(x))


def leaky_relu(
    x: Float[Array, "*n"], slope: Scalar | Float[Array, "..."] = 0.01
) -> Float[Array, "*n"]:
    """x where x > 0, and slope x elsewhere; the derivative at 0 is the slope.

    Args:
      slope: for x < 0; may be traced, or an array that broadcasts against x. The default is that of
        JAX, Flax and PyTorch; Keras uses 0.2 in its function and 0.3 in its layer.

    Source: Maas, Hannun & Ng 2013, Rectifier nonlinearities improve neural network acoustic models.

    >>> leaky_relu(jnp.array([-2.0, 2.0]), slope=0.5).tolist()
    [-1.0, 2.0]
    """
    return jnp.where(x > 0, x, jnp.asarray(slope, x.dtype) * x)


def elu(x: Float[Array, "*n"], alpha: Scalar = 1.0) -> Float[Array, "*n"]:
    """x where x > 0, and alpha (exp(x) - 1) elsewhere.

    Args:
      alpha: the limit at -inf is -alpha; may be traced. All peers use 1.

    Source: Clevert, Unterthiner & Hochreiter 2016, arXiv:1511.07289.

    >>> elu(jnp.array([-jnp.inf, 2.0])).tolist()
    [-1.0, 2.0]
    """
    a = jnp.asarray(alpha, x.dtype)
    return jnp.where(x > 0, x, a * jnp.expm1(jnp.where(x > 0, 0, x)))


@within(alpha="(0, inf)")
def celu(x: Float[Array, "*n"], alpha: Scalar = 1.0) -> Float[Array, "*n"]:
    """x where x > 0, and alpha (exp(x / alpha) - 1) elsewhere: continuously differentiable.

    Args:
      alpha: above 0; the limit at -inf is -alpha; may be traced. All peers use 1.

    Source: Barron 2017, arXiv:1704.07483.

    >>> celu(jnp.array([-jnp.inf, 2.0]), alpha=0.5).tolist()
    [-0.5, 2.0]
    """
    a = jnp.asarray(alpha, x.dtype)
    return jnp.where(x > 0, x, a * jnp.expm1(jnp.where(x > 0, 0, x) / a))


def selu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1.0507 elu(x, 1.6733): preserves zero mean and unit variance across layers.

    Source: Klambauer et al. 2017, arXiv:1706.02515, equation 2 and the digits of appendix A.

    >>> f"{selu(jnp.array(1.0)):.4f} {selu(jnp.array(-jnp.inf)):.4f}"
    '1.0507 -1.7581'
    """
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x Phi(x), with Phi the distribution function of the standard normal; exact, by erf.

    The default gelu of PyTorch and Keras; that of JAX and Flax is `gelu_tanh`, which differs by up
    to 0.0005.

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.

    >>> f"{gelu(jnp.array(1.0)):.4f}"
    '0.8413'
    """
    return _gated(_normal_cdf, x)


def _normal_cdf(x: Array) -> Array:
    expect_real("gelu", x)
    # XLA:CPU computes erf several times faster than the erfc of jax.nn.gelu.
    return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, the approximation of `gelu` in GPT-2.

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.

    >>> f"{gelu_tanh(jnp.array(1.0)):.4f}"
    '0.8412'
    """
    return _gated(_tanh_cdf, x)


def _tanh_cdf(x: Array) -> Array:
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)))


def silu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x sigmoid(x), also known as swish.

    Source: Elfwing, Uchibe & Doya 2018, arXiv:1702.03118.

    >>> f"{silu(jnp.array(1.0)):.4f}"
    '0.7311'
    """
    return _gated(lax.logistic, x)


def mish(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x tanh(softplus(x)).

    Source: Misra 2019, arXiv:1908.08681.

    >>> f"{mish(jnp.array(1.0)):.4f}"
    '0.8651'
    """
    return _gated(_tanh_of_softplus, x)


def _tanh_of_softplus(x: Array) -> Array:
    return jnp.tanh(softplus(x))


def softplus(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(1 + exp(x)). PyTorch replaces it by x above 20, with an error of 2e-9.

    Source: Dugas et al. 2001, Incorporating second-order functional knowledge.

    >>> f"{softplus(jnp.array(0.0)):.4f}"   # log 2
    '0.6931'
    """
    return jax.nn.softplus(x)


def softsign(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x / (1 + |x|), in (-1, 1).

    Source: Bergstra et al. 2009, Quadratic polynomials learn better image features.

    >>> softsign(jnp.array([-1.0, jnp.inf])).tolist()
    [-0.5, 1.0]
    """
    largest = float(jnp.finfo(x.dtype).max)
    finite = _clamp(x, -largest, largest)
    return finite / (1 + jnp.abs(finite))


def tanh(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Hyperbolic tangent, in (-1, 1).

    >>> tanh(jnp.array([0.0])).tolist()
    [0.0]
    """
    return jnp.tanh(x)


def sigmoid(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 / (1 + exp(-x)), in (0, 1).

    >>> sigmoid(jnp.array([-jnp.inf, 0.0])).tolist()
    [0.0, 0.5]
    """
    return lax.logistic(x)


def log_sigmoid(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(sigmoid(x)) = -softplus(-x): accurate also where the sigmoid rounds to 0.

    >>> log_sigmoid(jnp.array([-1e4])).tolist()
    [-10000.0]
    """
    return -softplus(-x)


def hard_tanh(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """min(max(x, -1), 1), with derivative 0 at -1 and at 1.

    >>> hard_tanh(jnp.array([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    return _clamp(x, -1.0, 1.0)


def hard_sigmoid(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """relu6(x + 3) / 6, as in JAX, PyTorch and Keras 3; Keras 2 used the slope 0.2, not 1/6.

    Source: Howard et al. 2019, arXiv:1905.02244, section 5.2.

    >>> hard_sigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return relu6(x + 3) / 6


def hard_silu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """x hard_sigmoid(x), also known as hard swish.

    Source: Howard et al. 2019, arXiv:1905.02244, section 5.2.

    >>> hard_silu(jnp.array([-4.0, 0.0, 4.0])).tolist()
    [-0.0, 0.0, 4.0]
    """
    return _gated(hard_sigmoid, x)


def snake(
    x: Float[Array, "*n"], frequency: Scalar | Float[Array, "..."] = 1.0
) -> Float[Array, "*n"]:
    """x + sin^2(a x) / a, for periodic signals; `layers.snake` learns the frequency.

    Args:
      frequency: a, in radians per unit of x; may be traced, or an array that broadcasts against x.
        For a = 0 the result is the limit, x.

    Returns: the shape and dtype of x; infinities are kept, with derivative 1.
    Source: Ziyin, Hartwig & Ueda 2020, arXiv:2006.08195, equation 3.

    >>> f"{snake(jnp.array(0.5 * jnp.pi)):.4f}"   # pi / 2 + 1
    '2.5708'
    """
    a = jnp.asarray(frequency, x.dtype)
    tiny = jnp.abs(a) < 1e-15  # sin^2(a x) / a is a x^2 there, without the division by 0
    finite = jnp.where(jnp.isinf(x), 0, x)
    wave = jnp.square(jnp.sin(a * finite)) / jnp.where(tiny, 1, a)
    short = jnp.where(tiny, finite, 0)
    return x + jnp.where(tiny, a * short * short, wave)


def glu(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """a sigmoid(b), with a and b the first and second half of x along `axis`.

    Returns: the shape of x with half the size along `axis`.
    Raises: ValueError for an odd length.
    Source: Dauphin et al. 2017, arXiv:1612.08083.

    >>> glu(jnp.array([2.0, 4.0, 0.0, 100.0])).tolist()
    [1.0, 4.0]
    """
    if x.shape[axis] % 2:
        raise ValueError(
            f"glu: expected an even size along axis {axis}, got {x.shape}; "
            "half of it gates the other half"
        )
    a, b = jnp.split(x, 2, axis=axis)
    return a * sigmoid(b)


def _shifted(x: Array, axis: int) -> Array:
    """x - max(x) along `axis` in at least float32; beside +inf all are -inf, and -inf is kept."""
    wide = x.astype(at_least_float32(x))
    top = lax.stop_gradient(wide.max(axis=axis, keepdims=True))
    shifted = wide - jnp.where(jnp.isinf(top), 0, top)
    return jnp.where(jnp.isposinf(top), jnp.where(jnp.isposinf(x), 0, -jnp.inf), shifted)


def softmax(x: Float[Array, "*n"], axis: int = -1) -> Float[Array, "*n"]:
    """exp(x) / sum(exp(x)) along `axis`, with statistics in at least float32.

    Entries of -inf have probability 0; a row of only -inf gives 0, not NaN.

    >>> softmax(jnp.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    unnormalized = jnp.exp(_shifted(x, axis))
    total = unnormalized.sum(axis=axis, keepdims=True)
    return (unnormalized / jnp.where(total > 0, total, 1)).astype(x.dtype)


def log_softmax(x: Float[Array, "*n"], axis: int = -1) -> Float[Array, "*n"]:
    """log(softmax(x)) along `axis`: accurate also where the softmax rounds to 0.

    Entries of -inf stay -inf, also in a row of only -inf.

    >>> log_softmax(jnp.array([0.0, 1e4])).tolist()
    [-10000.0, 0.0]
    """
    shifted = _shifted(x, axis)
    total = jnp.exp(shifted).sum(axis=axis, keepdims=True)
    return (shifted - jnp.log(jnp.where(total > 0, total, 1))).astype(x.dtype)


def sparsemax(x: Float[Array, "*n"], axis: int = -1) -> Float[Array, "*n"]:
    """Euclidean projection of x onto the probability simplex along `axis`: sparse probabilities.

        p = max(x - t, 0),    with t such that sum(p) = 1

    Entries of -inf give 0; a row of only -inf gives 0, not NaN.

    Source: Martins & Astudillo 2016, arXiv:1602.02068, algorithm 1.

    >>> sparsemax(jnp.array([0.5, 0.0, -2.0])).tolist()
    [0.75, 0.25, 0.0]
    """
    z = _shifted(x, axis)
    support = lax.stop_gradient(z > _threshold(jnp.moveaxis(z, axis, -1), axis))
    size = jnp.maximum(support.sum(axis=axis, keepdims=True), 1).astype(z.dtype)
    # The threshold as a function of x with a constant support, which is exact locally.
    t = (jnp.where(support, z, 0).sum(axis=axis, keepdims=True) - 1) / size
    return jnp.where(support, z - t, 0).astype(x.dtype)


def _threshold(z: Array, axis: int) -> Array:
    """t for the rows of z, whose largest element is 0."""
    descending = -jnp.sort(-z, axis=-1)
    k = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    k = jnp.expand_dims(k, tuple(range(z.ndim - 1)))
    excess = jnp.cumsum(descending, axis=-1) - 1
    t = jnp.where(k * descending > excess, excess / k, -jnp.inf).max(axis=-1, keepdims=True)
    return jnp.moveaxis(t, -1, axis)
