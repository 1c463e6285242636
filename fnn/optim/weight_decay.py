"""L2 penalties, decoupled weight decay and proximal L1."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes
from fnn.dtypes import wide
from fnn.expect import expect_alike, within
from fnn.optim._base import decay_weights
from fnn.optim._wrap import wrapping
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


@within(l1="[0, inf)")
def proximal_l1(optimizer: Optimizer, l1: Scalar, *, mask: Mask | None = None) -> Optimizer:
    """Minimize the loss plus l1 ||p||_1, with parameters that become exactly 0.

        q = p + the optimizer's update
        p <- sign(q) max(|q| - lr l1, 0)

    With gradient descent this is ISTA, which comes to rest where the penalized loss is least. The
    gradient of `losses.l1_penalty` instead crosses 0 back and forth, and no parameter stays there.
    The threshold does not know how the optimizer scales a gradient: with momentum m, the minimum is
    that of (1 - m) l1, and beside the steps of Adam, of about lr each, l1 must be near 1 or above.
    Accumulate inside it, not around.

    Args:
      optimizer: with all its wrappers.
      l1: weight of the penalty, at least 0; may be traced.
      mask: which leaves, e.g. `tree.matching('*kernel')`; None is all of them.

    State: the optimizer's.
    Source: Daubechies, Defrise & De Mol 2004, arXiv:math/0307152; Beck & Teboulle 2009, A fast
      iterative shrinkage-thresholding algorithm, equation 1.4. Compat: with gradient descent on a
      mean of squares, scikit-learn's Lasso(alpha) for l1 = 2 alpha.

    >>> from fnn.optim import sgd
    >>> opt, params = proximal_l1(sgd(), 1.0), {'w': jnp.array([2.0, 0.1])}
    >>> updates, _ = opt.update({'w': jnp.zeros(2)}, opt.init(params), params, 0.5)
    >>> (params['w'] + updates['w']).tolist()
    [1.5, 0.0]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        updates, state = optimizer.update(grads, state, params, lr, objective)
        marked = jax.tree.map(lambda _: True, params) if mask is None else mask(params)

        def leaf(p: Array, u: Array, is_drawn: bool) -> Array:
            if not is_drawn:
                return u
            p = wide(p)
            threshold = jnp.asarray(lr, p.dtype) * jnp.asarray(l1, p.dtype)
            moved = p + u.astype(p.dtype)
            # Exactly -p where the result is 0, so that p + update is.
            drawn = moved - jnp.clip(moved, -threshold, threshold)
            return drawn - p

        return jax.tree.map(leaf, params, updates, marked), state

    return wrapping("proximal_l1", optimizer, optimizer.init, update, inner=lambda state: state)
