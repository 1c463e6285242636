"""Diagnosis of a recipe or a run: learning-rate range test, one-batch overfit, forks, summary."""

from fnn._arguments import check_exports
from fnn.diagnose.fork import Fork, fork
from fnn.diagnose.lr_find import lr_find
from fnn.diagnose.overfit import Overfit, overfit_one_batch
from fnn.diagnose.profile import profile
from fnn.diagnose.range_curve import RangeCurve
from fnn.diagnose.summary import Summary, summary

# fmt: off
__all__ = [
    "Fork", "Overfit", "RangeCurve", "Summary", "fork", "lr_find", "overfit_one_batch",
    "profile", "summary",
]
# fmt: on

check_exports(__name__, leave=("recipe", "key", "data"))
