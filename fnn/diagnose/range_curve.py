"""The curve of a learning-rate range test, and the suggested rate."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fnn import dtypes, show
from fnn.types import Scalar

Curve = Float[Array, " steps"]
_BLOWN_UP = 4  # times the lowest loss; later steps are ignored
_PART = 0.8  # of the fall
_LEAD_IN = 10  # the first tenth of the steps is ignored: an average of few batches


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RangeCurve:
    """The losses of a range test by learning rate, for one or several seeds."""

    lrs: Float[Array, " steps"]
    losses: Float[Array, "seeds steps"]  # of each batch, before its update
    smoothed: Float[Array, "seeds steps"]  # by `smooth`

    @property
    def mean(self) -> Curve:
        """The smoothed loss, mean over the seeds."""
        return self.smoothed.mean(axis=0)

    @property
    def kept(self) -> Bool[Array, " steps"]:
        """The steps before the blow-up of `mean`."""
        return before_blow_up(self.mean)

    @property
    def suggestion(self) -> Float[Array, ""]:
        """The rate to train with, see `suggest`; NaN if the loss falls nowhere."""
        return suggest(self.lrs, self.mean, self.noise)

    @property
    def noise(self) -> Float[Array, ""]:
        """Standard deviation over batches of the mean over the seeds, from differences."""
        known = self.kept & jnp.isfinite(self.losses).all(axis=0)
        both = jnp.broadcast_to(known[1:] & known[:-1], self.losses[:, 1:].shape)
        clean = jnp.where(known, self.losses, 0)
        steps = jnp.sort(jnp.where(both, jnp.abs(jnp.diff(clean, axis=1)), jnp.inf).ravel())
        middle = steps[jnp.maximum(both.sum() - 1, 0) // 2]
        # The median distance of two normal draws is 0.954 standard deviations.
        deviation = jnp.where(both.any(), middle, 0) / 0.954
        return deviation / math.sqrt(self.losses.shape[0])

    def __repr__(self) -> str:
        values = (self.lrs, self.losses, self.smoothed)
        if any(isinstance(a, jax.core.Tracer) for a in values) or self.losses.ndim != 2:
            return show.fields(self)
        return f"RangeCurve: {_reason(self)}"


def _reason(curve: RangeCurve) -> str:
    lrs, mean, lr = np.asarray(curve.lrs), np.asarray(curve.mean), float(curve.suggestion)
    usable = np.flatnonzero(np.asarray(_usable(curve.mean)))
    span = f"between {lrs[0]:.2g} and {lrs[-1]:.2g}"
    if not np.isfinite(lr) or not len(usable):
        return (
            f"no suggestion; the loss falls nowhere {span} by twice its noise of "
            f"{float(curve.noise):.2g}. Check data, loss and gradient, or take other ends, more "
            "steps or seeds"
        )
    first, lowest = usable[0], usable[np.argmin(mean[usable])]
    words = (
        f"take lr {lr:.2g}, half of the rate at which the loss has made 80 % of its fall "
        f"from {mean[first]:.3g} to {mean[lowest]:.3g} at {lrs[lowest]:.2g}"
    )
    if lowest >= len(lrs) - 1 - len(lrs) // 20:
        return f"{words}; it still falls there, so a test with a larger lr_max may say more"
    if usable[-1] < len(lrs) - 1:
        return f"{words}; it blows up at {lrs[usable[-1] + 1]:.2g}"
    return words


def smooth(losses: Curve, decay: Scalar) -> Curve:
    """The moving average of the losses, with bias correction.

        m_i = decay m_(i-1) + (1 - decay) loss_i
        smoothed_i = m_i / (1 - decay^(i+1))

    >>> smooth(jnp.array([2.0, 2.0, 5.0]), 0.5).round(3).tolist()
    [2.0, 2.0, 3.714]
    """
    decay = jnp.asarray(decay, losses.dtype)

    def step(sums: tuple[Array, Array], loss: Array) -> tuple[tuple[Array, Array], Array]:
        total, weight = sums
        total, weight = decay * total + (1 - decay) * loss, decay * weight + (1 - decay)
        return (total, weight), total / weight

    zero = jnp.zeros((), losses.dtype)
    return jax.lax.scan(step, (zero, zero), losses)[1]


def before_blow_up(losses: Curve) -> Bool[Array, " steps"]:
    """The steps before the first loss that is not finite, or above lowest + 3 |lowest| so far.

    >>> before_blow_up(jnp.array([3.0, 1.0, 2.0, 5.0, 0.5, jnp.nan])).tolist()
    [True, True, True, False, False, False]
    """
    known = jnp.isfinite(losses)
    lowest = jax.lax.cummin(jnp.where(known, losses, jnp.inf))
    fine = known & (losses <= lowest + (_BLOWN_UP - 1) * jnp.abs(lowest))
    return jax.lax.cummin(fine.astype(jnp.int32)).astype(bool)


def suggest(lrs: Curve, losses: Curve, noise: Scalar = 0.0) -> Float[Array, ""]:
    """Half of the rate at which the loss has made 80 % of its fall.

    The first tenth of the steps does not count, nor what comes after the blow-up. NaN if the loss
    falls by less than twice `noise`.

    Source: our comparison of 14 rules, `experiments/lr_find_rules.py` and docs/lr_find.md.

    >>> lrs = jnp.array([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
    >>> round(suggest(lrs, jnp.array([2.0, 1.9, 1.5, 0.5, 0.4, 9.0])).item(), 4)   # loss 0.5
    0.005
    """
    kept = _usable(losses)
    start = losses[jnp.argmax(kept)]
    fall = start - jnp.where(kept, losses, jnp.inf).min()
    i = jnp.argmax(kept & (losses <= start - _PART * fall))
    falls = kept.any() & (fall > 2 * jnp.asarray(noise))
    return jnp.where(falls, lrs[i] / 2, dtypes.missing())


def _usable(losses: Curve) -> Bool[Array, " steps"]:
    n = losses.shape[0]
    return before_blow_up(losses) & (jnp.arange(n) >= n // _LEAD_IN)
