"""Successive halving: the settings that do worst early are not trained to the end."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Score = Callable[[dict[str, float]], float]


def loss_of(valid: dict[str, float]) -> float:
    """The validation loss as a score: lower is better.

    >>> loss_of({'loss': 0.5, 'accuracy': 0.8})
    0.5
    """
    return valid["loss"]


class Halving(NamedTuple):
    """See `halving`."""

    eta: int
    rungs: int
    score: Score


def halving(*, eta: int = 3, rungs: int = 3, score: Score = loss_of) -> Halving:
    """Successive halving as an option of `sweep`.

    With n settings, T steps and R rungs, rung r = 0, ..., R - 1 trains

        n / eta^r settings up to step T / eta^(R - 1 - r)

    and each costs about the same. Nothing is trained twice: the survivors of a rung go on.

    Args:
      eta: one of so many settings survives a rung; 2 or more.
      rungs: 2 or more; the last one ends with the last step.
      score: of a setting's validation metrics, in the mean over its keys; lower is better. A
        setting with a member that died has NaN there, and comes last.

    Raises: ValueError for whole numbers below 2.
    Source: Jamieson & Talwalkar 2016, arXiv:1502.07943, algorithm 1; Karnin et al. 2013. Deviates:
      all keys of a setting live or die together, so each row of the table has its n.

    >>> rung_ends(halving(eta=4, rungs=3), steps=160, eval_every=10)
    [10, 40, 160]
    """
    if min(eta, rungs) < 2:
        raise ValueError(
            f"halving: expected eta and rungs of 2 or more, got {eta} and {rungs}; "
            "to train all to the end, leave halving out"
        )
    return Halving(eta, rungs, score)


def rung_ends(halving: Halving, *, steps: int, eval_every: int) -> list[int]:
    """The step at which each rung ends: the next evaluation from steps / eta^k on.

    Raises: ValueError if two rungs end together.
    """
    wanted = [steps / halving.eta**k for k in reversed(range(halving.rungs))]
    ends = [min(steps, int(-(-w // eval_every)) * eval_every) for w in wanted]
    if len(set(ends)) < len(ends):
        raise ValueError(
            f"halving: expected rungs that end apart, got ends at the steps {ends}; "
            "evaluate more often, or use fewer rungs"
        )
    return ends


def survivors(
    halving: Halving, valid: Sequence[dict[str, float]], n: int, rung: int
) -> Int[np.ndarray, " kept"]:
    """Which of the settings with the metrics `valid` go on after rung `rung`, in their order.

    Args:
      n: number of settings of the first rung.

    >>> survivors(halving(eta=2), [{'loss': x} for x in (3.0, 1.0, float('nan'), 2.0)], 4, 0)
    array([1, 3])
    """
    scores: Float[np.ndarray, " n"] = np.array([halving.score(one) for one in valid], np.float64)
    kept = -(-n // halving.eta ** (rung + 1))
    return np.sort(np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable")[:kept])
