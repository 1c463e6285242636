"""The audit of a data set: all checks, one after another."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fnn.data.audit._alignment import misaligned_labels
from fnn.data.audit._drift import drift
from fnn.data.audit._duplicates import exact_duplicates
from fnn.data.audit._features import constant_features, non_finite, unscaled_features
from fnn.data.audit._labels import class_imbalance, constant_labels
from fnn.data.audit._leakage import leaking_features
from fnn.data.audit._near_duplicates import near_duplicates
from fnn.data.audit._splits import splits_of
from fnn.data.audit._text import text_encodings
from fnn.data.audit.findings import Findings, Limits
from fnn.types import PRNGKey

CHECKS = (
    exact_duplicates, near_duplicates, constant_labels, misaligned_labels, class_imbalance,
    non_finite, constant_features, unscaled_features, leaking_features, drift, text_encodings,
)  # fmt: skip


def audit(
    splits: Mapping[str, Any], *, key: PRNGKey | None = None, limits: Limits = Limits()
) -> Findings:
    """Faults of a data set, found before training.

    The checks: copies and near-copies of examples, within a split and between two; labels that are
    constant, imbalanced, shifted by a row or unrelated to the features according to a linear probe;
    features that are constant, not finite, unscaled or that leak the label; drift; wrongly decoded
    text. Each check is a function of this package, with its definition.

    Not found: a shift by a row in data sorted by class, where it changes only the labels at the
    ends of each class; a few wrong labels; anything that takes a statistical test in a split of
    fewer than `limits.fewest` examples.

    Args:
      splits: name -> (x, y), the training part first. x: an array with the examples first, of one
        more axis for rows of features, or two or more for images or sequences; a Table; a text or
        a sequence of texts, which may come without y. y: classes as integers, strings or one-hot
        rows, values as floats, or None.
      key: typed key of samples, probes and projections; it is not consumed. Without it they are
        fixed, so the same data have the same findings.
      limits: the thresholds.

    Returns: Findings, false if there are none; printed, a table.
    Raises: ValueError for no splits, an empty one, or labels of another length than the examples.

    >>> x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    >>> y = (x.sum(axis=1) > 0).astype(np.int32)
    >>> print(audit({'train': (x[:150], y[:150]), 'test': (x[150:], y[150:])}))
    no findings
    >>> found = audit({'train': (x, y), 'test': (x[:9], y[:9])})
    >>> [(one.kind, one.numbers['copies']) for one in found]
    [('duplicates', 9)]
    """
    # Each check has its own random stream, so that its draws do not depend on the other checks.
    seed = 0 if key is None else np.asarray(jax.random.key_data(key)).tolist()
    streams = np.random.SeedSequence(seed).spawn(len(CHECKS))
    checked = splits_of(splits)
    return Findings(
        tuple(
            one
            for check, stream in zip(CHECKS, streams, strict=True)
            for one in check(checked, limits, np.random.default_rng(stream))
        )
    )
