"""Linear maps between several axes at once, and of two inputs."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.expect import expect_floats
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers.linear import add_bias
from fnn.types import Params, PRNGKey


def linear_general_init(
    key: PRNGKey,
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `linear_general`.

    Args:
      in_shape, out_shape: sizes of the axes that the map takes and makes.
      bias: whether there is a bias.
      kernel_init, bias_init: initializers of the two; the kernel's sees the matrix that the axes
        make together, so its fans are the products of the sizes.

    Returns: {'kernel': (*in_shape, *out_shape), 'bias': out_shape}, float32.

    >>> params = linear_general_init(jax.random.key(0), (6,), (2, 3))
    >>> params['kernel'].shape, params['bias'].shape
    ((6, 2, 3), (2, 3))
    """
    matrix = (math.prod(in_shape), math.prod(out_shape))
    kernel = kernel_init(fold_name(key, "kernel"), matrix)
    params = {"kernel": kernel.reshape(*in_shape, *out_shape)}
    if bias:
        params["bias"] = bias_init(fold_name(key, "bias"), tuple(out_shape))
    return params


def linear_general(
    params: Params, x: Float[Array, "..."], *, axes: int | Sequence[int] = -1
) -> Float[Array, "..."]:
    """A linear map over several axes of x, to several new ones.

        y[..., o] = bias[o] + sum over i of x[..., i] kernel[i, o],   i and o several axes each

    Args:
      axes: of x, in the order of the kernel's first axes; they are summed over.

    Returns: the other axes of x, in order, then the kernel's remaining axes.
    Raises: ValueError if the sizes of these axes are not those of the kernel's first.
    Source: as DenseGeneral in Flax.

    >>> params = {'kernel': jnp.ones((2, 3, 4)), 'bias': jnp.zeros(4)}
    >>> linear_general(params, jnp.ones((5, 2, 3)), axes=(-2, -1)).shape
    (5, 4)
    """
    expect_floats("linear_general", x)
    kernel = params["kernel"]
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(not -x.ndim <= axis < x.ndim for axis in given) or len(given) > kernel.ndim:
        raise ValueError(
            f"linear_general: expected axes of x, whose shape is {x.shape}, got {given}; "
            "name those that the kernel sums over"
        )
    summed = tuple(axis % x.ndim for axis in given)
    sizes = tuple(x.shape[axis] for axis in summed)
    if sizes != kernel.shape[: len(sizes)]:
        raise ValueError(
            f"linear_general: expected the axes {given} of x to have the sizes of the kernel's "
            f"first, {kernel.shape[: len(sizes)]}, got {sizes}; x is {x.shape}, the kernel "
            f"{kernel.shape}"
        )
    y = lax.dot_general(x, kernel, ((summed, tuple(range(len(summed)))), ((), ())))
    return add_bias(params, y)


def bilinear_init(
    key: PRNGKey,
    left_features: int,
    right_features: int,
    out_features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `bilinear`.

    Args:
      bias: whether there is a bias.
      kernel_init, bias_init: initializers of the two. The kernel's fan-in is the product of the
        two inputs, so that lecun_normal keeps the variance; PyTorch counts the left one alone.

    Returns: {'kernel': (left_features, right_features, out_features), 'bias': (out_features,)}.

    >>> bilinear_init(jax.random.key(0), 2, 3, 4)['kernel'].shape
    (2, 3, 4)
    """
    shape = (left_features, right_features, out_features)
    params = {"kernel": kernel_init(fold_name(key, "kernel"), shape)}
    if bias:
        params["bias"] = bias_init(fold_name(key, "bias"), (out_features,))
    return params


def bilinear(
    params: Params, left: Float[Array, "*batch left"], right: Float[Array, "*batch right"]
) -> Float[Array, "*batch out"]:
    """Linear in each of two inputs.

        y[o] = bias[o] + sum over i, j of left[i] kernel[i, j, o] right[j]

    Args:
      left, right: with the same leading axes. PyTorch's kernel is (out, left, right).

    Returns: (..., out_features).
    Raises: ValueError if the inputs do not fit the kernel or each other.

    >>> params = {'kernel': jnp.ones((1, 1, 1))}
    >>> bilinear(params, jnp.array([[2.0]]), jnp.array([[3.0]])).tolist()
    [[6.0]]
    """
    expect_floats("bilinear", left)
    expect_floats("bilinear", right)
    kernel = params["kernel"]
    lead = left.shape[:-1]
    if left.shape != (*lead, kernel.shape[0]) or right.shape != (*lead, kernel.shape[1]):
        raise ValueError(
            f"bilinear: expected inputs (..., {kernel.shape[0]}) and (..., {kernel.shape[1]}) with "
            f"the same leading axes, got {left.shape} and {right.shape}; give them in the order "
            f"that the kernel {kernel.shape} was made for"
        )
    half = lax.dot_general(left, kernel, (((left.ndim - 1,), (0,)), ((), ())))
    return add_bias(params, jnp.einsum("...jo,...j->...o", half, right))
