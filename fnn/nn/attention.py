"""Attention layers as models. B batch, T queries, S keys, E features."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fnn import layers
from fnn.expect import within
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import key_of_noise
from fnn.layers.attention import Attend
from fnn.layers.multi_head import Rotate
from fnn.types import Model, PRNGKey, Scalar


@within(rate="[0, 1]")
def self_attention(
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    head_features: int | None = None,
    out_features: int | None = None,
    bias: bool = True,
    qk_norm: bool = False,
    mask: Callable[[int], Any] | None = None,
    position_bias: Callable[[int], Any] | None = None,
    rotate: Rotate | None = None,
    rate: Scalar = 0.0,
    attend: Attend = layers.dot_product_attention,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """Multi-head attention of x to itself, as a model; see `layers.multi_head_attention`.

    Args:
      mask: makes the mask for T tokens: `layers.causal_mask`, a `partial` of `layers.window_mask`,
        or a function that combines several. None shows everything to everyone. Masks that differ
        from example to example, as for padding, are arguments of the function in `layers`.
      position_bias: makes what is added to the logits, (1, heads, T, T), for T tokens, such as
        `lambda n: layers.alibi(heads, jnp.arange(n), jnp.arange(n))[None]`.
      rotate: applied to queries and keys with their positions: `layers.rope`.
      rate: drop probability of the attention weights, for train=True; may be traced. A plain 0
        leaves it out.
      attend: computes the heads; with a rate, it gets `drop=`.

    Apply takes x (B, T, E) and returns (B, T, out_features).
    Raises: ValueError for x of another shape, and for a rate with train=True and no key.

    >>> model = self_attention(2, mask=layers.causal_mask, rotate=layers.rope)
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> model.apply(params, state, jnp.ones((1, 3, 4)))[0].shape
    (1, 3, 4)
    """

    def init(key, x):
        params = layers.multi_head_attention_init(
            key,
            _features_of("self_attention", x),
            num_heads,
            num_kv_heads=num_kv_heads,
            head_features=head_features,
            out_features=out_features,
            bias=bias,
            qk_norm=qk_norm,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        _features_of("self_attention", x)
        y = layers.multi_head_attention(
            params,
            x,
            mask=None if mask is None else mask(x.shape[1]),
            bias=None if position_bias is None else position_bias(x.shape[1]),
            rotate=rotate,
            attend=with_dropout("self_attention", attend, rate, key, train),
        )
        return y, model_state

    return Model(init=init, apply=apply)


@within(rate="[0, 1]")
def cross_attention(
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    head_features: int | None = None,
    out_features: int | None = None,
    bias: bool = True,
    qk_norm: bool = False,
    rate: Scalar = 0.0,
    attend: Attend = layers.dot_product_attention,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """Multi-head attention of x to a memory, as a model; see `layers.multi_head_attention`.

    Args: as of `self_attention`.

    Apply takes the pair (x, memory), (B, T, E) and (B, S, any), and returns (B, T, out_features).
    Raises: ValueError for inputs of another shape, and for a rate with train=True and no key.

    >>> model, x = cross_attention(2), (jnp.ones((1, 3, 4)), jnp.ones((1, 5, 6)))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x)[0].shape
    (1, 3, 4)
    """

    def init(key, x):
        queries, memory = _pair(x)
        params = layers.multi_head_attention_init(
            key,
            _features_of("cross_attention", queries),
            num_heads,
            num_kv_heads=num_kv_heads,
            head_features=head_features,
            memory_features=_features_of("cross_attention", memory),
            out_features=out_features,
            bias=bias,
            qk_norm=qk_norm,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        queries, memory = _pair(x)
        attend_now = with_dropout("cross_attention", attend, rate, key, train)
        y = layers.multi_head_attention(params, queries, memory, attend=attend_now)
        return y, model_state

    return Model(init=init, apply=apply)


def _features_of(where: str, x: Any) -> int:
    if len(x.shape) != 3:
        raise ValueError(
            f"{where}: expected x of shape (batch, time, features), got {x.shape}; "
            "embed the tokens, or lay the pixels out in one axis, before it"
        )
    return x.shape[-1]


def _pair(x: Any) -> tuple[Any, Any]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        got = len(x) if isinstance(x, tuple | list) else type(x).__name__
        raise ValueError(
            f"cross_attention: expected the pair (x, memory), got {got}; "
            "use self_attention for a single input"
        )
    return x[0], x[1]


@within(rate="[0, 1]")
def with_dropout(
    where: str, attend: Attend, rate: Scalar, key: PRNGKey | None, train: bool
) -> Attend:
    """`attend`, which drops weights with probability `rate` where there is noise to be.

    Raises: ValueError, which begins with `where`, for a rate with train=True and no key.

    >>> from fnn.layers import dot_product_attention as attend
    >>> with_dropout('gpt', attend, 0.0, None, True) is attend
    True
    """
    noise_key = key_of_noise(where, rate, key, train)
    if noise_key is None:
        return attend
    return partial(attend, drop=partial(layers.dropout, noise_key, rate=rate))
