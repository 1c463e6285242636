"""Normalization of kernels instead of activations: by column length, and by largest stretch."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.autodiff import huge, safe_norm
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.keys import fold_name
from fnn.types import ModelState, Params, PRNGKey, Scalar


def weight_norm_init(kernel: Float[Array, "*in out"]) -> Params:
    """Parameters of `weight_norm` that give back `kernel`.

    Args:
      kernel: (..., out); no output's weights may all be 0, or they stay 0 for ever.

    Returns: {'direction': the kernel, 'scale': the length of each output's weights, (out,)}.

    >>> weight_norm_init(jnp.array([[3.0], [4.0]]))['scale'].tolist()
    [5.0]
    """
    wide = kernel.astype(at_least_float32(kernel))
    scale = safe_norm(wide, _inputs(wide)).reshape(-1)
    return {"direction": kernel, "scale": scale.astype(kernel.dtype)}


@within(eps="[0, inf)")
def weight_norm(params: Params, *, eps: Scalar = 1e-12) -> Float[Array, "*in out"]:
    """direction / |direction| * scale: a kernel whose lengths are parameters of their own.

    Args:
      params: {'direction': (..., out), 'scale': (out,)}; an output's length is over all other axes.
      eps: added to the squared length; weights of length 0 give 0.

    Returns: the shape and dtype of the direction.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, equation 2. eps as in Flax; PyTorch has none.

    >>> params = {'direction': jnp.array([[3.0], [4.0]]), 'scale': jnp.array([10.0])}
    >>> weight_norm(params).tolist()
    [[6.0], [8.0]]
    """
    direction = params["direction"]
    wide = direction.astype(at_least_float32(direction))
    unit = _inputs(wide)
    largest = huge(wide, unit)
    small = wide / largest
    squared = jnp.square(small).sum(axis=unit, keepdims=True)
    gain = lax.rsqrt(squared + jnp.asarray(eps, wide.dtype) / largest / largest)
    scale = params["scale"].astype(wide.dtype).reshape(squared.shape)
    return (small * (gain * scale)).astype(direction.dtype)


def _inputs(kernel: Array) -> tuple[int, ...]:
    return tuple(range(kernel.ndim - 1))


def spectral_norm_init(key: PRNGKey, kernel: Float[Array, "*in out"]) -> ModelState:
    """State of `spectral_norm` for a kernel: its singular vectors, near the largest value.

    Fifteen power iterations from a random start, as in PyTorch, so that the first steps already
    divide by nearly the largest singular value.

    Returns: {'left': (inputs,), 'right': (out,)} of length 1, in at least float32; an input is any
      combination of the axes before the last.

    >>> state = spectral_norm_init(jax.random.key(0), jnp.diag(jnp.array([4.0, 1.0])))
    >>> abs(state['left']).round(3).tolist()
    [1.0, 0.0]
    """
    matrix = lax.stop_gradient(_as_matrix(kernel))
    left, right = (
        jax.random.normal(fold_name(key, name), (size,), matrix.dtype)
        for name, size in zip(("left", "right"), matrix.shape, strict=True)
    )
    state = {"left": left / safe_norm(left), "right": right / safe_norm(right)}
    return lax.fori_loop(0, 15, lambda _, state: _power_iteration(matrix, state), state)


def spectral_norm(
    kernel: Float[Array, "*in out"], state: ModelState, *, train: bool, iterations: int = 1
) -> tuple[Float[Array, "*in out"], ModelState]:
    """kernel / sigma, with sigma its largest singular value: a linear map that stretches nothing.

        right = unit(K^T left),  left = unit(K right),  sigma = left^T K right

    sigma is differentiated with the two vectors held fixed, which is its derivative where they
    are the singular vectors.

    Args:
      kernel: (..., out), taken as a matrix K (inputs, out).
      state: {'left': (inputs,), 'right': (out,)}, from `spectral_norm_init`.
      train: True takes power iterations first and returns the new vectors; False uses the old.
      iterations: power iterations a step, at least 1.

    Returns: the kernel in its shape and dtype, and the state. A kernel of zeros stays as it is.
    Raises: ValueError for fewer than one iteration.
    Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1. Deviates, as PyTorch does: for a
      convolution K has all axes but the outputs as its inputs.

    >>> kernel = jnp.diag(jnp.array([4.0, 1.0]))
    >>> state = spectral_norm_init(jax.random.key(0), kernel)
    >>> spectral_norm(kernel, state, train=True)[0].round(3).tolist()
    [[1.0, 0.0], [0.0, 0.25]]
    """
    if iterations < 1:
        raise ValueError(
            f"spectral_norm: expected at least 1 power iteration, got {iterations}; one a step is "
            "usual"
        )
    matrix = _as_matrix(kernel)
    if train:
        for _ in range(iterations):
            state = _power_iteration(lax.stop_gradient(matrix), state)
    sigma = state["left"] @ matrix @ state["right"]
    sigma = jnp.where(sigma == 0, 1, sigma)
    return (matrix / sigma).reshape(kernel.shape).astype(kernel.dtype), state


def _power_iteration(matrix: Array, state: ModelState) -> ModelState:
    right = _unit(matrix.T @ state["left"], state["right"])
    return {"left": _unit(matrix @ right, state["left"]), "right": right}


def _unit(vector: Array, otherwise: Array) -> Array:
    # A kernel of zeros moves no vector, so that the iteration is alive once the kernel is not 0.
    length = safe_norm(vector)
    return jnp.where(length == 0, otherwise, vector / jnp.where(length == 0, 1, length))


def _as_matrix(kernel: Array) -> Array:
    return kernel.astype(at_least_float32(kernel)).reshape(-1, kernel.shape[-1])
