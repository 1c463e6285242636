"""Feed-forward blocks of transformers, plain and gated."""

from collections.abc import Callable
from typing import Any

from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from fnn.activations import gelu, silu
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
      bias: whether to add one in both projections.
      kernel_init, bias_init: initializers of the two.
      out_kernel_init: of the second projection; kernel_init if None.

    Returns: {'up': {'kernel': (in, hidden)}, 'down': {'kernel': (hidden, out)}}, float32, each with
      a 'bias' if bias=True.

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
    hidden = lambda r: checkpoint_name(linear(params["up"], r), "mlp_hidden")  # noqa: E731
    return by_rows(lambda r: linear(params["down"], activation(hidden(r))), x)


def gated_mlp_init(
    key: PRNGKey,
    in_features: int,
    hidden_features: int,
    *,
    out_features: int | None = None,
    bias: bool = False,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `gated_mlp`, `swiglu` and `geglu`.

    Args:
      hidden_features: 8/3 in_features for the parameter count of a plain MLP of width 4
        in_features.
      out_features: in_features if None.
      bias: whether to add one in all three projections.
      kernel_init, bias_init: initializers of the three.
      out_kernel_init: of 'down'; kernel_init if None.

    Returns: {'gate': {'kernel': (in, hidden)}, 'up': the same, 'down': {'kernel': (hidden, out)}},
      float32, each with a 'bias' if bias=True.

    >>> params = gated_mlp_init(jax.random.key(0), 3, 8)
    >>> params['up']['kernel'].shape, params['down']['kernel'].shape
    ((3, 8), (8, 3))
    """
    gate = linear_init(
        fold_name(key, "gate"),
        in_features,
        hidden_features,
        bias=bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
    )
    rest = feed_forward_init(
        key,
        in_features,
        hidden_features,
        out_features=out_features,
        bias=bias,
        kernel_init=kernel_init,
        out_kernel_init=out_kernel_init,
        bias_init=bias_init,
    )
    return {"gate": gate, **rest}


def gated_mlp(
    params: Params, x: Float[Array, "*batch in"], activation: Callable[[Any], Any]
) -> Float[Array, "*batch out"]:
    """down(activation(gate(x)) * up(x)), with three linear layers.

    Args:
      x: (..., in_features); any number of leading axes.
      activation: of the gate: `sigmoid` for the plain GLU, `silu` for `swiglu`, `gelu` for `geglu`.

    Returns: (..., out_features), in the dtype of x.
    Raises: ValueError if the last axis of x does not fit the kernels.
    Source: Shazeer 2020, arXiv:2002.05202, equations 5 and 6.

    >>> one = {'kernel': jnp.ones((1, 1))}
    >>> gated_mlp({'gate': one, 'up': one, 'down': one}, jnp.array([[3.0]]), jnp.square).tolist()
    [[27.0]]
    """

    def apply(rows: Array) -> Array:
        gate, up = (
            checkpoint_name(linear(params[name], rows), "mlp_hidden") for name in ("gate", "up")
        )
        return linear(params["down"], activation(gate) * up)

    return by_rows(apply, x)


def swiglu(params: Params, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
    """`gated_mlp` with a silu, as in Llama.

    >>> swiglu(gated_mlp_init(jax.random.key(0), 3, 8), jnp.ones((2, 3))).shape
    (2, 3)
    """
    return gated_mlp(params, x, silu)


def geglu(params: Params, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
    """`gated_mlp` with the exact gelu; T5 v1.1 and Gemma use `gelu_tanh` instead.

    >>> geglu(gated_mlp_init(jax.random.key(0), 3, 8), jnp.ones((2, 3))).shape
    (2, 3)
    """
    return gated_mlp(params, x, gelu)
