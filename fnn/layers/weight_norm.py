"""Normalization of kernels: weight norm and spectral norm."""

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
    """Parameters of `weight_norm` for which it returns `kernel`.

    Args:
      kernel: (..., out); the weights of an output that are all 0 stay 0.

    Returns: {'direction': the kernel, 'scale': the norm of each output's weights, (out,)}.

    >>> weight_norm_init(jnp.array([[3.0], [4.0]]))['scale'].tolist()
    [5.0]
    """
    wide = kernel.astype(at_least_float32(kernel))
    scale = safe_norm(wide, _inputs(wide)).reshape(-1)
    return {"direction": kernel, "scale": scale.astype(kernel.dtype)}


@within(eps="[0, inf)")
def weight_norm(params: Params, *, eps: Scalar = 1e-12) -> Float[Array, "*in out"]:
    """direction / |direction| * scale: a kernel with its norms as separate parameters.

    Args:
      params: {'direction': (..., out), 'scale': (out,)}; an output's norm is over all other axes.
      eps: added to the squared norm; weights of norm 0 give 0.

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
    """State of `spectral_norm` for a kernel: singular vectors of about its largest singular value.

    Fifteen power iterations from a random start, as in PyTorch.

    Returns: {'left': (inputs,), 'right': (out,)} of norm 1, in at least float32; inputs are all
      axes before the last together.

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
    """kernel / sigma, with sigma its largest singular value (its spectral norm).

        right = unit(K^T left),  left = unit(K right),  sigma = left^T K right

    sigma is differentiated for fixed vectors, which is exact where they are the singular vectors.

    Args:
      kernel: (..., out), taken as a matrix K (inputs, out).
      state: {'left': (inputs,), 'right': (out,)}, from `spectral_norm_init`.
      train: True makes power iterations first and returns the new vectors; False uses the old.
      iterations: power iterations per step, at least 1.

    Returns: the kernel in its shape and dtype, and the state. A kernel of zeros is unchanged.
    Raises: ValueError for fewer than one iteration.
    Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1. As in PyTorch, all axes of a
      convolution's kernel but the outputs are the inputs of K.

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
    # Kept for a kernel of zeros, so that the iteration continues once the kernel is not 0.
    length = safe_norm(vector)
    return jnp.where(length == 0, otherwise, vector / jnp.where(length == 0, 1, length))


def _as_matrix(kernel: Array) -> Array:
    return kernel.astype(at_least_float32(kernel)).reshape(-1, kernel.shape[-1])
