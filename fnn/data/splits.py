"""Which examples train, and which are kept back."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from fnn.types import PRNGKey

Indices = Int[np.ndarray, " _"]


def split(key: PRNGKey, n: int, shares: Sequence[float]) -> list[Indices]:
    """Indices of n examples, shuffled and dealt into parts.

    Part i ends at n (shares[0] + ... + shares[i]), rounded, so the parts hold every example exactly
    once, and each is less than one example off its share.

    Args:
      key: typed key; it is consumed.
      n: number of examples.
      shares: of each part, above 0, with a sum of 1.

    Returns: for each share an int array of shape (part,).
    Raises: ValueError for shares that do not add up to 1, and for a part that would be empty.

    >>> train, valid, test = split(jax.random.key(0), 10, (0.6, 0.2, 0.2))
    >>> len(train), len(valid), len(test)
    (6, 2, 2)
    >>> sorted(np.concatenate([train, valid, test]).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    ends = _ends("split", n, shares)
    return np.split(np.asarray(jax.random.permutation(key, n)), ends[:-1])


def stratified_split(
    key: PRNGKey, labels: Int[np.ndarray, " n"], shares: Sequence[float]
) -> list[Indices]:
    """A `split` in which every part has every class in the proportion of the whole.

    The parts are as large as those of `split`, and hold fewer than two examples of a class more or
    less than its share.

    Args:
      key: typed key; it is consumed.
      labels: the class of each example.
      shares: of each part, above 0, with a sum of 1.

    Returns: for each share an int array of shape (part,), shuffled.
    Raises: ValueError for shares that do not add up to 1, and for a part that would be empty.

    >>> labels = np.repeat([0, 1], [90, 10])
    >>> train, test = stratified_split(jax.random.key(0), labels, (0.8, 0.2))
    >>> np.bincount(labels[train]).tolist(), np.bincount(labels[test]).tolist()
    ([72, 8], [18, 2])
    """
    labels = np.asarray(labels)
    shuffled = np.asarray(jax.random.permutation(key, len(labels)))
    # Sorted by class, each class in the shuffled order, the examples are dealt like cards, so that
    # each part gets its cards evenly along the row, and so its share of every class.
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ends = _ends("stratified_split", len(labels), shares)
    sizes = np.diff([0, *ends])
    part_of_place = np.argsort(_fractions(sizes), kind="stable")
    which = np.repeat(np.arange(len(sizes)), sizes)[part_of_place]
    place = np.empty(len(labels), np.int64)
    place[shuffled] = np.arange(len(labels))
    parts = [by_class[which == part] for part in range(len(sizes))]
    return [part[np.argsort(place[part])] for part in parts]


def grouped_split(
    key: PRNGKey, groups: Int[np.ndarray, " n"], shares: Sequence[float]
) -> list[Indices]:
    """A `split` that keeps the examples of a group together: patients, speakers, documents.

    The shares are those of the groups; the parts have about the same shares of the examples.

    Args:
      key: typed key; it is consumed.
      groups: the group of each example.
      shares: of each part, above 0, with a sum of 1.

    Returns: for each share an int array of shape (part,), in the order of the data.
    Raises: ValueError for shares that do not add up to 1, and for fewer groups than parts.

    >>> groups = np.array([7, 7, 8, 8, 9, 9])
    >>> train, test = grouped_split(jax.random.key(0), groups, (0.67, 0.33))
    >>> set(groups[train].tolist()) & set(groups[test].tolist())
    set()
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(np.isin(group_of, part)) for part in split(key, len(names), shares)]


def k_fold(key: PRNGKey, n: int, folds: int) -> list[tuple[Indices, Indices]]:
    """Training and validation indices of each fold: every example validates exactly once.

    Args:
      key: typed key; it is consumed.
      n: number of examples.
      folds: 2 to n.

    Returns: for each fold (train, valid), int arrays with n indices together.
    Raises: ValueError for another number of folds.

    >>> folds = k_fold(jax.random.key(0), 6, 3)
    >>> [(len(train), len(valid)) for train, valid in folds]
    [(4, 2), (4, 2), (4, 2)]
    """
    if not 2 <= folds <= n:
        raise ValueError(f"k_fold: expected 2 to {n} folds of {n} examples, got {folds}")
    parts = np.array_split(np.asarray(jax.random.permutation(key, n)), folds)
    return [
        (np.concatenate([p for j, p in enumerate(parts) if j != i]), parts[i]) for i in range(folds)
    ]


def class_weights(labels: Int[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
    """Weights that give every class the same part in a mean over the examples.

        weight_c = n / (present classes * n_c)

    Args:
      labels: int (n,), in [0, classes).
      classes: how many there are.

    Returns: float32 (classes,), 0 for a class without examples; their mean over the examples is 1.
    Raises: ValueError for no labels, or labels out of range.
    Source: King & Zeng 2001, "Logistic regression in rare events data".

    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.6669999957084656, 2.0]
    """
    labels = np.asarray(labels)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= classes:
        got = f"{labels.min()} to {labels.max()}" if labels.size else "none"
        raise ValueError(f"class_weights: expected labels in [0, {classes}), got {got}")
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0).astype(
        np.float32
    )


def _ends(where: str, n: int, shares: Sequence[float]) -> list[int]:
    """Where each part ends among n examples laid in a row."""
    if not all(share > 0 for share in shares) or not math.isclose(math.fsum(shares), 1):
        raise ValueError(
            f"{where}: expected shares above 0 with a sum of 1, got {tuple(shares)}; "
            "give one share for each part, e.g. (0.7, 0.15, 0.15)"
        )
    # Not round(), which sends 7.5 and 8.5 to the same 8.
    ends = [math.floor(n * math.fsum(shares[: i + 1]) + 0.5) for i in range(len(shares))]
    sizes = np.diff([0, *ends])
    if (sizes == 0).any():
        raise ValueError(
            f"{where}: expected enough examples for {len(shares)} parts, got {n}, which gives "
            f"parts of {sizes.tolist()}; use more data or larger shares"
        )
    return ends


def _fractions(sizes: np.ndarray) -> np.ndarray:
    """For each card of each part, how far along the row it comes: evenly spread within its part."""
    return np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
