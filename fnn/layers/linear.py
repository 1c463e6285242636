"""The linear layer."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.types import Params, PRNGKey
from fnn.xla import rows_times


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
      bias: whether there is a bias.
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
    Raises: ValueError if the last axis of x does not fit the kernel.

    >>> spam = {'kernel': jnp.array([[0.2], [0.5]]), 'bias': jnp.array([-0.4])}
    >>> linear(spam, jnp.array([[3.0, 1.0]])).round(3).tolist()
    [[0.699999988079071]]
    """
    kernel = params["kernel"]
    if x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"linear: expected x with {kernel.shape[0]} features in its last axis, got shape "
            f"{x.shape}; the kernel is {kernel.shape}: give it the inputs that it was made for"
        )
    y = rows_times(x, kernel)
    if "bias" not in params:
        return y
    return y + jnp.expand_dims(params["bias"], tuple(range(y.ndim - 1)))
