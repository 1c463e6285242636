"""RMSprop, and Rprop, its ancestor for full batches."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.autodiff import safe_sqrt
from fnn.expect import within
from fnn.optim._base import elementwise
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MeanSquare:
    """The running mean of the squared gradient."""

    v: Params  # in at least float32


@within(decay="[0, 1)", eps="[0, inf)")
def rmsprop(*, decay: Scalar = 0.9, eps: Scalar = 1e-8) -> Optimizer:
    """RMSprop: the gradient over its running root mean square.

        v <- decay v + (1 - decay) g^2
        update = -lr g / (sqrt(v) + eps)

    Args:
      decay: decay rate of v, in [0, 1). PyTorch's default is 0.99.
      eps: outside the square root, in the unit of g.

    State: MeanSquare; starts at 0.
    Source: Tieleman & Hinton 2012, lecture 6.5. Optax and Keras put eps inside the root.

    >>> opt, params = rmsprop(decay=0.75), {'w': jnp.array([0.0])}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 1.0)[0]['w'].tolist()
    [-2.0]
    """
    return elementwise("rmsprop", MeanSquare, _rule, decay=decay, eps=eps)


def _rule(g: Array, v: Array, *, decay: Scalar, eps: Scalar) -> tuple[Array, ...]:
    v = decay * v + (1 - decay) * g * g
    return g / (safe_sqrt(v) + eps), v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RpropState:
    """The last sign and the step size of each parameter."""

    sign: Params  # of the last gradient: -1 or 1; 0 at the start and after a sign change
    scale: Params  # step size as a multiple of lr, in at least float32


@within(shrink="(0, 1)", grow="(1, inf)", min_scale="(0, 1)", max_scale="(1, inf]")
def rprop(
    *,
    shrink: Scalar = 0.5,
    grow: Scalar = 1.2,
    min_scale: Scalar = 1e-4,
    max_scale: Scalar = 5e3,
) -> Optimizer:
    """Rprop, for full batches: step sizes that depend on the signs of the gradients alone.

        agree = sign(g) sign(last g)
        scale <- clip(scale * (grow, shrink or 1, as agree is 1, -1 or 0), min_scale, max_scale)
        update = -lr scale sign(g);   0 where agree is -1, and that g counts as 0 in the next step

    Begin with lr 1e-4 and max_scale=10. Noise flips signs: with batches, let the sizes change less,
    as with lr 1e-3, shrink=0.9, grow=1.05 and max_scale=3.

    Args:
      shrink, grow: factors of the step size, below and above 1.
      min_scale, max_scale: limits of the step size, in multiples of lr, below and above 1.

    State: RpropState; scale starts at 1, so lr is the size of the first step.
    Source: Riedmiller & Braun 1993; iRprop- of Igel & Hüsken 2000, which does not step back.
      Deviates: step sizes are multiples of lr, so that a schedule or a sweep of lr acts on them.
    Compat: PyTorch's and Optax's limits are step sizes, 1e-6 and 50: divide them by lr; the
      defaults are theirs for lr = 0.01. PyTorch agrees. Optax 0.2 applies each update one step
      late: its first is 0, and it is 0 in time after a sign change.

    >>> opt, params = rprop(), {'w': jnp.zeros(1)}
    >>> state, steps = opt.init(params), []
    >>> for g in (3.0, 1.0, -1.0, -1.0):
    ...     updates, state = opt.update({'w': jnp.array([g])}, state, params, 1.0)
    ...     steps.append(round(updates['w'].item(), 3))
    >>> steps
    [-1.0, -1.2, 0.0, 0.6]
    """
    return elementwise(
        "rprop",
        RpropState,
        _rprop_rule,
        start={"scale": 1.0},
        shrink=shrink,
        grow=grow,
        min_scale=min_scale,
        max_scale=max_scale,
    )


def _rprop_rule(
    g: Array,
    sign: Array,
    scale: Array,
    *,
    shrink: Scalar,
    grow: Scalar,
    min_scale: Scalar,
    max_scale: Scalar,
) -> tuple[Array, ...]:
    agree = jnp.sign(g) * sign
    factor = jnp.where(agree > 0, grow, jnp.where(agree < 0, shrink, 1.0)).astype(scale.dtype)
    scale = jnp.where(agree == 0, scale, jnp.clip(scale * factor, min_scale, max_scale))
    sign = jnp.where(agree < 0, 0, jnp.sign(g))
    return sign * scale, sign, scale
