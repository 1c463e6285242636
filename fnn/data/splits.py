"""Which examples train, and which are kept back."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from fnn.data._arrays import expect_key, expect_labels, name_of
from fnn.expect import expect_positive
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
    _expect_count("split", n)
    expect_key("split", key)
    ends = _ends("split", n, shares)
    return np.split(np.asarray(jax.random.permutation(key, n)), ends[:-1])


def stratified_split(
    key: PRNGKey, labels: Integer[np.ndarray, " n"], shares: Sequence[float]
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
    expect_key("stratified_split", key)
    labels = expect_labels("stratified_split: expected labels", labels)
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
    key: PRNGKey, groups: Integer[np.ndarray, " n"], shares: Sequence[float]
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
    groups = expect_labels("grouped_split: expected groups", groups)
    names, group_of = np.unique(groups, return_inverse=True)
    expect_key("grouped_split", key)
    ends = _ends("grouped_split", len(names), shares)
    parts = np.split(np.asarray(jax.random.permutation(key, len(names))), ends[:-1])
    return [np.flatnonzero(np.isin(group_of, part)) for part in parts]


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
    _expect_count("k_fold", n)
    expect_key("k_fold", key)
    _expect_folds("k_fold", folds, n, "examples")
    parts = np.array_split(np.asarray(jax.random.permutation(key, n)), folds)
    return [
        (np.concatenate([p for j, p in enumerate(parts) if j != i]), parts[i]) for i in range(folds)
    ]


def stratified_k_fold(
    key: PRNGKey, labels: Shaped[np.ndarray, " n"], folds: int
) -> list[tuple[Indices, Indices]]:
    """A `k_fold` in which every fold has every class in the proportion of the whole.

    Two folds differ by at most one example, in all and of each class.

    Args:
      key: typed key; it is consumed.
      labels: the class of each example.
      folds: 2 to the number of examples of the largest class.

    Returns: for each fold (train, valid), in the order of the data.
    Raises: ValueError for another number of folds.

    >>> labels = np.repeat([0, 1], [6, 3])
    >>> folds = stratified_k_fold(jax.random.key(0), labels, 3)
    >>> [np.bincount(labels[valid]).tolist() for _, valid in folds]
    [[2, 1], [2, 1], [2, 1]]
    """
    labels = expect_labels("stratified_k_fold: expected labels", labels)
    _expect_strata("stratified_k_fold", folds, labels)
    expect_key("stratified_k_fold", key)
    shuffled = np.asarray(jax.random.permutation(key, len(labels)))
    fold_of = np.empty(len(labels), np.int64)
    fold_of[shuffled[np.argsort(labels[shuffled], kind="stable")]] = np.arange(len(labels)) % folds
    return _folds(fold_of, folds)


def grouped_k_fold(
    key: PRNGKey, groups: Shaped[np.ndarray, " n"], folds: int
) -> list[tuple[Indices, Indices]]:
    """A `k_fold` that keeps the examples of a group together, in folds of about the same size.

    The groups are dealt from the largest to the smallest, each to the smallest fold, so that two
    folds differ by at most the size of the largest group.

    Args:
      key: typed key; it is consumed. It decides among groups, and among folds, of the same size.
      groups: the group of each example: patient, speaker, document.
      folds: 2 to the number of groups.

    Returns: for each fold (train, valid), in the order of the data.
    Raises: ValueError for another number of folds.

    >>> groups = np.array([7, 7, 8, 8, 9, 9])
    >>> folds = grouped_k_fold(jax.random.key(0), groups, 3)
    >>> sorted(groups[valid].tolist() for _, valid in folds)
    [[7, 7], [8, 8], [9, 9]]
    """
    groups = expect_labels("grouped_k_fold: expected groups", groups)
    return _dealt("grouped_k_fold", key, np.zeros(len(groups), np.int64), groups, folds)


def stratified_grouped_k_fold(
    key: PRNGKey, labels: Shaped[np.ndarray, " n"], groups: Shaped[np.ndarray, " n"], folds: int
) -> list[tuple[Indices, Indices]]:
    """A `k_fold` that keeps groups together, with every class in about its proportion.

    With p_c the share that a fold has of the examples of class c, and g_c that of a group, each
    group goes to the fold that keeps

        sum over folds and classes of p_c^2

    least, which is where sum_c p_c g_c is least, and among equals to the smallest fold; the groups
    with the largest sum_c g_c^2 come first.

    Args:
      key: typed key; it is consumed. It decides among equal groups.
      labels: the class of each example.
      groups: the group of each example: patient, speaker, document.
      folds: 2 to the number of groups, at most the examples of the largest class.

    Returns: for each fold (train, valid), in the order of the data. No fold is empty; classes that
      are in few groups are not in every fold.
    Raises: ValueError for another number of folds, or as many labels as groups do not have.
    Source: scikit-learn's StratifiedGroupKFold. Deviates: it compares the deviations of p_c over
      the folds, summed over the classes, and may leave folds empty.

    >>> labels, groups = np.tile([0, 0, 1], 4), np.repeat([0, 1, 2, 3], 3)
    >>> folds = stratified_grouped_k_fold(jax.random.key(0), labels, groups, 2)
    >>> [np.bincount(labels[valid]).tolist() for _, valid in folds]
    [[4, 2], [4, 2]]
    """
    where = "stratified_grouped_k_fold"
    labels = expect_labels(f"{where}: expected labels", labels)
    groups = expect_labels(f"{where}: expected groups", groups)
    if len(labels) != len(groups):
        raise ValueError(
            f"{where}: expected a group for each of {len(labels)} labels, got {len(groups)}; "
            "check where they come from"
        )
    _expect_strata(where, folds, labels)
    return _dealt(where, key, np.unique(labels, return_inverse=True)[1], groups, folds)


def _dealt(
    where: str, key: PRNGKey, class_of: np.ndarray, groups: np.ndarray, folds: int
) -> list[tuple[Indices, Indices]]:
    """Whole groups dealt to folds so that the shares of every class stay even."""
    names, group_of = np.unique(groups, return_inverse=True)
    _expect_folds(where, folds, len(names), "groups")
    expect_key(where, key)
    counts = np.zeros((len(names), 1 + class_of.max()))
    np.add.at(counts, (group_of, class_of), 1)
    shares, sizes = counts / counts.sum(axis=0), counts.sum(axis=1)
    shuffled = np.asarray(jax.random.permutation(key, len(names)))
    order = shuffled[np.argsort(-np.square(shares[shuffled]).sum(axis=1), kind="stable")]
    held, size, fold_of_group = np.zeros((folds, counts.shape[1])), np.zeros(folds), {}
    for group in order.tolist():
        # An empty fold has no overlap and no size, so the first groups go to folds of their own.
        overlap = (held @ shares[group]).round(12)
        fold = int(np.lexsort((size, overlap))[0])
        held[fold] += shares[group]
        size[fold] += sizes[group]
        fold_of_group[group] = fold
    dealt = np.array([fold_of_group[group] for group in range(len(names))])
    return _folds(dealt[group_of], folds)


def _folds(fold_of: np.ndarray, folds: int) -> list[tuple[Indices, Indices]]:
    return [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(folds)]


def _expect_count(where: str, n: int) -> None:
    if not isinstance(n, int | np.integer):
        raise ValueError(
            f"{where}: expected n to be the number of examples, got {name_of(n)}; give len(x)"
        )


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


def class_weights(labels: Integer[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
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
    labels = expect_labels("class_weights: expected labels", labels)
    if labels.dtype.kind not in "iu" and labels.size:
        raise ValueError(
            f"class_weights: expected integers as labels, got {name_of(labels)}; number them with "
            "np.unique(labels, return_inverse=True)[1]"
        )
    if labels.size == 0 or labels.min() < 0 or labels.max() >= classes:
        got = f"{labels.min()} to {labels.max()}" if labels.size else "none"
        raise ValueError(f"class_weights: expected labels in [0, {classes}), got {got}")
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0).astype(
        np.float32
    )


def _ends(where: str, n: int, shares: Sequence[float]) -> list[int]:
    """Where each part ends among n examples laid in a row."""
    if not isinstance(shares, Sequence | np.ndarray) or isinstance(shares, str):
        raise ValueError(
            f"{where}: expected shares of all parts, got {shares!r}; give one share for each part, "
            "e.g. (0.8, 0.2)"
        )
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
