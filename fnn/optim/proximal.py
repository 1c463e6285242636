"""L1 that reaches exact zeros: a step of the optimizer, then one towards 0."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.dtypes import wide
from fnn.expect import within
from fnn.optim.wrap import wrapping
from fnn.tree import Mask
from fnn.types import Objective, Optimizer, Params, Scalar


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
