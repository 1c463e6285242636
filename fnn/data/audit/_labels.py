"""Checks of the labels alone: constant, imbalanced and absent classes."""

import numpy as np

from fnn.data.audit._splits import Split
from fnn.data.audit.findings import EXAMPLES, Finding, Limits


def constant_labels(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Splits in which every example has the same label."""
    return [
        Finding(
            kind="constant label",
            where=split.name,
            numbers={"examples": len(split.y)},
            advice="every example has the same label, so there is nothing to learn: check how the "
            "labels are read, and whether sorted data were split",
        )
        for split in splits
        if split.y is not None and len(split.y) > 1 and (split.y == split.y[0]).all()
    ]


def class_imbalance(
    splits: tuple[Split, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Classes that are much rarer than others, or that only other splits have."""
    labeled = [(split, split.classes) for split in splits if split.classes is not None]
    classes = 1 + max((int(y.max()) for _, y in labeled), default=0)
    found = []
    for split, y in labeled:
        counts = np.bincount(y, minlength=classes)
        if len(y) >= limits.fewest and (counts > 0).sum() > 1:
            found += _imbalance(split, y, counts, limits.imbalance)
            found += _absent(split, counts)
    return found


def _imbalance(split: Split, y: np.ndarray, counts: np.ndarray, most: float) -> list[Finding]:
    rarest = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    largest, smallest = int(counts.max()), int(counts[rarest])
    if largest / smallest <= most:
        return []
    return [
        Finding(
            kind="imbalance",
            where=split.name,
            numbers={"ratio": largest / smallest, "largest": largest, "smallest": smallest},
            advice="accuracy hides the rare classes: weigh the loss (class_weights), sample evenly "
            "or make more (smote), and report recall by class",
            examples=tuple(np.flatnonzero(y == rarest)[:EXAMPLES].tolist()),
        )
    ]


def _absent(split: Split, counts: np.ndarray) -> list[Finding]:
    absent = int((counts == 0).sum())
    # Of a class with 5 or more expected examples, one set in 150 has none by chance.
    if absent == 0 or counts.sum() / len(counts) < 5:
        return []
    return [
        Finding(
            kind="absent class",
            where=split.name,
            numbers={"absent": absent, "classes": len(counts)},
            advice="another split has classes that this one lacks: use stratified_split",
        )
    ]
