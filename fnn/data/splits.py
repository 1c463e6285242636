"""Splits of a data set into parts, and folds for cross-validation, as arrays of indices."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from fnn._messages import refuse
from fnn.data._arrays import expect_labels
from fnn.expect import expect_positive
from fnn.train._inputs import expect_key
from fnn.types import PRNGKey

Indices = Int[np.ndarray, " _"]
Folds = list[tuple[Indices, Indices]]  # (train, valid) of each fold


def split(key: PRNGKey, n: int, fractions: Sequence[float]) -> list[Indices]:
    """A random partition of n examples into parts of given fractions.

    Part i ends at n (fractions[0] + ... + fractions[i]), rounded, so every example is in exactly
    one part, and each size is within one example of n times its fraction.

    Args:
      key: typed key; it is consumed.
      n: number of examples.
      fractions: one per part, above 0, with a sum of 1.

    Returns: for each part an int array of shape (size,), shuffled.
    Raises: ValueError for fractions that do not sum to 1, and for an empty part.

    >>> train, valid, test = split(jax.random.key(0), 10, (0.6, 0.2, 0.2))
    >>> len(train), len(valid), len(test)
    (6, 2, 2)
    >>> sorted(np.concatenate([train, valid, test]).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    _expect_count("split", n)
    ends = _ends("split", n, fractions)
    return np.split(_permutation("split", key, n), ends[:-1])


def stratified_split(
    key: PRNGKey, labels: Integer[np.ndarray, " n"], fractions: Sequence[float]
) -> list[Indices]:
    """A `split` in which every part has the class proportions of the whole.

    The parts have the sizes of `split`, and each class count in a part is off its proportion by
    fewer than two examples.

    Args:
      key, fractions: as in `split`.
      labels: the class of each example.

    Returns: as `split`.
    Raises: ValueError as `split`.

    >>> labels = np.repeat([0, 1], [90, 10])
    >>> train, test = stratified_split(jax.random.key(0), labels, (0.8, 0.2))
    >>> np.bincount(labels[train]).tolist(), np.bincount(labels[test]).tolist()
    ([72, 8], [18, 2])
    """
    labels = expect_labels("stratified_split", labels)
    shuffled = _permutation("stratified_split", key, len(labels))
    ends = _ends("stratified_split", len(labels), fractions)
    # Sorted by class and shuffled within each, the examples are dealt so that every part gets
    # evenly spaced ones, and with them its proportion of every class.
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.diff([0, *ends])
    spacing = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    part_of = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(spacing, kind="stable")]
    rank = np.empty(len(labels), np.int64)
    rank[shuffled] = np.arange(len(labels))
    parts = [by_class[part_of == part] for part in range(len(sizes))]
    return [part[np.argsort(rank[part])] for part in parts]


def grouped_split(
    key: PRNGKey, groups: Integer[np.ndarray, " n"], fractions: Sequence[float]
) -> list[Indices]:
    """A `split` in which the examples of a group (patient, speaker, document) stay together.

    The fractions are of the groups; those of the examples are about the same.

    Args:
      key, fractions: as in `split`.
      groups: the group of each example.

    Returns: for each part an int array of shape (size,), in the order of the data.
    Raises: ValueError for fractions that do not sum to 1, and for fewer groups than parts.

    >>> groups = np.array([7, 7, 8, 8, 9, 9])
    >>> train, test = grouped_split(jax.random.key(0), groups, (0.67, 0.33))
    >>> set(groups[train].tolist()) & set(groups[test].tolist())
    set()
    """
    groups = expect_labels("grouped_split", groups, "groups")
    names, group_of = np.unique(groups, return_inverse=True)
    ends = _ends("grouped_split", len(names), fractions)
    parts = np.split(_permutation("grouped_split", key, len(names)), ends[:-1])
    return [np.flatnonzero(np.isin(group_of, part)) for part in parts]


