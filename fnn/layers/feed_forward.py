"""The feed-forward part of a transformer: up, an activation, and down again."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers.linear import linear, linear_init
from fnn.types import Params, PRNGKey
from fnn.xla import by_rows


def feed_forward_init(
    key: PRNGKey,
    in_features: int,
    hidden_features: int,
    *,
    out_features: int | None = None,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `feed_forward`.

    Args:
      hidden_features: 4 in_features in most transformers.
      out_features: in_features if None.
      bias: whether the two projections have one.
      kernel_init, bias_init: initializers of the two.
      out_kernel_init: of the second projection; kernel_init if None.

    Returns: {'up': {'kernel': (in, hidden)}, 'down': {'kernel': (hidden, out)}}, float32, each with
      a 'bias' if wanted.

    >>> params = feed_forward_init(jax.random.key(0), 3, 8)
    >>> params['up']['kernel'].shape, params['down']['kernel'].shape
    ((3, 8), (8, 3))
    """
    out = in_features if out_features is None else out_features
    parts = {
        "up": (in_features, hidden_features, kernel_init),
        "down": (hidden_features, out, out_kernel_init or kernel_init),
    }
    return {
        name: linear_init(
            fold_name(key, name), i, o, bias=bias, kernel_init=draw, bias_init=bias_init
        )
        for name, (i, o, draw) in parts.items()
    }


def feed_forward(
    params: Params, x: Float[Array, "*batch in"], activation: Callable[[Any], Any]
) -> Float[Array, "*batch out"]:
    """down(activation(up(x))), with two linear layers.

    Args:
      x: (..., in_features); any number of leading axes.

    Returns: (..., out_features), in the dtype of x.
    Raises: ValueError if the last axis of x does not fit the kernels.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3.

    >>> one = {'kernel': jnp.ones((1, 1))}
    >>> feed_forward({'up': one, 'down': one}, jnp.array([[3.0]]), jnp.square).tolist()
    [[9.0]]
    """
    return by_rows(lambda r: linear(params["down"], activation(linear(params["up"], r))), x)
