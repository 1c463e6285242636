"""Splits whose features or labels have different distributions."""

import numpy as np

from fnn.data.audit._splits import Split, comparable
from fnn.data.audit.findings import Finding, Limits

_MOST_ENTRIES = 2_000_000  # of a split that are sorted, in a fraction of a second
_MOST_ROWS = 10_000


def drift(splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator) -> list[Finding]:
    """Features and labels whose distributions differ between the first split and another.

    The distance of two distributions is that of Kolmogorov and Smirnov, the largest difference of
    their distribution functions; for categories and classes the total variation. Distances by
    chance are bounded by Massart's inequality, and by a chi-square statistic.

    Source: Massart 1990, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality".
    """
    first, *others = splits
    found = []
    for other in others:
        if comparable(first, other) and not first.is_text:
            found += _features(first, other, limits, rng)
        if first.classes is not None and other.classes is not None:
            found += _classes(first, other, first.classes, other.classes, limits)
    return found


def _features(a: Split, b: Split, limits: Limits, rng: np.random.Generator) -> list[Finding]:
    most = min(_MOST_ROWS, max(1000, _MOST_ENTRIES // a.rows.shape[1]))
    x, z = (s.floats(rng.permutation(len(s.rows))[:most]) for s in (a, b))
    distance = _kolmogorov(x, z)
    significance = limits.significance / len(distance)
    massart = np.sqrt(np.log(2 / significance) / 2 * (len(x) + len(z)) / (len(x) * len(z)))
    chance = np.full(len(distance), float(massart))
    for i in a.categorical:
        distance[i], chance[i] = _variation(x[:, i].astype(int), z[:, i].astype(int), significance)
    moved = np.flatnonzero((distance > chance) & (distance > limits.drift))
    if len(moved) == 0:
        return []
    moved = moved[np.argsort(-distance[moved], kind="stable")]
    worst = moved[0]
    return [
        Finding(
            kind="drift",
            where=f"{a.name} and {b.name}: {a.features(moved)}",
            numbers={"features": len(moved), "distance": float(distance[worst]),
                     "by chance": float(chance[worst])},
            advice="the splits differ: check that they are scaled alike, and split at random or, "
            "if time or place explain it, keep it in mind",
        )
    ]  # fmt: skip


def _kolmogorov(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The largest difference of the distribution functions of each column."""
    both = np.ascontiguousarray(np.concatenate([x, z]).T)
    order = np.argsort(both, axis=1)
    steps = np.where(order < len(x), 1 / len(x), -1 / len(z))
    difference = np.abs(np.cumsum(steps, axis=1))
    ordered = np.take_along_axis(both, order, axis=1)
    last = np.ones(both.shape, bool)  # of equal values, after all steps at that value
    last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    return np.where(last, difference, 0).max(axis=1)


def _classes(a: Split, b: Split, y: np.ndarray, z: np.ndarray, limits: Limits) -> list[Finding]:
    distance, chance = _variation(y, z, limits.significance)
    if distance <= max(chance, limits.drift):
        return []
    return [
        Finding(
            kind="label drift",
            where=f"{a.name} and {b.name}",
            numbers={"distance": distance, "by chance": chance},
            advice="the class proportions of the two splits differ: use stratified_split",
        )
    ]


def _variation(a: np.ndarray, b: np.ndarray, significance: float) -> tuple[float, float]:
    """Total variation of two samples of categories, and a bound on it by chance.

    By Cauchy and Schwarz its square is at most that of their chi-square statistic, which the
    inequality of Laurent and Massart bounds.
    """
    categories = 1 + max(int(a.max()), int(b.max()))
    p, q = (np.bincount(y, minlength=categories) / len(y) for y in (a, b))
    free = max(int(((p + q) > 0).sum()) - 1, 1)
    log = np.log(1 / significance)
    bound = free + 2 * np.sqrt(free * log) + 2 * log
    return float(np.abs(p - q).sum() / 2), float(np.sqrt(bound * (1 / len(a) + 1 / len(b))) / 2)
