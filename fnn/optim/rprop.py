"""Steps of every number's own size, which grow while its gradient keeps its sign."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fnn import tree
from fnn.optim.base import from_direction
from fnn.types import Optimizer, Params, Scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RpropState:
    """What each parameter did last, and how far it goes."""

    sign: Params  # of the last gradient: -1 or 1; 0 at the start and after a turn
    scale: Params  # step size as a multiple of lr, in at least float32


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

    def init(params):
        zeros = tree.zeros_like(params)
        return RpropState(sign=zeros, scale=jax.tree.map(jnp.ones_like, zeros))

    def resized(scale, agree):
        factor = jnp.where(
            agree > 0, jnp.asarray(grow, scale.dtype), jnp.asarray(shrink, scale.dtype)
        )
        low, high = jnp.asarray(min_scale, scale.dtype), jnp.asarray(max_scale, scale.dtype)
        # The choice comes last: XLA would compute a bare clip twice, and copy its input for that.
        return jnp.where(agree == 0, scale, jnp.clip(scale * factor, low, high))

    def direction(grads, state, params):
        signs = jax.tree.map(jnp.sign, grads)
        agree = jax.tree.map(jnp.multiply, signs, state.sign)
        scale = jax.tree.map(resized, state.scale, agree)
        signs = jax.tree.map(lambda s, a: jnp.where(a < 0, 0, s), signs, agree)
        return jax.tree.map(jnp.multiply, signs, scale), RpropState(sign=signs, scale=scale)

    return from_direction("rprop", init, direction)
