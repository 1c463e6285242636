"""Labels by themselves: constant, out of balance, absent."""

import numpy as np

from fnn.data.audit.findings import EXAMPLES, Finding
from fnn.data.audit.limits import Limits
from fnn.data.audit.parts import Part


def constant_labels(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Splits in which every example has the same label.

    >>> from fnn.data.audit.parts import parts_of
    >>> parts = parts_of({'train': (np.zeros((2, 1)), np.array([3, 3]))})
    >>> constant_labels(parts, Limits(), np.random.default_rng(0))[0].kind
    'constant label'
    """
    return [
        Finding(
            kind="constant label",
            where=part.name,
            numbers={"examples": len(part.y)},
            advice="every example has the same label, so there is nothing to learn: look at how "
            "the labels are read, and at a split of sorted data",
        )
        for part in parts
        if part.y is not None and len(part.y) > 1 and (part.y == part.y[0]).all()
    ]


def class_imbalance(
    parts: tuple[Part, ...], limits: Limits, rng: np.random.Generator
) -> list[Finding]:
    """Classes that are far rarer than others, or in the other splits only.

    >>> from fnn.data.audit.parts import parts_of
    >>> labels = np.repeat([0, 1], [95, 5])
    >>> parts = parts_of({'train': (np.arange(100.0)[:, None], labels)})
    >>> class_imbalance(parts, Limits(), np.random.default_rng(0))[0].numbers['ratio']
    19.0
    """
    labeled = [(part, part.classes) for part in parts if part.classes is not None]
    classes = 1 + max((int(y.max()) for _, y in labeled), default=0)
    found = []
    for part, y in labeled:
        counts = np.bincount(y, minlength=classes)
        if len(y) >= limits.fewest and (counts > 0).sum() > 1:
            found += _imbalance(part, y, counts, limits.imbalance)
            found += _absent(part, counts)
    return found


def _imbalance(part: Part, y: np.ndarray, counts: np.ndarray, most: float) -> list[Finding]:
    rarest = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    ratio = counts.max() / counts[rarest]
    if ratio <= most:
        return []
    return [
        Finding(
            kind="imbalance",
            where=part.name,
            numbers={
                "ratio": float(ratio),
                "largest": int(counts.max()),
                "smallest": int(counts[rarest]),
            },
            advice="accuracy hides the rare classes: weigh the loss (class_weights), sample evenly "
            "or make more (smote), and report recall by class",
            examples=tuple(np.flatnonzero(y == rarest)[:EXAMPLES].tolist()),
        )
    ]


def _absent(part: Part, counts: np.ndarray) -> list[Finding]:
    # Of a class with 5 or more examples to be expected, one set in 150 has none by luck.
    absent = int((counts == 0).sum())
    if absent == 0 or counts.sum() / len(counts) < 5:
        return []
    return [
        Finding(
            kind="absent class",
            where=part.name,
            numbers={"absent": absent, "classes": len(counts)},
            advice="another split has classes that this one has not: use stratified_split",
        )
    ]
