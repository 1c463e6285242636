"""Losses `loss(outputs, targets)`: one value per example or token; the step takes the mean.

Classification losses take logits, which may be -inf. With `where=`, `ignore_index=` or
`class_weights=` a loss returns a `Weighted`: values with their weights in the mean. `where` is True
for what counts: elements in a regression, rows of logits in a classification. Masked elements may
hold anything, NaN included: their loss, weight and gradient are 0.
"""

from fnn._arguments import check_exports
from fnn.losses.classification import (
    binary_cross_entropy,
    binary_focal,
    cross_entropy,
    focal,
    hinge,
    multiclass_hinge,
    squared_hinge,
)
from fnn.losses.combine import combine
from fnn.losses.contrastive import cosine, nt_xent, sigmoid_contrastive, triplet
from fnn.losses.divergence import jensen_shannon, kl_divergence
from fnn.losses.fused import fused_cross_entropy
from fnn.losses.lazy import LazyLogits
from fnn.losses.penalties import l1_penalty, l2_penalty
from fnn.losses.perceptron import perceptron
from fnn.losses.regression import (
    gaussian_nll,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_squared_error,
    poisson,
    quantile,
)
from fnn.losses.segmentation import binary_dice, dice
from fnn.losses.sequence import ctc

# fmt: off
__all__ = [
    "LazyLogits", "binary_cross_entropy", "binary_dice", "binary_focal", "combine", "cosine",
    "cross_entropy", "ctc", "dice", "focal", "fused_cross_entropy", "gaussian_nll", "hinge",
    "huber", "jensen_shannon", "kl_divergence", "l1_penalty", "l2_penalty", "log_cosh",
    "mean_absolute_error", "mean_squared_error", "multiclass_hinge", "nt_xent", "perceptron",
    "poisson", "quantile", "sigmoid_contrastive", "squared_hinge", "triplet",
]
# fmt: on

check_exports(__name__)
