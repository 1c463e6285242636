"""Labels and features out of step, seen by how well a quick probe does.

The probe is ridge regression on the features and on as many random ones, with the closed form of
leaving each example out. What it can do is compared with what it can do for shuffled labels; where
it can do nothing, single features, words and tokens are asked.
"""

from dataclasses import dataclass

import numpy as np

from fnn.data.audit.design import design
from fnn.data.audit.findings import Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part
from fnn.data.audit.single import one_feature_tells

_MOST_ROWS = 4000  # a probe of as many examples needs a fraction of a second
_SHUFFLES = 32  # they give the spread of what is by chance to an eighth
_RIDGE = 0.1  # of the number of examples: features that have a variance of 1 shrink by a tenth


def misaligned_labels(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Splits whose labels fit the row before or after better than their own, or fit none.

    A shift by a row shows only where neighbors have different labels: in a set that is sorted by
    class it changes the two rows at the ends of each class, and is not found.

    >>> from fnn.data.audit.parts import parts_of
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> parts = parts_of({'train': (x, np.roll(x[:, 0] > 0, 1).astype(int))})
    >>> misaligned_labels(parts, Limits(), np.random.default_rng(0))[0].kind
    'shifted labels'
    """
    found = [_misaligned(part, limits, rng) for part in parts]
    return [one for one in found if one is not None]


@dataclass(frozen=True)
class _Scores:
    """Correlation of left-out predictions and labels: as given, rolled by a row, and by chance."""

    given: float
    back: float
    forth: float
    chance: float
    spread: float


def _misaligned(part: Part, limits: Limits, rng: np.random.Generator) -> Finding | None:
    y = part.y
    if y is None or len(y) < max(limits.fewest, 3) or (y == y[0]).all():
        return None
    scores = _scores(part, y, rng)
    sure = limits.beats_chance * scores.spread
    # The difference of two scores has twice the variance of one.
    if max(scores.back, scores.forth) - scores.given > np.sqrt(2) * sure:
        return _shifted(part, scores)
    if scores.given - scores.chance >= sure:
        return None
    rows = rng.permutation(len(y))[:_MOST_ROWS]
    orders = [rng.permutation(rows) for _ in range(_SHUFFLES)]
    told = one_feature_tells(part, y, rows, orders, limits.beats_chance)
    return None if told else _shuffled(part, scores)


def _shifted(part: Part, scores: _Scores) -> Finding:
    row = -1 if scores.back > scores.forth else 1
    return Finding(
        kind="shifted labels",
        where=part.name,
        numbers={
            "correlation": scores.given,
            "when moved": max(scores.back, scores.forth),
            "by rows": row,
        },
        advice="the labels fit the features of a neighboring row better: look for a header or a "
        f"dropped row in one of the two files; numpy.roll(y, {row}) undoes it",
    )


def _shuffled(part: Part, scores: _Scores) -> Finding:
    return Finding(
        kind="unrelated labels",
        where=part.name,
        numbers={
            "correlation": scores.given,
            "by chance": scores.chance,
            "spread": scores.spread,
        },
        advice="a quick probe does no better than on shuffled labels: look whether x and y are in "
        "the same order; if they are, the problem is beyond a probe",
    )


def _scores(part: Part, y: np.ndarray, rng: np.random.Generator) -> _Scores:
    rows = np.sort(rng.permutation(len(y))[:_MOST_ROWS])
    targets = _targets(y)
    orders = [rows, (rows + 1) % len(y), (rows - 1) % len(y)]
    orders += [rng.permutation(rows) for _ in range(_SHUFFLES)]
    wanted = np.stack([targets[order] for order in orders])  # (orders, rows, columns)
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    flat = wanted.transpose(1, 0, 2).reshape(len(rows), -1)
    made = left_out(design(part, rows, rng), flat)
    made = made.reshape(len(rows), len(orders), -1).transpose(1, 0, 2)
    norms = np.sqrt(np.square(made).sum((1, 2)) * np.square(wanted).sum((1, 2)))
    correlation = (made * wanted).sum(axis=(1, 2)) / np.maximum(norms, 1e-30)
    chance = correlation[3:]
    spread = max(float(chance.std(ddof=1)), 1 / len(y))
    given, back, forth = map(float, correlation[:3])
    return _Scores(given, back, forth, float(chance.mean()), spread)


def left_out(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predictions of ridge regression for each example, fitted to all the others.

        y_i = (H y - h y)_i / (1 - h_i),   H = Z (Z'Z + c I)^-1 Z',   h = diag H

    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> bool(np.corrcoef(left_out(x, 2 * x)[:, 0], x[:, 0])[0, 1] > 0.999)
    True
    """
    gram = z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1])
    to_weights = np.linalg.solve(gram, z.T)
    own = (z * to_weights.T).sum(axis=1)[:, None]
    return (z @ (to_weights @ y) - own * y) / (1 - own)


def _targets(y: np.ndarray) -> np.ndarray:
    """Units of classes, at most 32 of them; the ranks of values, which outliers do not rule."""
    if y.ndim == 1:
        return (y[:, None] == np.unique(y)[None, :32]).astype(np.float64)
    y = np.nan_to_num(y)[:, :32]
    return np.stack([_ranks(column) for column in y.T], axis=1)


def _ranks(column: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse] / len(column)
