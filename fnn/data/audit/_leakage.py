"""Single features, words or tokens that predict the label."""

import re
from collections.abc import Sequence

import numpy as np

from fnn.data.audit._splits import Split
from fnn.data.audit.findings import Finding, Limits

_MOST_ENTRIES = 2_000_000  # that are sorted, in a fraction of a second
_MOST_ROWS = 4000
_MOST_WORDS = 2000  # those with the largest variance over the texts
_CHARACTERS = 20_000  # of a text that are read


def leaking_features(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Features that predict the label alone, as the label of the example with the nearest value.

        agreement = (accuracy - chance) / (1 - chance)     chance = fraction of the largest class

    and the explained variance, 1 - sum (y_nearest - y)^2 / 2 sum (y - mean)^2, for values.
    """
    found = []
    for split in splits:
        y = split.y
        if y is None or len(y) < limits.fewest or (y == y[0]).all() or split.is_text:
            continue
        most = min(_MOST_ROWS, max(500, _MOST_ENTRIES // split.rows.shape[1]))
        # In random order, or equal values would have neighbors of their class in sorted data.
        rows = rng.permutation(len(y))[:most]
        scores = _agreement(_nearest_by_feature(split.floats(rows)), y[rows])
        leaks = np.flatnonzero(scores >= limits.leak)
        leaks = leaks[np.argsort(-scores[leaks])]
        if len(leaks):
            finding = Finding(
                kind="leak",
                where=f"{split.name}: {split.features(leaks)}",
                numbers={"features": len(leaks), "agreement": float(scores[leaks[0]])},
                advice="one feature alone tells the label: would it be known when the model is "
                "used? If not, drop it",
            )
            found.append(finding)
    return found


def _nearest_by_feature(x: np.ndarray) -> np.ndarray:
    """For each example and feature the example with the nearest value, (examples, features)."""
    order = np.argsort(x, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(x, order, axis=0), axis=0)
    edge = np.full((1, x.shape[1]), np.inf)
    # The neighbor before or the one after, whichever is nearer.
    after = np.concatenate([gaps, edge]) <= np.concatenate([edge, gaps])
    neighbor = np.arange(len(x))[:, None] + np.where(after, 1, -1)
    nearest = np.empty_like(order)
    np.put_along_axis(nearest, order, np.take_along_axis(order, neighbor, axis=0), axis=0)
    return nearest


def _agreement(nearest: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The score of each feature: 1 predicts the label, 0 is chance; see `leaking_features`."""
    if y.ndim == 1:
        chance = np.bincount(y).max() / len(y)
        accuracy = (y[nearest] == y[:, None]).mean(axis=0)
        return (accuracy - chance) / max(1 - chance, 1 / len(y))
    y = np.nan_to_num(y)
    errors = np.square(y[nearest] - y[:, None]).mean(axis=0)
    return (1 - errors / np.maximum(2 * y.var(axis=0), 1e-30)).max(axis=1)


def one_feature_predicts(
    split: Split, y: np.ndarray, rows: np.ndarray, orders: Sequence[np.ndarray], beats: float
) -> bool:
    """Whether the best feature, word or token scores higher than for shuffled labels.

    Features score by `leaking_features`; words of texts and tokens of integer rows by the
    correlation of their presence with the labels.

    Args:
      rows, orders: examples, and random orders of them for the scores by chance.
      beats: margin, in standard deviations over the orders.
    """
    scores = []
    features = _features(split, rows)
    if features.shape[1]:
        nearest = _nearest_by_feature(features)
        scores.append([_agreement(nearest, y[o]).max() for o in (rows, *orders)])
    present = _present(split, rows)
    if present.shape[1]:
        scores.append([_largest_correlation(present, y[o]) for o in (rows, *orders)])
    return any(s[0] > np.mean(s[1:]) + beats * np.std(s[1:], ddof=1) for s in scores)


def _features(split: Split, rows: np.ndarray) -> np.ndarray:
    """Features; of texts their lengths in characters and in words."""
    if split.is_text:
        texts = [str(text) for text in split.strings[0][rows]]
        return np.array([[len(text), len(text.split())] for text in texts], np.float64)
    return split.floats(rows)[:, : max(1, _MOST_ENTRIES // 2 // len(rows))]


def _present(split: Split, rows: np.ndarray) -> np.ndarray:
    """(rows, words): 1 where a word, or token, occurs in an example."""
    n = len(rows)
    if split.strings:
        columns = [column[rows].tolist() for column in split.strings]
        found = [set(_words(" ".join(texts))) for texts in zip(*columns, strict=True)]
        index = {word: i for i, word in enumerate(sorted(set().union(*found)))}
        row_of = np.repeat(np.arange(n), [len(words) for words in found])
        words = np.array([index[word] for words in found for word in words], np.int64)
        return _most_varied(row_of, words, n)
    if split.rows.dtype.kind in "iu" and not split.is_image and split.rows.shape[1] > 1:
        _, tokens = np.unique(split.rows[rows], return_inverse=True)
        row_of = np.repeat(np.arange(n), split.rows.shape[1])
        row_of, tokens = np.unique(np.stack([row_of, tokens.ravel()]), axis=1)
        return _most_varied(row_of, tokens, n)
    return np.zeros((n, 0), np.float32)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text[:_CHARACTERS].lower())


def _most_varied(row_of: np.ndarray, words: np.ndarray, n: int) -> np.ndarray:
    count = np.bincount(words)
    variance = count * (n - count)
    chosen = np.argsort(-variance, kind="stable")[:_MOST_WORDS]
    chosen = chosen[variance[chosen] > 0]
    column = np.full(len(count), -1)
    column[chosen] = np.arange(len(chosen))
    kept = column[words] >= 0
    present = np.zeros((n, len(chosen)), np.float32)
    present[row_of[kept], column[words[kept]]] = 1
    return present


def _largest_correlation(present: np.ndarray, y: np.ndarray) -> float:
    """The largest absolute correlation of a column of `present` with a class or a value."""
    targets = y[:, None] == np.unique(y)[None, :32] if y.ndim == 1 else np.nan_to_num(y)[:, :32]
    return float(np.abs(_normalized(present).T @ _normalized(targets.astype(np.float32))).max())


def _normalized(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    norm = np.linalg.norm(x, axis=0)
    return x / np.where(norm > 0, norm, 1)
