"""How a model is computed: rematerialization, casts and mixed precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.dtypes import cast_floats, is_float
from fnn.expect import did_you_mean
from fnn.losses import LazyLogits
from fnn.nn._base import Layer, as_model
from fnn.optim import dynamic_loss_scale
from fnn.optim._base import expect_unscaled
from fnn.recipe import Recipe
from fnn.types import Model, ModelState, Optimizer, Params, PRNGKey

# Which intermediate values are saved for the backward pass, which computes the others again:
# 'nothing', 'dots' (products with parameters), 'attention' (the heads), a tuple of names given by
# `jax.ad_checkpoint.checkpoint_name`, or one of `jax.checkpoint_policies`.
Policy = str | tuple[str, ...] | Callable[..., Any]

_POLICIES: dict[str, Callable[..., Any]] = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),
}


def checkpoint_policy(policy: Policy) -> Callable[..., Any]:
    """The policy of `jax.checkpoint` for a `remat`.

    Raises: ValueError for an unknown name.

    >>> checkpoint_policy('nothing') is jax.checkpoint_policies.nothing_saveable
    True
    """
    if isinstance(policy, tuple):
        return jax.checkpoint_policies.save_only_these_names(*policy)
    if not isinstance(policy, str):
        return policy
    if policy not in _POLICIES:
        advice = did_you_mean(policy, _POLICIES, f"for values of that name, write ({policy!r},)")
        raise ValueError(
            f"remat: expected policy to be one of {', '.join(map(repr, _POLICIES))}, a tuple of "
            f"names or one of jax.checkpoint_policies, got {policy!r}; {advice}"
        )
    return _POLICIES[policy]


def offload(*names: str, save: tuple[str, ...] = ()) -> Policy:
    """A policy of `remat` that keeps intermediate values in host memory ('pinned_host').

    They are copied there in the forward pass and back in the backward pass, which XLA overlaps with
    other work where it can; values without a name are computed again.

    Args:
      names: of the values to offload, as in `remat`: 'mlp_hidden' is a block's largest.
      save: names of those that stay in the device's memory.

    Raises: ValueError for no names.

    >>> layer = lambda x: jnp.sin(jax.ad_checkpoint.checkpoint_name(2 * x, 'double'))
    >>> model = remat(layer, offload('double'))
    >>> jax.jit(jax.grad(lambda x: model.apply({}, (), x)[0].sum()))(jnp.zeros((1, 1))).tolist()
    [[2.0]]
    """
    if not names:
        raise ValueError(
            "offload: expected the names of values to offload, got none; give one such as "
            "'mlp_hidden'"
        )
    policy: Policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(save),
        names_which_can_be_offloaded=list(names),
        offload_src="device",
        offload_dst="pinned_host",
    )
    return policy


def remat(layer: Layer, policy: Policy = "nothing") -> Model:
    """The same model with rematerialization: the backward pass recomputes intermediate values.

    Trades time for memory: with the default policy, only x and the parameters are saved.

    Args:
      policy: which intermediate values to save all the same: 'nothing'; 'dots', the products with
        parameters, the most expensive; 'attention', the heads of attention; a tuple of names given
        by `jax.ad_checkpoint.checkpoint_name`, of which transformer blocks have 'query', 'key',
        'value', 'attention' and 'mlp_hidden', and convolutions 'conv'; `offload`, which keeps such
        values in host memory; or one of `jax.checkpoint_policies`.

    Raises: ValueError for an unknown policy.
    Source: Chen et al. 2016, arXiv:1604.06174.

    >>> remat(jnp.sin).apply({}, (), jnp.zeros((1, 1)))[0].tolist()
    [[0.0]]
    """
    model, saved = as_model(layer, "remat"), checkpoint_policy(policy)

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        def forward(
            params: Params, model_state: ModelState, x: Any, key: PRNGKey | None
        ) -> tuple[Any, ModelState]:
            return model.apply(params, model_state, x, key=key, train=train)

        return jax.checkpoint(forward, policy=saved)(params, model_state, x, key)

    return Model(init=model.init, apply=apply)


def cast(layer: Layer, dtype: Any) -> Model:
    """The same model, computed in `dtype`: mixed precision for a part or the whole.

        y = layer(params as dtype, x as dtype), as the dtype of x

    The parameters themselves keep their dtype, so an optimizer sees float32 master weights and
    float32 gradients. The model state is not rounded.

    Args:
      dtype: a floating dtype, such as jnp.bfloat16.

    Apply returns y in the floating dtype of x, or in float32 if x holds integers only.
    Raises: ValueError for a dtype that is not floating.
    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1. Deviates: no loss scaling
      here, which bfloat16 does not need.

    >>> model = cast(lambda x: x + 1.001, jnp.bfloat16)
    >>> model.apply({}, (), jnp.zeros((1, 1)))[0]
    Array([[1.]], dtype=float32)
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"cast: expected a floating dtype, got {dtype}; give it one such as jnp.bfloat16"
        )
    model = as_model(layer, "cast")

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        y, new_state = model.apply(
            cast_floats(params, dtype), model_state, cast_floats(x, dtype), key=key, train=train
        )
        return _cast_outputs(y, _float_of(x)), jax.tree.map(_as_before, new_state, model_state)

    return Model(init=model.init, apply=apply)


