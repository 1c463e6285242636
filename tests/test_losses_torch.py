"""Losses against torch, and against their formulas in torch's float64 where it has no such loss.

The formulas are written as in the papers, with no care for overflow, over numbers that need none.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fnn import losses
from tests.against_torch import cast, expect_like_torch
from tests.draws import drawn, integers, numbers, probabilities, products

WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25], np.float32)  # of the four classes


def mean(values):
    return values.reshape(values.shape[0], -1).mean(dim=1)


def with_class_weights(loss, **options):
    return lambda z, y: products(loss(z, y, class_weights=jnp.asarray(WEIGHTS, z.dtype), **options))


def weights_of(z):
    return torch.tensor(cast(WEIGHTS, np.float64))


# Regression. Each: the loss, its reference, and the size of the numbers.

REGRESSION = {
    "mean_squared_error": (
        losses.mean_squared_error,
        lambda p, t: mean(F.mse_loss(p, t, reduction="none")),
    ),
    "mean_absolute_error": (
        losses.mean_absolute_error,
        lambda p, t: mean(F.l1_loss(p, t, reduction="none")),
    ),
    "huber": (
        lambda p, t: losses.huber(p, t, delta=0.5),
        lambda p, t: mean(F.huber_loss(p, t, reduction="none", delta=0.5)),
    ),
    "log_cosh": (losses.log_cosh, lambda p, t: mean(torch.log(torch.cosh(p - t)))),
    "quantile": (
        lambda p, t: losses.quantile(p, t, q=0.3),
        lambda p, t: mean(torch.where(t > p, 0.3 * (t - p), -0.7 * (t - p))),
    ),
}


@drawn
@given(p=numbers(4, 3), t=numbers(4, 3, seed=1))
def test_losses_of_numbers(p, t):
    expect_like_torch(REGRESSION, p, t, moving=2)


@drawn
@given(z=numbers(4, 3, size=5.0), counts=integers(4, 3, below=9))
def test_poisson(z, counts):
    expect_like_torch({"poisson": (losses.poisson, _poisson_twin)}, z, counts)


def _poisson_twin(z, y):
    return mean(F.poisson_nll_loss(z, y, reduction="none"))


def _gaussian(m, s, y):
    return losses.gaussian_nll((m, s), y)


def _gaussian_twin(m, s, y):
    return mean(F.gaussian_nll_loss(m, y, torch.exp(s), eps=1e-12, reduction="none"))


@drawn
@given(m=numbers(4, 3, size=5.0), s=numbers(4, 3, size=5.0, seed=1), y=numbers(4, 3, size=5.0))
def test_gaussian_nll(m, s, y):
    expect_like_torch({"gaussian_nll": (_gaussian, _gaussian_twin)}, m, s, y, moving=3)


# Classes.

OF_LABELS = {
    "cross_entropy": (
        losses.cross_entropy,
        lambda z, y: F.cross_entropy(z, y.long(), reduction="none"),
    ),
    "cross_entropy, weighted and smoothed": (
        with_class_weights(losses.cross_entropy, label_smoothing=0.2),
        lambda z, y: F.cross_entropy(
            z, y.long(), weight=weights_of(z), reduction="none", label_smoothing=0.2
        ),
    ),
    "cross_entropy, one ignored": (
        lambda z, y: products(losses.cross_entropy(z, y, ignore_index=2, label_smoothing=0.2)),
        lambda z, y: F.cross_entropy(
            z, y.long(), reduction="none", ignore_index=2, label_smoothing=0.2
        ),
    ),
    "cross_entropy with z-loss": (
        lambda z, y: losses.cross_entropy(z, y, z_loss=0.1),
        lambda z, y: (
            F.cross_entropy(z, y.long(), reduction="none") + 0.1 * torch.logsumexp(z, -1) ** 2
        ),
    ),
    "focal": (losses.focal, lambda z, y: _focal_twin(z, y, 2.0)),
    "focal, weighted": (
        with_class_weights(losses.focal, gamma=1.5),
        lambda z, y: weights_of(z)[y.long()] * _focal_twin(z, y, 1.5),
    ),
    "multiclass_hinge": (losses.multiclass_hinge, lambda z, y: _crammer_singer(z, y)),
}


def _focal_twin(z, y, gamma):
    p = torch.softmax(z, -1)[torch.arange(len(y)), y.long()]
    return -((1 - p) ** gamma) * torch.log(p)


def _crammer_singer(z, y):
    rows = []
    for scores, label in zip(z, y.long(), strict=True):
        others = torch.cat([scores[:label], scores[label + 1 :]])
        rows.append(torch.relu(1 + others.max() - scores[label]))
    return torch.stack(rows)


@pytest.mark.slow
@drawn
@given(z=numbers(5, 4, size=8.0), y=integers(5, below=4), nudge=st.integers(0, 9))
def test_losses_of_labels(z, y, nudge):
    # Equal scores are a kink of the hinge, where any share of the gradient is right.
    z = z + np.linspace(0, 0.1, 4, dtype=np.float32) * (1 + nudge)
    expect_like_torch(OF_LABELS, z, y)


OF_PROBABILITIES = {
    "cross_entropy": (
        losses.cross_entropy,
        lambda z, p: F.cross_entropy(z, p, reduction="none"),
    ),
    "cross_entropy, weighted and smoothed": (
        with_class_weights(losses.cross_entropy, label_smoothing=0.2),
        lambda z, p: F.cross_entropy(
            z, p, weight=weights_of(z), reduction="none", label_smoothing=0.2
        ),
    ),
    "focal": (
        with_class_weights(losses.focal),
        lambda z, p: (
            -(weights_of(z) * p * (1 - torch.softmax(z, -1)) ** 2 * torch.log_softmax(z, -1)).sum(
                -1
            )
        ),
    ),
    "kl_divergence": (
        losses.kl_divergence,
        lambda z, p: F.kl_div(F.log_softmax(z, -1), p, reduction="none").sum(-1),
    ),
    "jensen_shannon": (losses.jensen_shannon, lambda z, p: _jensen_shannon_twin(z, p)),
}


def _jensen_shannon_twin(z, p):
    q = torch.softmax(z, -1)
    m = (p + q) / 2
    return ((p * torch.log(p / m)).sum(-1) + (q * torch.log(q / m)).sum(-1)) / 2


@drawn
@given(z=numbers(5, 4, size=8.0), p=probabilities(5, 4))
def test_losses_of_probabilities(z, p):
    expect_like_torch(OF_PROBABILITIES, z, p, moving=2)


BINARY = {
    "binary_cross_entropy": (
        losses.binary_cross_entropy,
        lambda z, y: F.binary_cross_entropy_with_logits(z, y.double(), reduction="none"),
    ),
    "binary_cross_entropy, weighted and smoothed": (
        lambda z, y: losses.binary_cross_entropy(z, y, positive_weight=3.0, label_smoothing=0.2),
        lambda z, y: F.binary_cross_entropy_with_logits(
            z, 0.8 * y.double() + 0.1, pos_weight=torch.tensor(3.0), reduction="none"
        ),
    ),
    "binary_focal": (
        lambda z, y: losses.binary_focal(z, y, gamma=1.5),
        lambda z, y: _binary_focal_twin(z, y, 1.5),
    ),
    "binary_focal with alpha": (
        lambda z, y: losses.binary_focal(z, y, alpha=0.25),
        lambda z, y: torch.where(y > 0, 0.25, 0.75) * _binary_focal_twin(z, y, 2.0),
    ),
    "hinge": (losses.hinge, lambda z, y: torch.relu(1 - (2 * y - 1) * z)),
    "squared_hinge": (losses.squared_hinge, lambda z, y: torch.relu(1 - (2 * y - 1) * z) ** 2),
}


def _binary_focal_twin(z, y, gamma):
    right = torch.sigmoid(torch.where(y > 0, z, -z))
    return -((1 - right) ** gamma) * torch.log(right)


@drawn
@given(z=numbers(4, 3, size=8.0), y=integers(4, 3, below=2))
def test_losses_of_yes_and_no(z, y):
    expect_like_torch(BINARY, z, y)


# Embeddings.


@drawn
@given(a=numbers(4, 3), p=numbers(4, 3, seed=1), n=numbers(4, 3, seed=2))
def test_triplet(a, p, n):
    expect_like_torch({"triplet": (losses.triplet, _triplet_twin)}, a, p, n, moving=3)


def _triplet_twin(a, p, n):
    return F.triplet_margin_loss(a, p, n, eps=0, reduction="none")


def _similarities(a, b):
    return F.normalize(a, dim=-1, eps=0) @ F.normalize(b, dim=-1, eps=0).T


def _nt_xent_twin(a, b, temperature=0.5):
    """Equation 1 of SimCLR, view by view."""
    n = len(a)
    views = torch.cat([a, b])
    e = torch.exp(_similarities(views, views) / temperature)

    def l(i, j):  # noqa: E743, the paper's name
        return -torch.log(e[i, j] / sum(e[i, k] for k in range(2 * n) if k != i))

    return torch.stack([(l(i, i + n) + l(i + n, i)) / 2 for i in range(n)])


def _siglip_twin(a, b, t=10.0, bias=-10.0):
    """Algorithm 1 of SigLIP, pair by pair; half of a pair's loss for each of the two."""
    n = len(a)
    logits = t * _similarities(a, b) + bias
    labels = 2 * torch.eye(n) - torch.ones(n, n)
    pairs = -torch.log(torch.sigmoid(labels * logits))
    return torch.stack([(pairs[i].sum() + pairs[:, i].sum()) / 2 for i in range(n)])


