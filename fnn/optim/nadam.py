"""Adam with Nesterov's momentum."""

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim.adam import AdamState
from fnn.optim.base import bias_correction, elementwise
from fnn.tree import Mask
from fnn.types import Optimizer, Scalar


@within(b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def nadam(*, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> Optimizer:
    """Nadam: Adam whose momentum looks one step ahead.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        ahead = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)
        update = -lr ahead / (sqrt(v / (1 - b2^t)) + eps),   t = 1, 2, ...

    Begin with lr 3e-3.

    Args:
      b1, b2: shares of the moments that a step keeps, in [0, 1).
      eps: outside the square root, in the unit of g.

    State: AdamState.
    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 2. Deviates: b1 is
      constant, and v is not multiplied by b2 once more.
    Compat: as Optax. PyTorch's NAdam lets the momentum grow from b1 / 2 to b1 with a time
      constant, `momentum_decay`, as the paper does in its experiments; with a very large
      `momentum_decay` it is this.
    Measured: digits 98.8 % at lr 0.01; Rosenbrock in ten dimensions 0.24 at lr 0.1.

    >>> opt, params = nadam(b1=0.5), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)
    >>> updates['w'].round(3).tolist()   # 1 + b1 / (1 + b1) at the first step
    [-1.3329999446868896]
    """

    return elementwise("nadam", AdamState, _rule, b1=b1, b2=b2, eps=eps)


@within(weight_decay="[0, inf)", b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def nadamw(
    *,
    weight_decay: Scalar,
    mask: Mask | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """Nadam with decoupled weight decay; tuned in `algoperf_nadamw`.

        update = -lr (nadam's direction + weight_decay p)

    Begin with lr 3e-3.

    Args:
      weight_decay: per unit of lr; no default, as in `adamw`.
      mask: which leaves decay, e.g. `tree.matching('*kernel')`; None is all of them.
      b1, b2, eps: as in `nadam`.

    State: AdamState.
    Source: Dozat 2016 and Loshchilov & Hutter 2019, arXiv:1711.05101; see `nadam` and `adamw`.
    Measured with weight_decay=0.01: digits 98.8 % at lr 0.01; Rosenbrock in ten dimensions 0.051
      at lr 0.1.

    >>> opt, params = nadamw(weight_decay=0.1), {'w': jnp.ones(1)}
    >>> updates, _ = opt.update({'w': jnp.zeros(1)}, opt.init(params), params, 0.5)
    >>> updates['w'].round(3).tolist()
    [-0.05000000074505806]
    """

    return elementwise(
        "nadamw", AdamState, _rule, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps
    )


def _rule(g, m, v, *, t, b1, b2, eps):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    ahead = b1 * m / bias_correction(b1, t + 1) + (1 - b1) * g / bias_correction(b1, t)
    return ahead / (safe_sqrt(v / bias_correction(b2, t)) + eps), m, v
