"""Ratios of times that were taken in the same rounds, as all tables here show them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Ratio = tuple[float, float, float]  # lower quartile, median, upper quartile


def ratio_of(ours: Sequence[float] | Any, theirs: Sequence[float] | Any) -> Ratio:
    """Of each round's ours / theirs."""
    low, middle, high = np.quantile(np.array(ours) / np.array(theirs), [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def shown(ratio: Ratio, digits: int = 3) -> str:
    low, middle, high = (f"{part:.{digits}f}" for part in ratio)
    return f"{middle} ({low}-{high})"
