"""Weight decay, the two kinds of it under two names."""

from typing import Any

import jax
import jax.numpy as jnp

from fnn import dtypes
from fnn.expect import expect_alike, within
from fnn.optim.base import decay_weights
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar, Transform


@within(l2="[0, inf)")
def add_l2(l2: Scalar, *, mask: Mask | None = None) -> Transform:
    """The gradient of an L2 penalty, l2 ||p||^2 / 2, added to the gradient.

        g <- g + l2 p

    What follows treats it as part of the gradient: Adam divides it by the size of the gradient, so
    that weights with large gradients decay less. For decay that does not, see `decoupled_decay`.

    Args:
      l2: at least 0. Called weight_decay by torch's SGD and Adam.
      mask: which leaves, e.g. `tree.matching('*kernel')`; None is all of them.

    Returns: a transform whose gradients are in at least float32.
    State: ().
    Raises: ValueError, in update, if gradients and parameters differ in structure or shape.
    Source: Krogh & Hertz 1991.

    >>> grads, params = {'w': jnp.array([1.0])}, {'w': jnp.array([10.0])}
    >>> add_l2(0.5).update(grads, (), params)[0]['w'].tolist()
    [6.0]
    """

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        expect_alike("add_l2: params and grads", params, grads)
        wide = jax.tree.map(lambda g: g.astype(dtypes.at_least_float32(g)), grads)
        return decay_weights(wide, params, l2, mask), state

    return Transform(init=lambda params: (), update=update)


@within(weight_decay="[0, inf)")
def decoupled_decay(
    optimizer: Optimizer, weight_decay: Scalar, *, mask: Mask | None = None
) -> Optimizer:
    """Any optimizer, with weights that shrink by themselves.

        update <- update - lr weight_decay p

    Args:
      weight_decay: per unit of lr, at least 0.
      mask: which leaves decay, e.g. `tree.matching('*kernel')`; None is all of them.

    State: the optimizer's.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101. Deviates: multiplied by the whole lr, as in
      `adamw`, which is `decoupled_decay(adam(), weight_decay)`.

    >>> from fnn.optim import sgd
    >>> opt, params = decoupled_decay(sgd(), 0.5), {'w': jnp.array([10.0])}
    >>> opt.update({'w': jnp.zeros(1)}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-2.5]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        updates, state = optimizer.update(grads, state, params, lr, objective)
        shrink = -jnp.asarray(lr) * jnp.asarray(weight_decay, jnp.result_type(lr))
        return decay_weights(updates, params, shrink, mask), state

    return optimizer._replace(update=update)
