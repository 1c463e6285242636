"""Rows of the losses that are not in functions.py."""

import functools

import jax.numpy as jnp
import numpy as np

from fnn import losses
from tests.registry.rows import LossRow, integers, normal


def _probabilities(*shape: int, seed: int = 1) -> np.ndarray:
    weights = np.exp(normal(*shape, seed=seed))
    return weights / weights.sum(axis=-1, keepdims=True)


def _row(name, loss, predictions, targets, *, rowwise=True, at_least_zero=True, **options):
    return LossRow(
        name=name,
        loss=functools.partial(loss, **options) if options else loss,
        predictions=predictions,
        targets=targets,
        rowwise=rowwise,
        at_least_zero=at_least_zero,
    )


def _of_positive_targets(predictions, targets):
    return losses.mean_squared_error(predictions, targets, where=targets > 0)


def _class_weighted(logits, targets):
    weights = jnp.array([0.5, 2.0, 1.0, 0.0], logits.dtype)
    return losses.cross_entropy(logits, targets, class_weights=weights)


# The logarithm of a rate or of a variance is held in [-1, 1]: exp(1e4) is infinite, and rightly so.
def _poisson(log_rates, targets):
    return losses.poisson(jnp.tanh(log_rates), targets)


def _gaussian(predictions, targets):
    return losses.gaussian_nll((predictions[..., 0], jnp.tanh(predictions[..., 1])), targets)


def _triplet(anchors, others):
    return losses.triplet(anchors, others[:, 0], others[:, 1])


def _fused(x, labels):
    kernel = jnp.asarray(normal(3, 4, seed=5), x.dtype)
    return losses.fused_cross_entropy(x, kernel, labels, chunk_rows=2, label_smoothing=0.1)


_NUMBERS, _OTHERS = normal(4, 3), normal(4, 3, seed=1)
_LOGITS, _LABELS, _SOFT = normal(5, 4), integers(5, below=4), _probabilities(5, 4)
_YES = integers(4, 3, below=2)

LOSSES = [
    _row("mean_squared_error of some elements", _of_positive_targets, _NUMBERS, _OTHERS),
    _row("mean_absolute_error", losses.mean_absolute_error, _NUMBERS, _OTHERS),
    _row("huber", losses.huber, _NUMBERS, _OTHERS, delta=0.7),
    _row("log_cosh", losses.log_cosh, _NUMBERS, _OTHERS),
    _row("quantile", losses.quantile, _NUMBERS, _OTHERS, q=0.3),
    _row("poisson", _poisson, _NUMBERS, integers(4, 3, below=5), at_least_zero=False),
    _row("gaussian_nll", _gaussian, normal(4, 3, 2), _OTHERS, at_least_zero=False),
    _row("cross_entropy, class-weighted", _class_weighted, _LOGITS, _LABELS),
    _row("cross_entropy with z-loss", losses.cross_entropy, _LOGITS, _SOFT, z_loss=0.01),
    _row("cross_entropy, 0 ignored", losses.cross_entropy, _LOGITS, _LABELS, ignore_index=0),
    _row(
        "binary_cross_entropy, smoothed and weighted",
        losses.binary_cross_entropy,
        _NUMBERS,
        _YES,
        label_smoothing=0.1,
        positive_weight=3.0,
    ),
    _row("focal", losses.focal, _LOGITS, _LABELS),
    _row("focal of soft labels", losses.focal, _LOGITS, _SOFT, gamma=1.5),
    _row("binary_focal", losses.binary_focal, _NUMBERS, _YES, alpha=0.25),
    _row("hinge", losses.hinge, _NUMBERS, _YES),
    _row("perceptron", losses.perceptron, _NUMBERS, _YES),
    _row("squared_hinge", losses.squared_hinge, _NUMBERS, _YES),
    _row("multiclass_hinge", losses.multiclass_hinge, _LOGITS, _LABELS),
    _row("kl_divergence", losses.kl_divergence, _LOGITS, _SOFT),
    _row("jensen_shannon", losses.jensen_shannon, _LOGITS, _SOFT),
    _row("cosine", losses.cosine, _NUMBERS, _OTHERS),
    _row("triplet", _triplet, _NUMBERS, normal(4, 2, 3, seed=1)),
    _row("nt_xent", losses.nt_xent, _NUMBERS, _OTHERS, rowwise=False, temperature=0.5),
    _row("sigmoid_contrastive", losses.sigmoid_contrastive, _NUMBERS, _OTHERS, rowwise=False),
    _row("ctc", losses.ctc, normal(3, 5, 4), 1 + integers(3, 2, below=3)),
    _row("binary_dice", losses.binary_dice, normal(4, 2, 3), integers(4, 2, 3, below=2)),
    _row("dice", losses.dice, normal(4, 6, 3), integers(4, 6, below=3)),
    _row("fused_cross_entropy", _fused, normal(5, 3), _LABELS),
]

# Functions of params, not of predictions and targets.
HELPERS = ["losses.l1_penalty", "losses.l2_penalty"]