OF_ANGLES = {
    "cosine": (losses.cosine, lambda a, b: 1 - F.cosine_similarity(a, b, dim=-1, eps=0)),
    "nt_xent": (lambda a, b: losses.nt_xent(a, b, temperature=0.5), _nt_xent_twin),
    "sigmoid_contrastive": (losses.sigmoid_contrastive, _siglip_twin),
}


@pytest.mark.slow
@drawn
@given(a=numbers(3, 4), b=numbers(3, 4, seed=1))
def test_losses_of_angles(a, b):
    # A vector of zeros has no angle: that is another test's.
    a, b = (np.where(np.abs(v) < 0.1, np.float32(0.5), v) for v in (a, b))
    expect_like_torch(OF_ANGLES, a, b, moving=2)


# Overlap.


def _dice_twin(p, y, smooth):
    return 1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)


def _binary_dice_twin(z, y):
    rows = zip(torch.sigmoid(z), y, strict=True)
    return torch.stack([_dice_twin(p, t, 1.0) for p, t in rows])


def _many_classes_dice_twin(z, y):
    p = torch.softmax(z, -1)
    return torch.stack(
        [
            torch.stack([_dice_twin(q[:, c], t == c, 0.1) for c in range(z.shape[-1])]).mean()
            for q, t in zip(p, y, strict=True)
        ]
    )


@drawn
@given(z=numbers(3, 2, 3, size=8.0), y=integers(3, 2, 3, below=2))
def test_binary_dice(z, y):
    expect_like_torch({"binary_dice": (losses.binary_dice, _binary_dice_twin)}, z, y)


def _dice(z, y):
    return losses.dice(z, y, smooth=0.1)


@drawn
@given(z=numbers(3, 4, 3, size=8.0), y=integers(3, 4, below=3))
def test_dice(z, y):
    expect_like_torch({"dice": (_dice, _many_classes_dice_twin)}, z, y)
