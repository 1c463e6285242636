"""L2 penalties, decoupled weight decay and proximal L1."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.dtypes import wide
from fnn.expect import expect_alike, within
from fnn.optim._base import decay_weights, marked
from fnn.optim._wrap import map_updates
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar, Transform


@within(l2="[0, inf)")
def add_l2(l2: Scalar, *, mask: Mask | None = None) -> Transform:
    """Adds the gradient of an L2 penalty, l2 ||p||^2 / 2.

        g <- g + l2 p

    An optimizer that follows treats it as part of the gradient: Adam divides it by the size of the
    gradient, so that weights with large gradients decay less. For the alternative see
    `decoupled_decay`.

    Args:
      l2: at least 0; the weight_decay of PyTorch's SGD and Adam.
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
        return decay_weights(wide(grads), params, l2, mask), state

    return Transform(init=lambda params: (), update=update)


@within(weight_decay="[0, inf)")
def decoupled_decay(
    optimizer: Optimizer, weight_decay: Scalar, *, mask: Mask | None = None
) -> Optimizer:
    """Adds decoupled weight decay to any optimizer.

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

    def decayed(updates: Params, grads: Params, params: Params, lr: Any) -> Params:
        shrink = -jnp.asarray(lr) * jnp.asarray(weight_decay, jnp.result_type(lr))
        return decay_weights(updates, params, shrink, mask)

    return map_updates(optimizer, decayed)


@within(l1="[0, inf)")
def proximal_l1(optimizer: Optimizer, l1: Scalar, *, mask: Mask | None = None) -> Optimizer:
    """Minimizes the loss plus l1 ||p||_1, with parameters that become exactly 0.

        q = p + the optimizer's update
        p <- sign(q) max(|q| - lr l1, 0)

    With gradient descent this is ISTA, which converges to the minimum of the penalized loss. With
    the gradient of `losses.l1_penalty` instead, parameters oscillate around 0. The threshold
    ignores how the optimizer scales a gradient: with momentum m, the minimum is that of (1 - m) l1,
    and with Adam, whose steps are about lr, l1 must be near 1 or above. Accumulate inside it, not
    around.

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

    def shrunk(updates: Params, grads: Params, params: Params, lr: Any) -> Params:
        def leaf(p: Array, u: Array, is_penalized: bool) -> Array:
            if not is_penalized:
                return u
            p = wide(p)
            threshold = jnp.asarray(lr, p.dtype) * jnp.asarray(l1, p.dtype)
            moved = p + u.astype(p.dtype)
            # Exactly -p where the result is 0, so that p + update is.
            return moved - jnp.clip(moved, -threshold, threshold) - p

        return jax.tree.map(leaf, params, updates, marked(mask, params))

    return map_updates(optimizer, shrunk)
