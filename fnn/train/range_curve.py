"""The curve of a learning-rate range test, and the rates that it suggests."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fnn.types import Scalar

Curve = Float[Array, " steps"]
_BLOWN_UP = 4  # times the lowest loss: what comes later says nothing about learning
_LEAD_IN = 10  # the first tenth of the steps, where the smoothed loss is still that of few batches


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RangeCurve:
    """The losses of a range test at its learning rates, of one or of several seeds."""

    lrs: Float[Array, " steps"]
    losses: Float[Array, "seeds steps"]  # of each batch, before its update
    smoothed: Float[Array, "seeds steps"]  # by `smooth`

    @property
    def mean(self) -> Curve:
        """The smoothed loss, mean over the seeds; not finite once one of them is not."""
        return self.smoothed.mean(axis=0)

    @property
    def kept(self) -> Bool[Array, " steps"]:
        """The steps before the blow-up of `mean`."""
        return before_blow_up(self.mean)

    @property
    def suggestions(self) -> dict[str, Float[Array, ""]]:
        """'steepest', 'valley' and 'tenth of minimum' of `mean`; NaN for what it does not show."""
        return {
            "steepest": steepest(self.lrs, self.mean),
            "valley": valley(self.lrs, self.mean),
            "tenth of minimum": tenth_of_minimum(self.lrs, self.mean),
        }


def smooth(losses: Curve, decay: Scalar) -> Curve:
    """The moving average of the losses so far, without the pull towards its start at 0.

        m_i = decay m_(i-1) + (1 - decay) loss_i
        smoothed_i = m_i / (1 - decay^(i+1))

    Args:
      decay: share that a step keeps, in [0, 1).

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
    """The steps before the first loss that is not finite, or above 4 times the lowest so far.

    For losses below 0: above the lowest by 3 times its size, which is the same for those above.

    >>> before_blow_up(jnp.array([3.0, 1.0, 2.0, 5.0, 0.5, jnp.nan])).tolist()
    [True, True, True, False, False, False]
    """
    known = jnp.isfinite(losses)
    lowest = jax.lax.cummin(jnp.where(known, losses, jnp.inf))
    fine = known & (losses <= lowest + (_BLOWN_UP - 1) * jnp.abs(lowest))
    return jax.lax.cummin(fine.astype(jnp.int32)).astype(bool)


def steepest(lrs: Curve, losses: Curve) -> Float[Array, ""]:
    """The rate at which the loss falls most for a growth of the rate by the same factor.

    The first tenth of the steps does not count, nor what comes after the blow-up. NaN if the loss
    falls nowhere.

    Source: Gugger 2018, "How do you find a good learning rate".

    >>> lrs = jnp.array([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
    >>> steepest(lrs, jnp.array([2.0, 1.9, 1.5, 0.5, 0.4, 9.0])).item()   # from 1e-3 to 1e-2
    0.009999999776482582
    """
    kept = _usable(losses)
    between = kept[1:] & kept[:-1]
    rise = jnp.where(between, losses[1:] - losses[:-1], jnp.inf) / jnp.diff(jnp.log(lrs))
    i = jnp.argmin(rise)
    return jnp.where(rise[i] < 0, lrs[1:][i], jnp.nan)


def tenth_of_minimum(lrs: Curve, losses: Curve) -> Float[Array, ""]:
    """A tenth of the rate with the lowest loss before the blow-up; NaN if the loss falls nowhere.

    Source: Howard & Gugger 2020, "fastai: a layered API for deep learning".

    >>> lrs = jnp.array([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
    >>> tenth_of_minimum(lrs, jnp.array([2.0, 1.9, 1.5, 0.5, 0.4, 9.0])).item()
    0.009999999776482582
    """
    kept = _usable(losses)
    inside = jnp.where(kept, losses, jnp.inf)
    i = jnp.argmin(inside)
    return jnp.where(i > jnp.argmax(kept), lrs[i] / 10, jnp.nan)


def valley(lrs: Curve, losses: Curve) -> Float[Array, ""]:
    """The middle of the longest valley: of the longest sequence of ever lower losses.

    The sequence may pass over steps, so noise does not end it, and it is long where the loss falls
    slowly too, so the rate is a careful one. NaN if the loss falls nowhere before the blow-up.

    Source: the suggestion `valley` of fastai 2.3. Deviates: the valley begins with the first member
      of its sequence, not as many steps before its end as it has members; the first tenth of the
      steps does not count, but the last steps before the blow-up do.

    >>> lrs = jnp.array([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
    >>> valley(lrs, jnp.array([2.0, 1.9, 1.5, 0.5, 0.4, 9.0])).item()   # from 1e-5 to 1e-1
    0.0010000000474974513
    """
    first, last = _longest_descent(losses, _usable(losses))
    return jnp.where(last > first, lrs[(first + last) // 2], jnp.nan)


def _usable(losses: Curve) -> Bool[Array, " steps"]:
    n = losses.shape[0]
    return before_blow_up(losses) & (jnp.arange(n) >= n // _LEAD_IN)


def _longest_descent(
    losses: Curve, kept: Bool[Array, " steps"]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The places of the first and the last member of the longest falling subsequence."""
    n = losses.shape[0]
    places = jnp.arange(n)
    losses = jnp.where(kept, losses, jnp.inf)

    def step(found: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        lengths, firsts = found  # of the longest sequence that ends at each place
        before = jnp.where((places < i) & (losses > losses[i]) & kept & kept[i], lengths, 0)
        j = jnp.argmax(before)
        first = jnp.where(before[j] > 0, firsts[j], i)
        return (lengths.at[i].set(before[j] + 1), firsts.at[i].set(first)), None

    (lengths, firsts), _ = jax.lax.scan(step, (jnp.zeros_like(places), places), places)
    last = jnp.argmax(lengths)
    return firsts[last], last
