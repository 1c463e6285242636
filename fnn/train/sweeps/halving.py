"""Successive halving: the settings that are worst early are not trained to the end."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Score = Callable[[dict[str, float]], float]


class Halving(NamedTuple):
    """An option of `sweep`, made by `halving`."""

    eta: int
    rungs: int
    score: Score


def halving(*, eta: int = 3, rungs: int = 3, score: Score = lambda valid: valid["loss"]) -> Halving:
    """Successive halving as an option of `sweep`.

    With n settings, T steps and R rungs, rung r = 0, ..., R - 1 trains

        n / eta^r settings up to step T / eta^(R - 1 - r)

    and each rung costs about the same. The survivors of a rung continue from their states.

    Args:
      eta: reciprocal of the fraction of settings that survive a rung; 2 or more.
      rungs: 2 or more; the last one ends with the last step.
      score: a function of a setting's validation metrics, averaged over its keys; lower is better.
        For a setting with a diverged member it is NaN, which is ranked last.

    Raises: ValueError for eta or rungs below 2.
    Source: Jamieson & Talwalkar 2016, arXiv:1502.07943, algorithm 1; Karnin et al. 2013. Deviates:
      all keys of a setting survive or stop together, so each row of the table has its n.

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
    """The last step of each rung: the first evaluation from steps / eta^k on."""
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
    """Indices of the settings that survive rung `rung`, of n in the first, by their metrics."""
    scores: Float[np.ndarray, " n"] = np.array([halving.score(one) for one in valid], np.float64)
    kept = -(-n // halving.eta ** (rung + 1))
    return np.sort(np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable")[:kept])
