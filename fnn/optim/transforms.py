"""Transforms of gradients, and how to put them in front of an optimizer."""

from typing import Any

import jax
import jax.numpy as jnp

from fnn import tree
from fnn.types import Optimizer, Scalar, Transform


def clip_by_global_norm(max_norm: Scalar) -> Transform:
    """Scale all gradients together so that their global norm is at most `max_norm`.

        g <- g min(1, max_norm / ||g||)

    Args:
      max_norm: in the unit of the gradient, above 0; may be traced.

    State: (). Zero gradients stay zero. An infinite gradient gives NaN: a clip is no cure for it.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, Algorithm 1.

    >>> clip = clip_by_global_norm(1.0)
    >>> clip.update({'w': jnp.array([3.0, 4.0])}, (), {})[0]['w'].round(2).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    def update(grads, state, params):
        norm = tree.global_norm(grads)
        limit = jnp.asarray(max_norm, norm.dtype)
        over = norm > limit
        factor = jnp.where(over, limit / jnp.where(over, norm, 1), 1)
        # A NaN norm is not over any limit, and the NaN passes on as it should.
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    return Transform(init=lambda params: (), update=update)


def clip_by_value(max_value: Scalar) -> Transform:
    """Cut each element of the gradients to [-max_value, max_value].

    >>> clip_by_value(1.0).update({'w': jnp.array([3.0, -0.5])}, (), {})[0]['w'].tolist()
    [1.0, -0.5]
    """

    def update(grads, state, params):
        def clip(g):
            limit = jnp.asarray(max_value, g.dtype)
            return jnp.clip(g, -limit, limit)

        return jax.tree.map(clip, grads), state

    return Transform(init=lambda params: (), update=update)


def chain(*parts: Transform | Optimizer) -> Any:
    """Transforms one after another, with an optimizer as the last part or none.

    Returns: an Optimizer if the last part is one, else a Transform.
    State: a tuple with the state of each part.
    Raises: ValueError if there is no part, or an optimizer before the end.

    >>> from fnn.optim import sgd
    >>> opt, params = chain(clip_by_value(1.0), sgd()), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-0.5]
    """
    if not parts or any(not isinstance(part, Transform) for part in parts[:-1]):
        raise ValueError(
            "chain: expected transforms, then at most one optimizer at the end, got "
            f"{[type(part).__name__ for part in parts]}; move the optimizer to the end"
        )

    def init(params):
        return tuple(part.init(params) for part in parts)

    def through(grads, state, params, last_arguments):
        states = []
        for i, part in enumerate(parts):
            extra = last_arguments if i == len(parts) - 1 else ()
            grads, part_state = part.update(grads, state[i], params, *extra)
            states.append(part_state)
        return grads, tuple(states)

    last = parts[-1]
    if isinstance(last, Optimizer):
        return Optimizer(
            init,
            lambda g, s, p, lr, objective=None: through(g, s, p, (lr, objective)),
            lambda state, params: last.weights(state[-1], params),
        )
    return Transform(init, lambda g, s, p: through(g, s, p, ()))
