"""Rows of the initializers, activations, losses and metrics."""

import math

import numpy as np

from fnn import activations, initializers, losses, metrics
from tests.registry.rows import (
    FunctionRow,
    InitializerRow,
    LossRow,
    MetricRow,
    integers,
    normal,
)


def _soft_labels(*shape: int) -> np.ndarray:
    weights = np.exp(normal(*shape, seed=1))
    return weights / weights.sum(axis=-1, keepdims=True)


def _smoothed(logits, targets):
    return losses.cross_entropy(logits, targets, label_smoothing=0.1)


FUNCTIONS = [
    FunctionRow(name="relu", function=activations.relu),
    FunctionRow(name="gelu", function=activations.gelu),
    FunctionRow(name="tanh", function=activations.tanh),
    FunctionRow(name="sigmoid", function=activations.sigmoid),
    FunctionRow(name="softmax", function=activations.softmax, elementwise=False),
]

_LOGITS, _LABELS = normal(5, 4), integers(5, below=4)

LOSSES = [
    LossRow(name="cross_entropy", loss=losses.cross_entropy, predictions=_LOGITS, targets=_LABELS),
    LossRow(
        name="cross_entropy of soft labels",
        loss=losses.cross_entropy,
        predictions=_LOGITS,
        targets=_soft_labels(5, 4),
    ),
    LossRow(name="cross_entropy, smoothed", loss=_smoothed, predictions=_LOGITS, targets=_LABELS),
    LossRow(
        name="cross_entropy of tokens",
        loss=losses.cross_entropy,
        predictions=normal(3, 2, 4),
        targets=integers(3, 2, below=4),
    ),
    LossRow(
        name="binary_cross_entropy",
        loss=losses.binary_cross_entropy,
        predictions=normal(5),
        targets=integers(5, below=2),
    ),
    LossRow(
        name="binary_cross_entropy of many questions",
        loss=losses.binary_cross_entropy,
        predictions=normal(4, 3),
        targets=_soft_labels(4, 3),
    ),
    LossRow(
        name="mean_squared_error",
        loss=losses.mean_squared_error,
        predictions=normal(4, 3),
        targets=normal(4, 3, seed=1),
    ),
    LossRow(
        name="mean_squared_error of single numbers",
        loss=losses.mean_squared_error,
        predictions=normal(4),
        targets=normal(4, seed=1),
    ),
]

_SHAPE = (3, 20, 40)  # fans 60 and 120

INITIALIZERS = [
    InitializerRow(
        name="zeros", initializer=initializers.zeros, shape=(3, 4), std=0.0, random=False
    ),
    InitializerRow(name="ones", initializer=initializers.ones, shape=(3,), std=0.0, random=False),
    InitializerRow(name="normal", initializer=initializers.normal(0.02), shape=(50, 40), std=0.02),
    InitializerRow(
        name="lecun_normal",
        initializer=initializers.lecun_normal(),
        shape=_SHAPE,
        std=math.sqrt(1 / 60),
    ),
    InitializerRow(
        name="lecun_uniform",
        initializer=initializers.lecun_uniform(),
        shape=_SHAPE,
        std=math.sqrt(1 / 60),
    ),
    InitializerRow(
        name="glorot_normal",
        initializer=initializers.glorot_normal(),
        shape=_SHAPE,
        std=math.sqrt(2 / 180),
    ),
    InitializerRow(
        name="glorot_uniform",
        initializer=initializers.glorot_uniform(),
        shape=_SHAPE,
        std=math.sqrt(2 / 180),
    ),
    InitializerRow(
        name="he_normal", initializer=initializers.he_normal(), shape=_SHAPE, std=math.sqrt(2 / 60)
    ),
    InitializerRow(
        name="he_normal of the outputs",
        initializer=initializers.he_normal(initializers.Fan.OUT),
        shape=_SHAPE,
        std=math.sqrt(2 / 120),
    ),
    InitializerRow(
        name="he_normal of both",
        initializer=initializers.he_normal(initializers.Fan.AVERAGE),
        shape=_SHAPE,
        std=math.sqrt(2 / 90),
    ),
    InitializerRow(
        name="he_uniform",
        initializer=initializers.he_uniform(),
        shape=_SHAPE,
        std=math.sqrt(2 / 60),
    ),
    # Orthonormal columns of length n: the mean square is exactly 1/n.
    InitializerRow(
        name="orthogonal",
        initializer=initializers.orthogonal(),
        shape=(60, 40),
        std=math.sqrt(1 / 60),
    ),
    InitializerRow(
        name="orthogonal times 2",
        initializer=initializers.orthogonal(2.0),
        shape=(40, 60),
        std=2 * math.sqrt(1 / 60),
    ),
]

METRICS = [
    MetricRow(
        name="accuracy",
        make=metrics.accuracy,
        predictions=normal(7, 3),
        targets=integers(7, below=3),
    ),
    MetricRow(
        name="accuracy of soft labels",
        make=metrics.accuracy,
        predictions=normal(7, 3),
        targets=_soft_labels(7, 3),
    ),
    MetricRow(
        name="top_k_accuracy",
        make=lambda: metrics.top_k_accuracy(2),
        predictions=normal(7, 3),
        targets=integers(7, below=3),
    ),
    MetricRow(
        name="binary_accuracy of probabilities",
        make=lambda: metrics.binary_accuracy(0.5, ignore_index=-1),
        predictions=normal(7, 3),
        targets=integers(7, 3, below=3, seed=1) - 1,
    ),
    MetricRow(
        name="mean of a combined loss",
        make=lambda: metrics.mean(
            losses.combine({"a": (losses.huber, 2.0), "b": (losses.cross_entropy, 0.5)})
        ),
        predictions={"a": normal(7), "b": normal(7, 3)},
        targets={"a": normal(7, seed=1), "b": integers(7, below=3)},
    ),
    MetricRow(
        name="mean of a masked loss",
        make=lambda: metrics.mean(
            lambda logits, labels: losses.cross_entropy(logits, labels, ignore_index=1)
        ),
        predictions=normal(7, 3),
        targets=integers(7, below=3),
    ),
    MetricRow(
        name="perplexity",
        make=lambda: metrics.perplexity(losses.cross_entropy),
        predictions=normal(7, 3),
        targets=integers(7, below=3),
    ),
    MetricRow(
        name="mean",
        make=lambda: metrics.mean(lambda predictions, targets: abs(predictions - targets)),
        predictions=normal(7),
        targets=normal(7, seed=1),
    ),
]

HELPERS = [
    "initializers.fans",
    "losses.combine",
    "metrics.binary_hits",
    "metrics.hits",
    "metrics.merge",
    "order.mixture",
    "order.order",
    "order.order_block",
]
