"""No step against the gradient."""

import jax

from fnn.dtypes import wide
from fnn.optim.wrap import wrapping
from fnn.types import Optimizer


def cautious(optimizer: Optimizer) -> Optimizer:
    """Cautious: leave out the parts of an update that go uphill on this batch.

        mask = [update * g < 0]
        update <- update * mask * size / (sum(mask) + 1),   leaf by leaf

    Args:
      optimizer: one whose state does not follow its own updates; the averages of `ema`, `swa`,
        `lookahead` and the schedule-free methods, and `master_weights`, go around it, not inside.

    State: the optimizer's.
    Source: Liang et al. 2024, arXiv:2411.16085, Algorithm 1 with the scale of its section on
      implementation (xi = 1). Deviates: the mask falls on the whole update, decay of weights
      included; the authors' AdamW decays before it. Compat: neither Optax nor PyTorch has it; timm
      divides by max(mean(mask), 1e-3).
    Measured around adam: digits 98.8 % at lr 0.032; Rosenbrock in ten dimensions 3.1e-07 at lr
      0.1.

    >>> from fnn.optim import momentum
    >>> opt, params = cautious(momentum()), {'w': jnp.zeros(2)}
    >>> _, state = opt.update({'w': jnp.array([1.0, 1.0])}, opt.init(params), params, 1.0)
    >>> opt.update({'w': jnp.array([0.1, -0.1])}, state, params, 1.0)[0]['w'].tolist()
    [-1.0, -0.0]
    """

    def update(grads, state, params, lr, objective):
        updates, state = optimizer.update(grads, state, params, lr, objective)

        def leaf(u, g):
            mask = (u * g.astype(u.dtype) < 0).astype(u.dtype)
            return u * mask * (u.size / (mask.sum() + 1))

        return jax.tree.map(leaf, wide(updates), grads), state

    return wrapping("cautious", optimizer, optimizer.init, update, inner=lambda state: state)
