"""Attention layers. B batch, T queries, S keys, E features."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fnn import layers
from fnn.expect import within
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import key_of_noise
from fnn.layers.attention import Attend, AttentionMask, Rotate
from fnn.nn.embedding import expect_sequences
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar


@within(rate="[0, 1]")
def self_attention(
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    head_features: int | None = None,
    out_features: int | None = None,
    bias: bool = True,
    qk_norm: bool = False,
    mask: AttentionMask | Callable[[int], Any] | None = None,
    position_bias: Callable[[int], Any] | None = None,
    rotate: Rotate | None = None,
    rate: Scalar = 0.0,
    attend: Attend = layers.attention,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """Multi-head self-attention; see `layers.multi_head_attention`.

    Args:
      mask: a rule such as `AttentionMask(causal=True)`, or T -> array, such as
        `layers.causal_mask`; None masks nothing. Masks that differ from example to example, as for
        padding, are arguments of the function in `layers`.
      position_bias: T -> what to add to the logits, (1, heads, T, T), such as
        `lambda n: layers.alibi(heads, jnp.arange(n), jnp.arange(n))[None]`.
      rotate: applied to queries and keys with their positions: `layers.rope`.
      rate: drop probability of the attention weights, for train=True; may be traced.
      attend: computes the heads; with a rate, it gets `drop=`.

    Apply takes x (B, T, E) and returns (B, T, out_features).
    Raises: ValueError for x of another shape, and for a rate with train=True and no key.

    >>> mask = layers.AttentionMask(causal=True)
    >>> model = self_attention(2, mask=mask, rotate=layers.rope)
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> model.apply(params, state, jnp.ones((1, 3, 4)))[0].shape
    (1, 3, 4)
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params = layers.multi_head_attention_init(
            key,
            expect_sequences("self_attention", x),
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

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        expect_sequences("self_attention", x)
        y = layers.multi_head_attention(
            params,
            x,
            mask=mask(x.shape[1]) if callable(mask) else mask,
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
    attend: Attend = layers.attention,
    kernel_init: Initializer = lecun_normal(),
    out_kernel_init: Initializer | None = None,
    bias_init: Initializer = zeros,
) -> Model:
    """Multi-head attention of x to a memory; see `layers.multi_head_attention`.

    Args: as of `self_attention`.

    Apply takes the pair (x, memory), (B, T, E) and (B, S, any), and returns (B, T, out_features).
    Raises: ValueError for inputs of another shape, and for a rate with train=True and no key.

    >>> model, x = cross_attention(2), (jnp.ones((1, 3, 4)), jnp.ones((1, 5, 6)))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x)[0].shape
    (1, 3, 4)
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        queries, memory = _pair(x)
        params = layers.multi_head_attention_init(
            key,
            expect_sequences("cross_attention", queries),
            num_heads,
            num_kv_heads=num_kv_heads,
            head_features=head_features,
            memory_features=expect_sequences("cross_attention", memory),
            out_features=out_features,
            bias=bias,
            qk_norm=qk_norm,
            kernel_init=kernel_init,
            out_kernel_init=out_kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        queries, memory = _pair(x)
        attend_now = with_dropout("cross_attention", attend, rate, key, train)
        y = layers.multi_head_attention(params, queries, memory, attend=attend_now)
        return y, model_state

    return Model(init=init, apply=apply)


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
    """`attend` with dropout of the weights where training at a rate that is not a plain 0."""
    noise_key = key_of_noise(where, rate, key, train)
    if noise_key is None:
        return attend
    return partial(attend, drop=partial(layers.dropout, noise_key, rate=rate))
