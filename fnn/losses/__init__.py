"""Losses `loss(outputs, targets)`: one value per example or token; the mean is the step's.

All take logits where there is a probability, and none is NaN for a logit of -inf. A loss that is
given `where=`, `ignore_index=` or `class_weights=` returns a `Weighted`: values with the weights
that they have in the mean. `where` is True for what counts: numbers in a regression, rows of logits
in a classification. What is masked may hold anything: its loss, weight and gradient are 0.
"""

from fnn.arguments import check_exports
from fnn.losses.classification import binary_cross_entropy as binary_cross_entropy
from fnn.losses.classification import binary_focal as binary_focal
from fnn.losses.classification import cross_entropy as cross_entropy
from fnn.losses.classification import focal as focal
from fnn.losses.classification import hinge as hinge
from fnn.losses.classification import multiclass_hinge as multiclass_hinge
from fnn.losses.classification import squared_hinge as squared_hinge
from fnn.losses.combine import combine as combine
from fnn.losses.contrastive import cosine as cosine
from fnn.losses.contrastive import nt_xent as nt_xent
from fnn.losses.contrastive import sigmoid_contrastive as sigmoid_contrastive
from fnn.losses.contrastive import triplet as triplet
from fnn.losses.divergence import jensen_shannon as jensen_shannon
from fnn.losses.divergence import kl_divergence as kl_divergence
from fnn.losses.fused import fused_cross_entropy as fused_cross_entropy
from fnn.losses.penalties import l1_penalty as l1_penalty
from fnn.losses.penalties import l2_penalty as l2_penalty
from fnn.losses.perceptron import perceptron as perceptron
from fnn.losses.regression import gaussian_nll as gaussian_nll
from fnn.losses.regression import huber as huber
from fnn.losses.regression import log_cosh as log_cosh
from fnn.losses.regression import mean_absolute_error as mean_absolute_error
from fnn.losses.regression import mean_squared_error as mean_squared_error
from fnn.losses.regression import poisson as poisson
from fnn.losses.regression import quantile as quantile
from fnn.losses.segmentation import binary_dice as binary_dice
from fnn.losses.segmentation import dice as dice
from fnn.losses.sequence import ctc as ctc

# fmt: off
__all__ = [
    "binary_cross_entropy", "binary_dice", "binary_focal", "combine", "cosine", "cross_entropy",
    "ctc", "dice", "focal", "fused_cross_entropy", "gaussian_nll", "hinge", "huber",
    "jensen_shannon", "kl_divergence", "l1_penalty", "l2_penalty", "log_cosh",
    "mean_absolute_error", "mean_squared_error", "multiclass_hinge", "nt_xent", "perceptron",
    "poisson", "quantile", "sigmoid_contrastive", "squared_hinge", "triplet",
]
# fmt: on

check_exports(__name__)
