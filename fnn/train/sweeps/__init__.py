"""Many whole runs in one compiled program."""

from fnn.arguments import check_exports
from fnn.train.sweeps import search as search
from fnn.train.sweeps.halving import halving as halving
from fnn.train.sweeps.result import SweepBest as SweepBest
from fnn.train.sweeps.result import SweepResult as SweepResult
from fnn.train.sweeps.result import SweepTable as SweepTable
from fnn.train.sweeps.sweep import sweep as sweep

__all__ = ["SweepBest", "SweepResult", "SweepTable", "halving", "search", "sweep"]

check_exports(__name__, leave=("recipe", "keys", "data"))