def _cast_outputs(y: Any, dtype: Any) -> Any:
    """The floats of y as `dtype`; lazy logits stay narrow, since losses make them float32."""
    is_lazy = lambda leaf: isinstance(leaf, LazyLogits)  # noqa: E731
    return jax.tree.map(
        lambda leaf: leaf if is_lazy(leaf) else cast_floats(leaf, dtype), y, is_leaf=is_lazy
    )


def _as_before(new: Any, old: Any) -> Any:
    return new.astype(old.dtype) if is_float(old) else new


def _float_of(x: Any) -> Any:
    floats = [leaf.dtype for leaf in jax.tree.leaves(x) if is_float(leaf)]
    return jnp.result_type(*floats) if floats else jnp.float32


def mixed_bfloat16(recipe: Recipe) -> Recipe:
    """The recipe with its model computed in bfloat16 and everything else in float32.

    Parameters, gradients, loss, metrics and the optimizer's state stay in float32; bfloat16 has the
    range of float32, so no loss scale is needed. Activations, and those saved for the backward
    pass, take half the memory. A CPU without bfloat16 instructions is not faster for it.

    Source: Kalamkar et al. 2019, arXiv:1905.12322. Compat: Keras' policy "mixed_bfloat16".

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: mixed_bfloat16(Recipe(
    ...     nn.linear(1), losses.mean_squared_error, optim.adam(),
    ...     schedules.constant(hyper['lr'])))
    >>> model = recipe({'lr': 0.1}).model
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 1)))
    >>> y, _ = model.apply({'kernel': jnp.array([[1.001]]), 'bias': jnp.zeros(1)}, state,
    ...                    jnp.ones((1, 1)))
    >>> params['kernel'].dtype.name, y.dtype.name, y.item()
    ('float32', 'float32', 1.0)
    """
    return recipe._replace(model=cast(recipe.model, jnp.bfloat16))


def mixed_float16(
    recipe: Recipe, scale: Callable[[Optimizer], Optimizer] = dynamic_loss_scale
) -> Recipe:
    """The recipe with its model computed in float16 and a loss scale.

    As `mixed_bfloat16`, but float16 has the range 6e-8 to 65,504: the loss is scaled before it is
    differentiated, the gradient unscaled in float32, and a step whose gradient overflows is
    skipped. The scale is part of the optimizer's state, so a resumed run continues with it.

    Args:
      scale: adds the loss scale to the optimizer, as in
        `partial(dynamic_loss_scale, start=1024.0)`.

    Raises: ValueError for an optimizer that has a loss scale already.
    Source: Micikevicius et al. 2018, arXiv:1710.03740. Compat: Keras' policy "mixed_float16".

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = mixed_float16(Recipe(nn.linear(1), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(0.1)))
    >>> recipe.optimizer.init({'w': jnp.zeros(1)}).scale.item()
    65536.0
    """
    expect_unscaled("mixed_float16", recipe.optimizer)
    return recipe._replace(model=cast(recipe.model, jnp.float16), optimizer=scale(recipe.optimizer))
