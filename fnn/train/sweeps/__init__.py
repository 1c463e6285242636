"""Many whole runs in one compiled program."""

from fnn.train.sweeps import search as search
from fnn.train.sweeps.halving import halving as halving
from fnn.train.sweeps.result import SweepResult as SweepResult
from fnn.train.sweeps.result import SweepTable as SweepTable
from fnn.train.sweeps.sweep import sweep as sweep
