"""The linear layer."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers.fp8 import product
from fnn.types import Params, PRNGKey


def linear_init(
    key: PRNGKey,
    in_features: int,
    out_features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `linear`.

    Args:
      bias: whether to add a bias.
      kernel_init, bias_init: initializers of the two.

    Returns: {'kernel': (in_features, out_features), 'bias': (out_features,)}, float32.

    >>> params = linear_init(jax.random.key(0), 3, 2)
    >>> params['kernel'].shape, params['bias'].shape
    ((3, 2), (2,))
    """
    params = {"kernel": kernel_init(fold_name(key, "kernel"), (in_features, out_features))}
    if bias:
        params["bias"] = bias_init(fold_name(key, "bias"), (out_features,))
    return params


def linear(params: Params, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
    """x W + b over the last axis.

    Args:
      x: (..., in_features); any number of leading axes.

    Returns: (..., out_features), in the dtype of x and the kernel.
    Raises: ValueError if the last axis of x does not fit the kernel, or x holds no floats.

    >>> spam = {'kernel': jnp.array([[0.2], [0.5]]), 'bias': jnp.array([-0.4])}
    >>> round(linear(spam, jnp.array([[3.0, 1.0]])).item(), 3)
    0.7
    """
    expect_floats("linear", x)
    kernel = params["kernel"]
    if x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"linear: expected x with {kernel.shape[0]} features in its last axis, got shape "
            f"{x.shape}; the kernel is {kernel.shape}: give it the inputs that it was made for"
        )
    return add_bias(params, product(params, x, kernel))


def add_bias(params: Params, y: Array) -> Float[Array, "..."]:
    """y + params['bias'] over the last axes, or y where there is none.

    Added in at least float32, in which the gradient of the bias is summed; in the dtype of y.
    """
    return plus_row(y, params["bias"]) if "bias" in params else y


def plus_row(y: Any, row: Any) -> Array:
    """y + row over the last axes of y, computed in at least float32, in the dtype of y."""
    return broadcast(jnp.add, y, jnp.expand_dims(row, tuple(range(y.ndim - row.ndim))))


def broadcast(
    function: Callable[..., Any], x: Float[Array, "..."], *smaller: Float[Array, "..."]
) -> Float[Array, "..."]:
    """`function(x, *smaller)`, computed in at least float32, in the dtype of x.

    For elementwise functions with operands that broadcast to x, whose gradients are sums: these
    too are taken in at least float32.
    """
    wide = at_least_float32(x)
    return function(*(array.astype(wide) for array in (x, *smaller))).astype(x.dtype)
