"""All checks, one after the other."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fnn.data.audit.drift import drift
from fnn.data.audit.duplicates import exact_duplicates
from fnn.data.audit.features import constant_features, non_finite, unscaled_features
from fnn.data.audit.findings import Findings
from fnn.data.audit.labels import class_imbalance, constant_labels
from fnn.data.audit.leak import leaking_features
from fnn.data.audit.limits import Limits
from fnn.data.audit.near import near_duplicates
from fnn.data.audit.parts import parts_of
from fnn.data.audit.probe import misaligned_labels
from fnn.data.audit.text import text_encodings
from fnn.types import PRNGKey

CHECKS = (
    exact_duplicates, near_duplicates, constant_labels, misaligned_labels, class_imbalance,
    non_finite, constant_features, unscaled_features, leaking_features, drift, text_encodings,
)  # fmt: skip


def audit(
    splits: Mapping[str, Any], *, key: PRNGKey | None = None, limits: Limits = Limits()
) -> Findings:
    """What is wrong with the data, found before training does.

    Looked for: copies and near-copies of examples, within a split and between two; labels that are
    constant, out of balance, shifted by a row or unrelated to the features, as a quick probe sees
    it; features that are constant, not finite, unscaled or tell the label; drift; text that was
    decoded wrongly. Each check is a function of its own in this package, with its definition.

    What the published sets have, and no more: iris 1 copy (rows 101 and 142). Adult 25 copies in
    the training file, 6 in the test file, and 26 examples in both, all up to the label; its numbers
    are unscaled, as are those of wine and breast_cancer. Fashion-MNIST near-duplicates: 65 pairs in
    train, 2 in test, 19 between them; CIFAR-10 178, 11 and 73 that differ little more than in
    color and sharpness. The names 2,539 repetitions. Digits, diabetes, MNIST and Tiny Shakespeare:
    nothing.

    Not seen: a shift by a row in data that are sorted by class, such as iris and wine as published,
    where it changes a label at each end of a class; labels of which only some are wrong; whatever a
    split of fewer than `limits.fewest` examples would need chance for.

    Args:
      splits: batches (x, y) by the names of the splits, the training part first. x: an array, the
        examples first, with one axis more for rows of features and two or more for images or
        sequences; a Table; a text or a sequence of texts, which may come without y. y: classes as
        integers, strings or units, values as floats, or None.
      key: typed key of samples, probes and projections; it is not consumed. Without it they are
        always the same, so the same data have the same findings.
      limits: from where on something is a fault.

    Returns: Findings, false if there are none; printed, they are a table.
    Raises: ValueError for no splits, an empty one, or labels of another length than the examples.

    >>> x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    >>> y = (x.sum(axis=1) > 0).astype(np.int32)
    >>> print(audit({'train': (x[:150], y[:150]), 'test': (x[150:], y[150:])}))
    no findings
    >>> found = audit({'train': (x, y), 'test': (x[:9], y[:9])})
    >>> [(one.kind, one.numbers['copies']) for one in found]
    [('duplicates', 9)]
    """
    # Each check has a stream of its own, so that one does not depend on what another drew.
    seed = 0 if key is None else np.asarray(jax.random.key_data(key)).tolist()
    streams = np.random.SeedSequence(seed).spawn(len(CHECKS))
    parts = parts_of(splits)
    return Findings(
        tuple(
            one
            for check, stream in zip(CHECKS, streams, strict=True)
            for one in check(parts, limits, np.random.default_rng(stream))
        )
    )
