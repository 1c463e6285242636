"""A feature that gives the label away."""

import numpy as np

from fnn.data.audit.findings import Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part

_MOST_ENTRIES = 2_000_000  # that are sorted, in a fraction of a second
_MOST_ROWS = 4000


def leaking_features(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Features that by themselves tell the label: that of the example with the nearest value.

        agreement = (right - chance) / (1 - chance)     chance = share of the largest class

    and the share of the variance, 1 - sum (y_nearest - y)^2 / 2 sum (y - mean)^2, for values.

    >>> from fnn.data.audit.parts import parts_of
    >>> y = np.random.default_rng(0).integers(3, size=200)
    >>> x = np.stack([np.random.default_rng(1).normal(size=200), y * 7.0], axis=1)
    >>> leaking_features(parts_of({'train': (x, y)}), Limits(), np.random.default_rng(0))[0].where
    'train: feature 1'
    """
    found = []
    for part in parts:
        y = part.y
        if y is None or len(y) < limits.fewest or (y == y[0]).all() or part.names == ("text",):
            continue
        most = min(_MOST_ROWS, max(500, _MOST_ENTRIES // part.rows.shape[1]))
        # In a random order, or equal values would have neighbors of their class in sorted data.
        rows = rng.permutation(len(y))[:most]
        told = agreement(neighbors(part.numbers(rows)), y[rows])
        leaks = np.flatnonzero(told >= limits.leak)
        if len(leaks):
            found.append(_leak(part, leaks[np.argsort(-told[leaks])], told))
    return found


def _leak(part: Part, leaks: np.ndarray, told: np.ndarray) -> Finding:
    return Finding(
        kind="leak",
        where=f"{part.name}: {part.features(leaks)}",
        numbers={"features": len(leaks), "agreement": float(told[leaks[0]])},
        advice="one feature alone tells the label: would it be known when the model is used? If "
        "not, leave it out",
    )


def neighbors(x: np.ndarray) -> np.ndarray:
    """For each example and feature the example with the nearest value, (examples, features).

    >>> neighbors(np.array([[1.0], [5.0], [2.0]])).ravel().tolist()
    [2, 2, 0]
    """
    order = np.argsort(x, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(x, order, axis=0), axis=0)
    edge = np.full((1, x.shape[1]), np.inf)
    # The neighbor before or the one after, whichever is nearer.
    after = np.concatenate([gaps, edge]) <= np.concatenate([edge, gaps])
    place = np.arange(len(x))[:, None]
    near = np.take_along_axis(order, place + np.where(after, 1, -1), axis=0)
    made = np.empty_like(order)
    np.put_along_axis(made, order, near, axis=0)
    return made


def agreement(nearest: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each feature tells of the label, 1 for all and 0 for nothing; see `leaking_features`.

    >>> y = np.array([0, 1, 0, 1])
    >>> agreement(neighbors(np.array([[1.0], [5.0], [1.1], [5.1]])), y).tolist()
    [1.0]
    """
    if y.ndim == 1:
        chance = np.bincount(y).max() / len(y)
        right = (y[nearest] == y[:, None]).mean(axis=0)
        return (right - chance) / max(1 - chance, 1 / len(y))
    y = np.nan_to_num(y)
    errors = np.square(y[nearest] - y[:, None]).mean(axis=0)
    return (1 - errors / np.maximum(2 * y.var(axis=0), 1e-30)).max(axis=1)
