"""What the registry says of each public function; the laws in test_laws.py run over every row.

Each file beside this one lists the rows of one part of the house; `__init__` gathers them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fnn.types import Metric, Model, Optimizer, Schedule, Transform


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(*shape: int, below: int, seed: int = 0) -> np.ndarray:
    """Integers in [0, below), int32."""
    return np.random.default_rng(seed).integers(below, size=shape).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A model, or a layer as a model."""

    name: str
    make: Callable[[], Model]
    x: Any  # an example batch of at least 3, small
    noisy: bool = False  # draws from its key when train=True
    rowwise: bool = True  # with train=False, examples do not influence each other
    smooth: bool = True  # finite differences make sense at x (no kink nearby)
    slow: bool = False  # a large model of parts that have rows; see the marker


@dataclass(frozen=True, kw_only=True)
class FunctionRow:
    """An activation: an array in, an array of the same shape and dtype out."""

    name: str
    function: Callable[..., Any]
    elementwise: bool = True
    smooth: bool = True  # finite differences make sense at random points


@dataclass(frozen=True, kw_only=True)
class LossRow:
    """A loss, with predictions and targets for a batch of at least 3."""

    name: str
    loss: Callable[..., Any]
    predictions: Any
    targets: Any
    rowwise: bool = True  # an example's loss depends on that example alone
    at_least_zero: bool = True


@dataclass(frozen=True, kw_only=True)
class InitializerRow:
    """An initializer, with a shape that suits it and the standard deviation to expect there."""

    name: str
    initializer: Callable[..., Any]
    shape: tuple[int, ...]
    std: float
    random: bool = True


@dataclass(frozen=True, kw_only=True)
class OptimizerRow:
    """An optimizer, with the scalar hyperparameters that may be traced."""

    name: str
    make: Callable[..., Optimizer]
    scalars: dict[str, float] = field(default_factory=dict)
    lr: float = 0.05
    leafwise: bool = True  # a leaf's update does not depend on the other leaves
    decays: bool = False  # moves parameters even where the gradient is zero
    draws: bool = False  # adds noise to each leaf, found by the leaf's path
    linear_in_lr: bool = True
    slow: bool = False  # takes long to compile; see the marker
    skip: dict[str, str] = field(default_factory=dict)  # name of a law -> the reason


@dataclass(frozen=True, kw_only=True)
class TransformRow:
    """A transform of gradients."""

    name: str
    make: Callable[..., Transform]
    scalars: dict[str, float] = field(default_factory=dict)
    leafwise: bool = False  # what becomes of a leaf does not depend on the other leaves
    draws: bool = False  # adds noise to each leaf, found by the leaf's path


@dataclass(frozen=True, kw_only=True)
class ScheduleRow:
    """A schedule with its scalar arguments, and its exact values at some steps."""

    name: str
    make: Callable[..., Schedule]
    scalars: dict[str, float]
    values: dict[int, float]  # step -> lr


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """A metric, with predictions and targets for a batch of at least 3."""

    name: str
    make: Callable[[], Metric]
    predictions: Any
    targets: Any


# Made of layers with rows of their own.
_NETWORKS = {
    "bert", "cnn", "convnext", "diffusion", "dit", "encoder_decoder", "gpt", "lenet", "masked_lm",
    "mixer", "resnet", "unet", "vae", "vit",
}  # fmt: skip


def over_models(rows: list[ModelRow]) -> pytest.MarkDecorator:
    """A test for each row; those of whole networks are slow."""
    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(
                row,
                id=row.name,
                marks=[pytest.mark.slow] * (row.slow or row.name.split()[0] in _NETWORKS),
            )
            for row in rows
        ],
    )