def k_fold(key: PRNGKey, n: int, folds: int) -> Folds:
    """Training and validation indices of each fold; every example validates exactly once.

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
    _expect_count("k_fold", n)
    _expect_folds("k_fold", folds, n, "examples")
    parts = np.array_split(_permutation("k_fold", key, n), folds)
    return [
        (np.concatenate([p for j, p in enumerate(parts) if j != i]), parts[i]) for i in range(folds)
    ]


def stratified_k_fold(key: PRNGKey, labels: Shaped[np.ndarray, " n"], folds: int) -> Folds:
    """A `k_fold` in which every fold has the class proportions of the whole.

    Two folds differ by at most one example, in total and in each class.

    Args:
      key: typed key; it is consumed.
      labels: the class of each example.
      folds: 2 to the size of the largest class.

    Returns: for each fold (train, valid), in the order of the data.
    Raises: ValueError for another number of folds.

    >>> labels = np.repeat([0, 1], [6, 3])
    >>> folds = stratified_k_fold(jax.random.key(0), labels, 3)
    >>> [np.bincount(labels[valid]).tolist() for _, valid in folds]
    [[2, 1], [2, 1], [2, 1]]
    """
    labels = expect_labels("stratified_k_fold", labels)
    _expect_strata("stratified_k_fold", folds, labels)
    shuffled = _permutation("stratified_k_fold", key, len(labels))
    fold_of = np.empty(len(labels), np.int64)
    fold_of[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(len(labels)) % folds
    return _by_fold(fold_of, folds)


def grouped_k_fold(key: PRNGKey, groups: Shaped[np.ndarray, " n"], folds: int) -> Folds:
    """A `k_fold` that keeps the examples of a group together, in folds of similar size.

    Groups are assigned from the largest to the smallest, each to the smallest fold, so two folds
    differ by at most the size of the largest group.

    Args:
      key: typed key; it is consumed. It breaks ties among groups and among folds.
      groups: the group of each example: patient, speaker, document.
      folds: 2 to the number of groups.

    Returns: for each fold (train, valid), in the order of the data.
    Raises: ValueError for another number of folds.

    >>> groups = np.array([7, 7, 8, 8, 9, 9])
    >>> folds = grouped_k_fold(jax.random.key(0), groups, 3)
    >>> sorted(groups[valid].tolist() for _, valid in folds)
    [[7, 7], [8, 8], [9, 9]]
    """
    groups = expect_labels("grouped_k_fold", groups, "groups")
    return _assign_groups("grouped_k_fold", key, np.zeros(len(groups), np.int64), groups, folds)


def stratified_grouped_k_fold(
    key: PRNGKey, labels: Shaped[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], folds: int
) -> Folds:
    """A `k_fold` that keeps groups together and approximates the class proportions.

    With p_c the fraction of class c in a fold, and g_c that in a group, each group goes to the fold
    that minimizes

        sum over folds and classes of p_c^2,   which is the fold with the least sum_c p_c g_c

    and among equal ones to the smallest; groups with the largest sum_c g_c^2 come first.

    Args:
      key: typed key; it is consumed. It breaks ties among groups.
      labels: the class of each example.
      groups: the group of each example: patient, speaker, document.
      folds: 2 to the number of groups, and at most the size of the largest class.

    Returns: for each fold (train, valid), in the order of the data. No fold is empty; a class
      that occurs in few groups is not in every fold.
    Raises: ValueError for another number of folds, or labels and groups of unequal length.
    Source: scikit-learn's StratifiedGroupKFold. Deviates: it minimizes the standard deviation of
      p_c over the folds, summed over the classes, and may return empty folds.

    >>> labels, groups = np.tile([0, 0, 1], 4), np.repeat([0, 1, 2, 3], 3)
    >>> folds = stratified_grouped_k_fold(jax.random.key(0), labels, groups, 2)
    >>> [np.bincount(labels[valid]).tolist() for _, valid in folds]
    [[4, 2], [4, 2]]
    """
    where = "stratified_grouped_k_fold"
    labels = expect_labels(where, labels)
    groups = expect_labels(where, groups, "groups")
    if len(labels) != len(groups):
        raise ValueError(
            f"{where}: expected a group for each of {len(labels)} labels, got {len(groups)}; "
            "check where they come from"
        )
    _expect_strata(where, folds, labels)
    return _assign_groups(where, key, np.unique(labels, return_inverse=True)[1], groups, folds)


def class_weights(labels: Integer[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
    """Weights that give every class the same total weight.

        weight_c = n / (present classes * n_c)

    Args:
      labels: int (n,), in [0, classes).
      classes: number of classes.

    Returns: float32 (classes,), 0 for a class without examples; the mean over examples is 1.
    Raises: ValueError for no labels, or labels out of range.
    Source: King & Zeng 2001, "Logistic regression in rare events data".

    >>> class_weights(np.array([0, 0, 0, 0, 1, 1]), 2).tolist()
    [0.75, 1.5]
    """
    labels = expect_labels("class_weights", labels)
    if labels.dtype.kind not in "iu" and labels.size:
        hint = "encode them: np.unique(labels, return_inverse=True)[1]"
        refuse("class_weights", "integers as labels", labels, hint)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= classes:
        got = f"{labels.min()} to {labels.max()}" if labels.size else "none"
        raise ValueError(f"class_weights: expected labels in [0, {classes}), got {got}")
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    present = counts > 0
    weights = np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0)
    return weights.astype(np.float32)


def _permutation(where: str, key: PRNGKey, n: int) -> Indices:
    expect_key(where, key)
    return np.asarray(jax.random.permutation(key, n))


def _assign_groups(
    where: str, key: PRNGKey, class_of: np.ndarray, groups: np.ndarray, folds: int
) -> Folds:
    """Whole groups assigned to folds such that the class proportions stay even."""
    names, group_of = np.unique(groups, return_inverse=True)
    _expect_folds(where, folds, len(names), "groups")
    counts = np.zeros((len(names), 1 + class_of.max()))
    np.add.at(counts, (group_of, class_of), 1)
    fractions, sizes = counts / counts.sum(axis=0), counts.sum(axis=1)
    shuffled = _permutation(where, key, len(names))
    order = shuffled[np.argsort(-np.square(fractions[shuffled]).sum(axis=1), kind="stable")]
    totals, fold_sizes = np.zeros((folds, counts.shape[1])), np.zeros(folds)
    fold_of_group = np.empty(len(names), np.int64)
    for group in order.tolist():
        # An empty fold has no overlap and no size, so the first groups go to separate folds.
        overlap = (totals @ fractions[group]).round(12)
        fold = int(np.lexsort((fold_sizes, overlap))[0])
        totals[fold] += fractions[group]
        fold_sizes[fold] += sizes[group]
        fold_of_group[group] = fold
    return _by_fold(fold_of_group[group_of], folds)


def _by_fold(fold_of: np.ndarray, folds: int) -> Folds:
    return [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(folds)]


def _expect_count(where: str, n: int) -> None:
    if not isinstance(n, int | np.integer):
        refuse(where, "n to be the number of examples", n, "give len(x)")


def _expect_folds(where: str, folds: int, most: int, what: str) -> None:
    expect_positive(where, folds=folds)
    if not 2 <= folds <= most:
        raise ValueError(f"{where}: expected 2 to {most} folds of {most} {what}, got {folds}")


def _expect_strata(where: str, folds: int, labels: np.ndarray) -> None:
    _expect_folds(where, folds, len(labels), "examples")
    largest = int(np.unique(labels, return_counts=True)[1].max())
    if folds > largest:
        raise ValueError(
            f"{where}: expected at most {largest} folds, the examples of the largest class, got "
            f"{folds}; give classes as labels, not values, or use fewer folds"
        )


def _ends(where: str, n: int, fractions: Sequence[float]) -> list[int]:
    """The end of each part among n examples in a row."""
    if not isinstance(fractions, Sequence | np.ndarray) or isinstance(fractions, str):
        hint = "give one for each part, e.g. (0.8, 0.2)"
        refuse(where, "the fractions of all parts", fractions, hint)
    if not all(fraction > 0 for fraction in fractions) or not math.isclose(math.fsum(fractions), 1):
        raise ValueError(
            f"{where}: expected fractions above 0 with a sum of 1, got {tuple(fractions)}; "
            "give one for each part, e.g. (0.7, 0.15, 0.15)"
        )
    # round() would send 7.5 and 8.5 to the same 8.
    ends = [math.floor(n * math.fsum(fractions[: i + 1]) + 0.5) for i in range(len(fractions))]
    sizes = np.diff([0, *ends])
    if (sizes == 0).any():
        raise ValueError(
            f"{where}: expected enough examples for {len(fractions)} parts, got {n}, which gives "
            f"parts of {sizes.tolist()}; use more data or larger fractions"
        )
    return ends
