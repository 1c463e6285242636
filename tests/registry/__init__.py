"""The registry: a row for every public function, gathered from every file of this package.

A file exposes any of the lists below. The first word of a row's name is the function that the row
is about ("adam", "adam without momentum"), and no name comes twice in a kind. HELPERS names the
public functions that no law applies to, as 'module.function'; their tests are files of their own.
"""

import importlib
import pkgutil
from typing import Any

from tests.registry.rows import (
    FunctionRow,
    InitializerRow,
    LossRow,
    MetricRow,
    ModelRow,
    OptimizerRow,
    ScheduleRow,
    TransformRow,
)

_FILES = [
    importlib.import_module(f"{__name__}.{file.name}")
    for file in pkgutil.iter_modules(__path__)
    if file.name != "rows"
]


def _gather(kind: str) -> list[Any]:
    return [row for file in _FILES for row in getattr(file, kind, [])]


MODELS: list[ModelRow] = _gather("MODELS")
FUNCTIONS: list[FunctionRow] = _gather("FUNCTIONS")
LOSSES: list[LossRow] = _gather("LOSSES")
INITIALIZERS: list[InitializerRow] = _gather("INITIALIZERS")
OPTIMIZERS: list[OptimizerRow] = _gather("OPTIMIZERS")
TRANSFORMS: list[TransformRow] = _gather("TRANSFORMS")
SCHEDULES: list[ScheduleRow] = _gather("SCHEDULES")
METRICS: list[MetricRow] = _gather("METRICS")
HELPERS: list[str] = _gather("HELPERS")
