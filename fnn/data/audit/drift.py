"""Splits that were not drawn alike."""

import numpy as np

from fnn.data.audit.findings import Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part, alike

_MOST_ENTRIES = 2_000_000  # of a split that are sorted, in a fraction of a second
_MOST_ROWS = 10_000


def drift(parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator) -> list[Finding]:
    """Features and labels whose distributions differ between the first split and another.

    The distance of two distributions is Kolmogorov's and Smirnov's, the largest difference of
    their distribution functions; for categories and classes half the sum of the differences of
    their shares. The bounds on what chance gives are those of Massart, and of a chi-square.

    Source: Massart 1990, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality".

    >>> from fnn.data.audit.parts import parts_of
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> parts = parts_of({'train': (x[:200], None), 'test': (x[200:] + [0, 2], None)})
    >>> drift(parts, Limits(), np.random.default_rng(0))[0].where
    'train and test: feature 1'
    """
    first, *others = parts
    found = []
    for other in others:
        if alike(first, other) and first.names != ("text",):
            found += _features(first, other, limits, rng)
        if first.classes is not None and other.classes is not None:
            found += _classes(first, other, limits)
    return found


def _features(a: Part, b: Part, limits: Limits, rng: np.random.Generator) -> list[Finding]:
    most = min(_MOST_ROWS, max(1000, _MOST_ENTRIES // a.rows.shape[1]))
    x, z = (p.numbers(rng.permutation(len(p.rows))[:most]) for p in (a, b))
    distance = _kolmogorov(x, z)
    chance = np.full(len(distance), _chance(len(x), len(z), limits.significance / len(distance)))
    for i in a.categorical:
        distance[i], chance[i] = _shares(
            x[:, i].astype(int), z[:, i].astype(int), limits.significance / len(distance)
        )
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
            advice="the splits differ: look whether they are scaled alike, and split at random or, "
            "if time or place explain it, keep it in mind",
        )
    ]  # fmt: skip


def _kolmogorov(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The largest difference of the distribution functions of each column."""
    both = np.ascontiguousarray(np.concatenate([x, z]).T)
    order = np.argsort(both, axis=1)
    steps = np.where(order < len(x), 1 / len(x), -1 / len(z))
    apart = np.abs(np.cumsum(steps, axis=1))
    ordered = np.take_along_axis(both, order, axis=1)
    last = np.ones(both.shape, bool)  # of equal values, where the functions have stepped fully
    last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    return np.where(last, apart, 0).max(axis=1)


def _chance(n: int, m: int, significance: float) -> float:
    return float(np.sqrt(np.log(2 / significance) / 2 * (n + m) / (n * m)))


def _classes(a: Part, b: Part, limits: Limits) -> list[Finding]:
    assert a.classes is not None and b.classes is not None
    distance, chance = _shares(a.classes, b.classes, limits.significance)
    if distance <= max(chance, limits.drift):
        return []
    return [
        Finding(
            kind="label drift",
            where=f"{a.name} and {b.name}",
            numbers={"distance": distance, "by chance": chance},
            advice="the classes have other shares in the two splits: use stratified_split",
        )
    ]


def _shares(a: np.ndarray, b: np.ndarray, significance: float) -> tuple[float, float]:
    """Half the sum of the differences of the shares, and how far chance would take it.

    By Cauchy and Schwarz the square of that sum is at most that of the chi-square statistic of the
    two samples; the bound on that one is Laurent's and Massart's.
    """
    most = 1 + max(int(a.max()), int(b.max()))
    p, q = (np.bincount(y, minlength=most) / len(y) for y in (a, b))
    free = max(int(((p + q) > 0).sum()) - 1, 1)
    log = np.log(1 / significance)
    bound = free + 2 * np.sqrt(free * log) + 2 * log
    return float(np.abs(p - q).sum() / 2), float(np.sqrt(bound * (1 / len(a) + 1 / len(b))) / 2)
