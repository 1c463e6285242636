"""What one feature, word or token by itself tells of the label."""

import re
from collections.abc import Sequence

import numpy as np

from fnn.data.audit.leak import agreement, neighbors
from fnn.data.audit.parts import Part

_MOST_WORDS = 2000  # those that are in the most different numbers of texts, by their variance
_MOST_ENTRIES = 1_000_000  # of features that are sorted, in a fraction of a second
_CHARACTERS = 20_000  # of a text that are read


def one_feature_tells(
    part: Part, y: np.ndarray, rows: np.ndarray, orders: Sequence[np.ndarray], beats: float
) -> bool:
    """Whether the best feature, word or token does better than for labels in other orders.

    Features count by `leaking_features`, as the example with the nearest value; words of texts and
    tokens of rows of integers by the correlation of their presence with the labels.

    Args:
      rows, orders: examples, and the same in random orders, for what is by chance.
      beats: by how many standard deviations.

    >>> from fnn.data.audit.parts import parts_of
    >>> rng = np.random.default_rng(0)
    >>> y, rows = rng.integers(2, size=100), np.arange(100)
    >>> (part,) = parts_of({'train': ([['a bad day', 'a good day'][i] for i in y], y)})
    >>> orders = [rng.permutation(rows) for _ in range(9)]
    >>> one_feature_tells(part, y, rows, orders, 4.0)
    True
    """
    scores = []
    numbers = _numbers(part, rows)
    if numbers.shape[1]:
        nearest = neighbors(numbers)
        scores.append([agreement(nearest, y[o]).max() for o in (rows, *orders)])
    present = _present(part, rows)
    if present.shape[1]:
        scores.append([_correlation(present, y[o]) for o in (rows, *orders)])
    return any(s[0] > np.mean(s[1:]) + beats * np.std(s[1:], ddof=1) for s in scores)


def _numbers(part: Part, rows: np.ndarray) -> np.ndarray:
    """Features; of texts their lengths in characters and in words."""
    if part.names == ("text",):
        texts = [str(text) for text in part.strings[0][rows]]
        return np.array([[len(text), len(text.split())] for text in texts], np.float64)
    return part.numbers(rows)[:, : max(1, _MOST_ENTRIES // len(rows))]


def _present(part: Part, rows: np.ndarray) -> np.ndarray:
    """(rows, words): which words, or tokens, are in each example."""
    if part.strings:
        columns = [column[rows].tolist() for column in part.strings]
        found = [set(_words(" ".join(texts))) for texts in zip(*columns, strict=True)]
        names = {word: i for i, word in enumerate(sorted(set().union(*found)))}
        row_of = np.repeat(np.arange(len(rows)), [len(words) for words in found])
        which = np.array([names[word] for words in found for word in words], np.int64)
        return _most_varied(row_of, which, len(rows))
    if part.rows.dtype.kind in "iu" and len(part.shape) == 1 and part.rows.shape[1] > 1:
        _, which = np.unique(part.rows[rows], return_inverse=True)
        row_of = np.repeat(np.arange(len(rows)), part.rows.shape[1])
        row_of, which = np.unique(np.stack([row_of, which.ravel()]), axis=1)
        return _most_varied(row_of, which, len(rows))
    return np.zeros((len(rows), 0), np.float32)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text[:_CHARACTERS].lower())


def _most_varied(row_of: np.ndarray, which: np.ndarray, n: int) -> np.ndarray:
    count = np.bincount(which)
    variance = count * (n - count)
    chosen = np.argsort(-variance, kind="stable")[:_MOST_WORDS]
    chosen = chosen[variance[chosen] > 0]
    column = np.full(len(count), -1)
    column[chosen] = np.arange(len(chosen))
    kept = column[which] >= 0
    made = np.zeros((n, len(chosen)), np.float32)
    made[row_of[kept], column[which[kept]]] = 1
    return made


def _correlation(present: np.ndarray, y: np.ndarray) -> float:
    """The largest of those between a column of either."""
    targets = y[:, None] == np.unique(y)[None, :32] if y.ndim == 1 else np.nan_to_num(y)[:, :32]
    return float(np.abs(_unit(present).T @ _unit(targets.astype(np.float32))).max())


def _unit(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    norm = np.linalg.norm(x, axis=0)
    return x / np.where(norm > 0, norm, 1)
