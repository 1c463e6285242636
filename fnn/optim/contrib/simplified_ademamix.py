"""Adam with a sum of gradients in the place of their mean, and more weight on the newest."""

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim.adam import AdamState
from fnn.optim.base import bias_correction, elementwise
from fnn.tree import Mask
from fnn.types import Optimizer, Scalar


@within(b1="[0, 1)", b2="[0, 1)", alpha="[0, inf)", eps="[0, inf)", weight_decay="[0, inf)")
def simplified_ademamix(
    *,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: Scalar = 0.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Simplified AdEMAMix: `ademamix` with one sum of gradients in the place of its two means.

        m <- b1 m + g        v <- b2 v + (1 - b2) g^2        t = 1, 2, ...
        update = -lr ((m + alpha g) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p)

    m is up to 1 / (1 - b1) times as large as a mean: begin with Adam's lr times (1 - b1).

    Args:
      b1, b2: decay rates of the sum and of the second moment, in [0, 1).
      alpha: weight of the newest gradient, at least 0; with large batches about 0, with small ones
        up to 100.
      eps: outside the square root, in the unit of g.
      weight_decay: decoupled, per unit of lr.
      mask: which leaves decay; None is all of them.

    State: AdamState; m is the sum.
    Source: Morwani et al. 2025, arXiv:2502.02431, Algorithm 3. Compat: as Optax, which also takes
      a schedule as alpha: `scheduled(lambda alpha: ..., alpha=schedule)` does here.

    >>> opt, params = simplified_ademamix(b1=0.5, b2=0.0, alpha=2.0), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (3.0, 1.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(round(updates['w'].item(), 3))
    >>> steps    # (3 + 2 * 3) / 3 and (2.5 + 2 * 1) / 1
    [-3.0, -4.5]
    """

    return elementwise(
        "simplified_ademamix",
        AdamState,
        _rule,
        weight_decay=weight_decay,
        mask=mask,
        b1=b1,
        b2=b2,
        alpha=alpha,
        eps=eps,
    )


def _rule(g, m, v, *, t, b1, b2, alpha, eps):
    m = b1 * m + g
    v = b2 * v + (1 - b2) * g * g
    return (m + alpha * g) / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v
