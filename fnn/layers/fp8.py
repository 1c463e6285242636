"""Products in 8-bit floats: e4m3 for inputs and kernels, e5m2 for gradients."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.autodiff import linear_call
from fnn.types import Params
from fnn.xla import rows_times

FP8 = "fp8"  # the entry of a layer's parameters, beside 'kernel', that asks for 8 bits
FORWARD, BACKWARD = jnp.float8_e4m3fn, jnp.float8_e5m2
FIRST_GRAD_SCALE = 2.0**14  # while a history is empty: gradients of mean losses are small
ROLES = ("x", "kernel", "grad")  # the rows of a history


def product(
    params: Params, x: Float[Array, "*batch in"], kernel: Float[Array, "in out"]
) -> Float[Array, "*batch out"]:
    """x K, in 8 bits where `params` have an entry 'fp8' beside the kernel.

    The entry, which `nn.fp8` adds, is {} or a history of largest magnitudes, (3, n) for x, the
    kernel and the gradient of the output. The scale of each is 2^k with the largest k at which the
    history's maximum (for {}, that of the array itself) is representable; larger values saturate,
    infinities become NaN.

        y = q(s_x x) q(s_k K) / (s_x s_k)        dx = q(s_g dy) q(s_k K)^T / (s_g s_k)

    Returns: (..., out), in the dtype of x. The cotangent of a history is not a derivative: it holds
      the magnitudes of this call in column 0 and ones, which count the calls, in column 1.

    >>> x, kernel = jnp.array([[1.0, 0.3]]), jnp.ones((2, 1))
    >>> product({'fp8': {}}, x, kernel).tolist()   # of 1 and 0.3125
    [[1.3125]]
    """
    entry = params.get(FP8)
    if isinstance(entry, Watched):
        entry.seen[entry.path] = params["kernel"].ndim
        entry = None
    if entry is None:
        return rows_times(x, kernel)
    rows = x.reshape(-1, x.shape[-1])
    history = None if isinstance(entry, dict) else entry.astype(jnp.float32)
    y = _product(rows, kernel.astype(x.dtype), history)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


class Watched:
    """An entry that notes the number of axes that a kernel has where it is multiplied."""

    def __init__(self, path: str, seen: dict[str, int]) -> None:
        self.path, self.seen = path, seen


jax.tree_util.register_pytree_node(Watched, lambda w: ((), w), lambda w, _: w)


@jax.custom_jvp
def _product(x: Array, kernel: Array, history: Array | None) -> Array:
    return _multiply(_quantized(x, kernel, history), x.dtype)


@_product.defjvp
def _derivative(primals: Any, tangents: Any) -> tuple[Array, Array]:
    held = _quantized(*primals)
    return _multiply(held, primals[0].dtype), linear_call(_tangent, _cotangent, held, tangents)


class _Quantized(NamedTuple):
    """What the backward pass keeps: the operands in 8 bits."""

    x: Array
    kernel: Array
    x_scale: Array
    kernel_scale: Array
    grad_scale: Array | None  # None: that of each gradient itself
    history: Array | None  # the first two rows of the history's cotangent


def _quantized(x: Array, kernel: Array, history: Array | None) -> _Quantized:
    if history is None:
        largest, grad_scale, noted = jnp.stack([_magnitude(x), _magnitude(kernel)]), None, None
    else:
        largest = history.max(axis=1)
        first = largest[2] == 0
        grad_scale = jnp.where(first, FIRST_GRAD_SCALE, _scale(largest[2], BACKWARD))
        noted = jnp.stack([_noted(x, history), _noted(kernel, history)])
    x_scale, kernel_scale = (_scale(a, FORWARD) for a in largest[:2])
    return _Quantized(
        _quantize(x, x_scale, FORWARD),
        _quantize(kernel, kernel_scale, FORWARD),
        x_scale,
        kernel_scale,
        grad_scale,
        noted,
    )


def _noted(x: Array, history: Array) -> Float[Array, " n"]:
    """A row of the cotangent of a history."""
    return jnp.zeros(history.shape[1]).at[:2].set(jnp.stack([_magnitude(x), jnp.float32(1)]))


def _magnitude(x: Array) -> Float[Array, ""]:
    """The largest finite |x|."""
    size = jnp.abs(x.astype(jnp.float32))
    return jnp.where(jnp.isfinite(size), size, 0).max(initial=0)


def _scale(magnitude: Array, dtype: Any) -> Float[Array, ""]:
    """A power of two, so that scaling rounds nothing; 1 for a magnitude of 0."""
    most = float(jnp.finfo(dtype).max)
    ratio = most / jnp.where(magnitude > 0, magnitude, most)
    _, exponent = jnp.frexp(ratio)  # ratio = m 2^exponent with 0.5 <= m < 1
    # Neither the scale nor its inverse may be a denormal.
    return jnp.ldexp(jnp.float32(1), jnp.clip(exponent - 1, -120, 120))


def _quantize(x: Array, scale: Array, dtype: Any) -> Array:
    most = float(jnp.finfo(dtype).max)
    scaled = x.astype(jnp.float32) * scale
    return jnp.where(jnp.isinf(scaled), jnp.nan, jnp.clip(scaled, -most, most)).astype(dtype)


def _dot(a: Array, b: Array, axes: tuple[int, int], scales: Sequence[Array], dtype: Any) -> Array:
    """The product of two matrices over one axis each, divided by their scales."""
    contracted = (((axes[0],), (axes[1],)), ((), ()))
    y = lax.dot_general(a, b, contracted, preferred_element_type=jnp.float32)
    return (y / scales[0] / scales[1]).astype(dtype)


def _multiply(q: _Quantized, dtype: Any) -> Array:
    return _dot(q.x, q.kernel, (1, 0), (q.x_scale, q.kernel_scale), dtype)


def _tangent(q: _Quantized, moved: Any) -> Array:
    x, kernel, _ = moved  # a history does not move
    wide = lambda a, scale: a.astype(jnp.float32) / scale  # noqa: E731
    y = jnp.dot(x.astype(jnp.float32), wide(q.kernel, q.kernel_scale))
    return (y + jnp.dot(wide(q.x, q.x_scale), kernel.astype(jnp.float32))).astype(x.dtype)


def _cotangent(q: _Quantized, grad: Array) -> Any:
    scale = _scale(_magnitude(grad), BACKWARD) if q.grad_scale is None else q.grad_scale
    g = _quantize(grad, scale, BACKWARD)
    x = _dot(g, q.kernel, (1, 1), (scale, q.kernel_scale), grad.dtype)
    kernel = _dot(q.x, g, (0, 0), (q.x_scale, scale), grad.dtype)
    if q.history is None:
        return x, kernel, None
    return x, kernel, jnp.concatenate([q.history, _noted(grad, q.history)[None]])
