"""Blocks scanned over depth, with their parameters stacked along a leading axis."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnn import tree
from fnn.expect import spec
from fnn.nn._base import Layer, as_model, output_of
from fnn.nn.compute import Policy, checkpoint_policy
from fnn.types import Model, ModelState, Params, PRNGKey
from fnn.xla import draw_each, in_memory


def stack(block: Layer, n: int, *, scan: bool = True, policy: Policy | None = None) -> Model:
    """n copies of a block in sequence, each with its own parameters.

        h_0 = x,  h_(i+1) = block(params[i], h_i),  y = h_n

    Every leaf of the parameters and of the model state has a leading axis of n, whatever `scan`
    is. Block i gets the key fold_in(key, i), at init and at apply, which does not depend on n.

    Args:
      block: a model or function that keeps the shape and dtype of its input.
      n: number of copies, at least 1.
      scan: True compiles one block and loops over it, so that compile time does not grow with n.
        False unrolls the loop: longer to compile, and XLA may optimize across blocks. Both compute
        the same.
      policy: of `remat`: which intermediate values of a block to save for the backward pass, such
        as 'attention'; the others are recomputed. None saves all.

    Raises: ValueError for n < 1, and for a block that changes shape or dtype.

    >>> model = stack(lambda x: 2 * x, 3)
    >>> model.apply({}, (), jnp.ones((1, 1)))[0].tolist()
    [[8.0]]
    """
    if n < 1:
        raise ValueError(f"stack: expected n of at least 1, got {n}; drop the stack instead")
    model = as_model(block, "stack")

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params, state = draw_each(lambda key: model.init(key, x), key, jnp.arange(n))
        [(one, its_state)] = jax.eval_shape(lambda *own: tree.unstack(own, 1), params, state)
        _expect_kept(x, output_of(model, one, its_state, x))
        return params, state

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        def layer(x: Any, i: Any, params: Params, state: ModelState) -> tuple[Any, ModelState]:
            if scan:
                params, state = in_memory(i, (params, state))
            layer_key = None if key is None else jax.random.fold_in(key, i)
            y, state = model.apply(params, state, x, key=layer_key, train=train)
            _expect_kept(x, y)
            return y, state

        if policy is not None:
            # A scan shares no expressions with the forward pass, so CSE needs no prevention.
            layer = jax.checkpoint(layer, policy=checkpoint_policy(policy), prevent_cse=not scan)
        if not scan:
            return _unrolled(layer, n, params, model_state, x)
        xs = (jnp.arange(n), params, model_state)
        return lax.scan(lambda x, own: layer(x, *own), x, xs, length=n)

    return Model(init=init, apply=apply)


def _unrolled(
    layer: Any, n: int, params: Params, model_state: ModelState, x: Any
) -> tuple[Any, ModelState]:
    states = []
    for i, own in enumerate(tree.unstack((params, model_state), n)):
        with jax.named_scope(str(i)):
            x, state = layer(x, i, *own)
        states.append(state)
    return x, tree.stack(states)


def _expect_kept(x: Any, y: Any) -> None:
    given, made = jax.tree.map(spec, x), jax.tree.map(spec, y)
    if given != made:
        raise ValueError(
            f"stack: expected the block to keep {given}, got {made}; give it as many output "
            "features as input features, in the same dtype"
        )
