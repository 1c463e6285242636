"""Labels out of step with the features, according to a linear probe.

The probe is ridge regression on the features and as many random ones, with leave-one-out
predictions in closed form. Its correlation with the labels is compared with that for shuffled
labels; where it is at chance, single features, words and tokens are tried.
"""

import numpy as np

from fnn.data.audit._leakage import one_feature_predicts
from fnn.data.audit._splits import Split, standardized
from fnn.data.audit.findings import Finding, Limits

_MOST_ROWS = 4000  # a probe of as many examples takes a fraction of a second
_SHUFFLES = 32  # estimate the spread by chance to an eighth
_RIDGE = 0.1  # times the number of examples: features of variance 1 shrink by a tenth
_LINEAR = 128  # more features are projected to as many
_RANDOM = 128


def misaligned_labels(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Splits whose labels fit the row before or after better than their own, or no row.

    A shift by a row shows only where neighbors have different labels: in data sorted by class it
    changes the two rows at the ends of each class, and is not found.
    """
    found = [_misaligned(split, limits, rng) for split in splits]
    return [one for one in found if one is not None]


def _misaligned(split: Split, limits: Limits, rng: np.random.Generator) -> Finding | None:
    y = split.y
    if y is None or len(y) < max(limits.fewest, 3) or (y == y[0]).all():
        return None
    given, back, forth, *shuffled = _correlations(split, y, rng)
    chance = float(np.mean(shuffled))
    spread = max(float(np.std(shuffled, ddof=1)), 1 / len(y))
    margin = limits.beats_chance * spread
    # The difference of two scores has twice the variance of one.
    if max(back, forth) - given > np.sqrt(2) * margin:
        row = -1 if back > forth else 1
        return Finding(
            kind="shifted labels",
            where=split.name,
            numbers={"correlation": given, "when moved": max(back, forth), "by rows": row},
            advice="the labels fit the features of a neighboring row better: look for a header or "
            f"a dropped row in one of the two files; numpy.roll(y, {row}) undoes it",
        )
    if given - chance >= margin:
        return None
    rows = rng.permutation(len(y))[:_MOST_ROWS]
    orders = [rng.permutation(rows) for _ in range(_SHUFFLES)]
    if one_feature_predicts(split, y, rows, orders, limits.beats_chance):
        return None
    return Finding(
        kind="unrelated labels",
        where=split.name,
        numbers={"correlation": given, "by chance": chance, "spread": spread},
        advice="a linear probe does no better than on shuffled labels: check that x and y are in "
        "the same order; if they are, the problem is beyond a probe",
    )


def _correlations(split: Split, y: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Correlations of predictions with labels: given, rolled back and forth by a row, shuffled."""
    rows = np.sort(rng.permutation(len(y))[:_MOST_ROWS])
    targets = _targets(y)
    orders = [rows, (rows + 1) % len(y), (rows - 1) % len(y)]
    orders += [rng.permutation(rows) for _ in range(_SHUFFLES)]
    wanted = np.stack([targets[order] for order in orders])  # (orders, rows, columns)
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    flat = wanted.transpose(1, 0, 2).reshape(len(rows), -1)
    predicted = leave_one_out(_probe_features(split, rows, rng), flat)
    predicted = predicted.reshape(len(rows), len(orders), -1).transpose(1, 0, 2)
    norms = np.sqrt(np.square(predicted).sum((1, 2)) * np.square(wanted).sum((1, 2)))
    return ((predicted * wanted).sum(axis=(1, 2)) / np.maximum(norms, 1e-30)).tolist()


def leave_one_out(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predictions of ridge regression for each example, fitted to all the others.

    y_i = (H y - h y)_i / (1 - h_i),   H = Z (Z'Z + c I)^-1 Z',   h = diag H
    """
    gram = z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1])
    to_weights = np.linalg.solve(gram, z.T)
    own = (z * to_weights.T).sum(axis=1)[:, None]
    return (z @ (to_weights @ y) - own * y) / (1 - own)


def _probe_features(split: Split, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A column of ones, the features or a projection of them, and random ReLU features."""
    x = standardized(split, rows, rng).astype(np.float64)
    if x.shape[1] > _LINEAR:
        x = x @ rng.normal(size=(x.shape[1], _LINEAR)) / np.sqrt(x.shape[1])
    scale = np.sqrt(np.square(x).sum(axis=1).mean())
    directions = rng.normal(size=(x.shape[1], _RANDOM)) / (scale if scale > 0 else 1.0)
    random = np.maximum(x @ directions + rng.normal(size=_RANDOM), 0)
    return np.concatenate([np.ones((len(x), 1)), x, random - random.mean(axis=0)], axis=1)


def _targets(y: np.ndarray) -> np.ndarray:
    """One-hot rows of up to 32 classes, or the ranks of values, which limit outliers."""
    if y.ndim == 1:
        return (y[:, None] == np.unique(y)[None, :32]).astype(np.float64)
    return np.stack([_ranks(column) for column in np.nan_to_num(y)[:, :32].T], axis=1)


def _ranks(column: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse] / len(column)
