"""Many whole runs in one compiled program."""

from fnn._arguments import check_exports
from fnn.train.sweeps import search
from fnn.train.sweeps.halving import halving
from fnn.train.sweeps.result import SweepBest, SweepResult, SweepTable
from fnn.train.sweeps.sweep import sweep

__all__ = ["SweepBest", "SweepResult", "SweepTable", "halving", "search", "sweep"]

check_exports(__name__, leave=("recipe", "keys", "data"))
