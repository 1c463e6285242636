"""Mixtures of experts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn import layers
from fnn.activations import silu
from fnn.initializers import Initializer, lecun_normal
from fnn.nn._base import features_of
from fnn.types import Model, ModelState, Params, PRNGKey


def moe(
    hidden_features: int,
    num_experts: int,
    *,
    top_k: int = 2,
    out_features: int | None = None,
    gated: bool = True,
    activation: Callable[[Any], Any] = silu,
    gates: Callable[[Any], Any] | None = None,
    kernel_init: Initializer = lecun_normal(),
    router_init: Initializer = lecun_normal(),
) -> Model:
    """A mixture of experts over the last axis; see `layers.moe`.

    The model state is {'load_balance', 'router_z', 'load'}, float32, of the last training batch.
    Its two losses depend on the params of the same call, so a loss function that adds them, as in
    `loss + 0.01 * new_state['load_balance']`, differentiates through them.

    >>> model = moe(8, num_experts=4)
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> _, state = model.apply(params, state, jnp.ones((5, 3)), train=True)
    >>> state['load'].sum().item()
    1.0
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params = layers.moe_init(
            key,
            features_of("moe", x),
            hidden_features,
            num_experts,
            out_features=out_features,
            gated=gated,
            kernel_init=kernel_init,
            router_init=router_init,
        )
        losses = {"load_balance": jnp.zeros(()), "router_z": jnp.zeros(())}
        return params, {**losses, "load": jnp.zeros(num_experts)}

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        y, new = layers.moe(params, x, top_k=top_k, activation=activation, gates=gates)
        if train:
            model_state = jax.tree.map(lambda old, aux: aux.astype(old.dtype), model_state, new)
        return y, model_state

    return Model(init=init, apply=apply)
