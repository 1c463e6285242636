"""Lion and sign descent: updates that are the sign of a direction."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.expect import within
from fnn.optim._base import elementwise, from_direction
from fnn.tree import Mask
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Momentum:
    """The running mean of the gradient."""

    m: Params  # in at least float32


def sign_sgd() -> Optimizer:
    """Sign descent: each parameter steps by lr against the sign of its gradient.

        update = -lr sign(g)

    Begin with lr 1e-3, and decay it to 0: steps of constant size do not converge.

    State: ().
    Source: Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1. Compat: Optax.

    >>> opt, params = sign_sgd(), {'w': jnp.zeros(3)}
    >>> opt.update({'w': jnp.array([3.0, -1e-9, 0.0])}, (), params, 0.5)[0]['w'].tolist()
    [-0.5, 0.5, -0.0]
    """
    return from_direction(
        "sign_sgd",
        lambda params: (),
        lambda grads, state, params: (jax.tree.map(jnp.sign, grads), state),
    )


@within(momentum="[0, 1)")
def signum(*, momentum: Scalar = 0.9) -> Optimizer:
    """Signum: each parameter steps by lr against the sign of the running mean of its gradient.

        m <- momentum m + (1 - momentum) g
        update = -lr sign(m)

    Begin with lr 1e-3 to 0.01, and decay it to 0.

    Args:
      momentum: decay rate of the mean, in [0, 1). At 0 it is `sign_sgd`.

    State: Momentum.
    Source: Bernstein et al. 2018, arXiv:1802.04434, Algorithm 2. Compat: Optax.

    >>> opt, params = signum(), {'w': jnp.zeros(1)}
    >>> state = opt.init(params)
    >>> for g in (3.0, -1.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 0.5)
    >>> updates['w'].tolist()
    [-0.5]
    """
    return elementwise("signum", Momentum, _signum_rule, momentum=momentum)


def _signum_rule(g: Array, m: Array, *, momentum: Scalar) -> tuple[Array, ...]:
    m = momentum * m + (1 - momentum) * g
    return jnp.sign(m), m


@within(b1="[0, 1)", b2="[0, 1)", weight_decay="[0, inf)")
def lion(
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    weight_decay: Scalar = 0.0,
    mask: Mask | None = None,
) -> Optimizer:
    """Lion: the sign of an average of gradient and momentum.

        update = -lr (sign(b1 m + (1 - b1) g) + weight_decay p)
        m <- b2 m + (1 - b2) g

    lr: a third to a tenth of Adam's.

    Args:
      b1: weight of the momentum in the step, in [0, 1).
      b2: decay rate of the momentum, in [0, 1).
      weight_decay: decoupled, per unit of lr (three to ten times AdamW's).
      mask: which leaves decay; None is all of them.

    State: Momentum.
    Source: Chen et al. 2023, arXiv:2302.06675, Algorithm 2.

    >>> opt, params = lion(), {'w': jnp.zeros(2)}
    >>> opt.update({'w': jnp.array([3.0, -2.0])}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-0.5, 0.5]
    """
    return elementwise(
        "lion", Momentum, _lion_rule, weight_decay=weight_decay, mask=mask, b1=b1, b2=b2
    )


def _lion_rule(g: Array, m: Array, *, b1: Scalar, b2: Scalar) -> tuple[Array, ...]:
    return jnp.sign(b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g
