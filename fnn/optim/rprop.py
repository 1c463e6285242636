"""Steps of every number's own size, which grow while its gradient keeps its sign."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fnn.expect import within
from fnn.optim.base import elementwise
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RpropState:
    """What each parameter did last, and how far it goes."""

    sign: Params  # of the last gradient: -1 or 1; 0 at the start and after a turn
    scale: Params  # step size as a multiple of lr, in at least float32


@within(shrink="(0, 1)", grow="(1, inf)", min_scale="(0, 1)", max_scale="(1, inf]")
def rprop(
    *,
    shrink: Scalar = 0.5,
    grow: Scalar = 1.2,
    min_scale: Scalar = 1e-4,
    max_scale: Scalar = 5e3,
) -> Optimizer:
    """Rprop: only the signs of the gradients count. For full batches: noise turns signs.

        turned = sign(g) sign(last g) < 0
        scale <- clip(scale * (grow, shrink or 1, as the sign stayed, turned, or one of them is 0))
        update = 0 where turned, and the last g counts as 0 at the next step
                 -lr scale sign(g) elsewhere

    Made for the whole data at each step: begin with lr 1e-4 and max_scale=10. With batches, let the
    sizes change less: lr 1e-3, shrink=0.9, grow=1.05 and max_scale=3.

    Args:
      shrink, grow: factors of the step size, below and above 1.
      min_scale, max_scale: limits of the step size, in multiples of lr, below and above 1.

    State: RpropState; the first scale is 1, so lr is the size of the first step.
    Source: Riedmiller & Braun 1993; iRprop- of Igel & Hüsken 2000, which does not step back.
      Deviates: step sizes are multiples of lr, so that a schedule or a sweep of lr acts on them.
    Compat: PyTorch's and Optax's limits are step sizes, 1e-6 and 50: divide them by lr; the
      defaults are theirs for lr = 0.01. PyTorch agrees. Optax 0.2 gives each update one step
      late: its first is 0, and after a turn it gives 0 at the right time.
    Measured with max_scale=10, all of the training part at each step: digits 98.8 % at lr 0.0001;
      Rosenbrock in ten dimensions 0.00094 at lr 0.01.

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
        _rule,
        start={"scale": 1.0},
        shrink=shrink,
        grow=grow,
        min_scale=min_scale,
        max_scale=max_scale,
    )


def _rule(g, sign, scale, *, shrink, grow, min_scale, max_scale):
    agree = jnp.sign(g) * sign
    factor = jnp.where(agree > 0, grow, jnp.where(agree < 0, shrink, 1.0)).astype(scale.dtype)
    scale = jnp.where(agree == 0, scale, jnp.clip(scale * factor, min_scale, max_scale))
    sign = jnp.where(agree < 0, 0, jnp.sign(g))
    return sign * scale, sign, scale
