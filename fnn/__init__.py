"""fnn: training is a pure function.

Start with `fnn.types`, then `fnn.train.step`, `fnn.models.mlp` and `experiments/digits.py`.
"""

import importlib
from typing import Any

from fnn.recipe import Recipe as Recipe
from fnn.types import Batch as Batch
from fnn.types import Data as Data
from fnn.types import History as History
from fnn.types import Metric as Metric
from fnn.types import Model as Model
from fnn.types import Optimizer as Optimizer
from fnn.types import TrainState as TrainState
from fnn.types import Transform as Transform
from fnn.types import Weighted as Weighted

__version__ = "0.1.0"  # pyproject.toml reads it here

_PARTS = (
    "activations", "checkpoint", "data", "diagnose", "generate", "initializers", "interop",
    "keys", "layers", "losses", "measures", "metrics", "models", "nn", "optim", "order", "plan",
    "recipe", "report", "scaling", "schedules", "testing", "train", "tree", "types", "xla",
)  # fmt: skip

__all__ = [
    "Batch", "Data", "History", "Metric", "Model", "Optimizer", "Recipe", "TrainState", "Transform",
    "Weighted", *_PARTS,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a part of fnn at its first use."""
    if name in _PARTS:
        return importlib.import_module(f"fnn.{name}")
    raise AttributeError(f"module 'fnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])
