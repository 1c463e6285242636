"""From where on something is a fault: every threshold of the audit, with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The thresholds of `audit`; change one by its name.

    >>> Limits(imbalance=20.0).imbalance
    20.0
    """

    # Labels
    imbalance: float = 10.0  # largest class over smallest: to say the one is 91 % right already
    fewest: int = 50  # examples for a test of labels or features; fewer leave too much to chance
    beats_chance: float = 4.0  # standard deviations over shuffled labels; one in 30,000 by luck
    leak: float = 0.99  # agreement of a single feature with the label, where 0 is a guess

    # Features
    spread: float = 100.0  # ratio of two scales: the loss is its square, 1e4, as ill-conditioned
    offset: float = 100.0  # mean over standard deviation: the same, for the bias and the weights
    size: float = 50.0  # root mean square, or one over it: initial outputs are off by as much
    varies: float = 0.05  # share of rows off the median, below which a feature is only sparse

    # Between examples
    near: float = 0.4  # distance to the nearest over that to the fifth nearest neighbor
    by_luck: float = 0.01  # near-duplicates expected in a whole set without any

    # Between splits
    drift: float = 0.1  # share of the examples that have moved; less is significant, but harmless
    significance: float = 1e-3  # of a drift, after Bonferroni's correction for the features
