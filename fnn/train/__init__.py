"""Training as pure functions: a step, a run, and the host's loop around the same step."""

from fnn.arguments import check_exports
from fnn.train.callbacks import Callback as Callback
from fnn.train.callbacks import Event as Event
from fnn.train.callbacks import Fold as Fold
from fnn.train.check import check as check
from fnn.train.checkpointed import checkpointed_scan as checkpointed_scan
from fnn.train.compile_cache import compile_cache as compile_cache
from fnn.train.evaluate import make_evaluate as make_evaluate
from fnn.train.fit import fit as fit
from fnn.train.fork import Fork as Fork
from fnn.train.fork import fork as fork
from fnn.train.gan import GANRecipe as GANRecipe
from fnn.train.gan import GANState as GANState
from fnn.train.gan import Player as Player
from fnn.train.gan import make_gan_init as make_gan_init
from fnn.train.gan import make_gan_step as make_gan_step
from fnn.train.gradient import microbatches as microbatches
from fnn.train.interrupt import exit_code as exit_code
from fnn.train.interrupt import resume_command as resume_command
from fnn.train.keep_memory import keep_memory as keep_memory
from fnn.train.lr_find import lr_find as lr_find
from fnn.train.overfit import Overfit as Overfit
from fnn.train.overfit import overfit_one_batch as overfit_one_batch
from fnn.train.predict import predict as predict
from fnn.train.private import private_gradient as private_gradient
from fnn.train.profile import profile as profile
from fnn.train.progress import silent as silent
from fnn.train.range_curve import RangeCurve as RangeCurve
from fnn.train.result import FitResult as FitResult
from fnn.train.result import NonFiniteError as NonFiniteError
from fnn.train.result import Stop as Stop
from fnn.train.run import make_run as make_run
from fnn.train.state import make_init as make_init
from fnn.train.state import trained_params as trained_params
from fnn.train.statistics import update_statistics as update_statistics
from fnn.train.step import make_step as make_step
from fnn.train.summary import Summary as Summary
from fnn.train.summary import summary as summary
from fnn.train.sweeps import SweepBest as SweepBest
from fnn.train.sweeps import SweepResult as SweepResult
from fnn.train.sweeps import SweepTable as SweepTable
from fnn.train.sweeps import halving as halving
from fnn.train.sweeps import search as search
from fnn.train.sweeps import sweep as sweep

# fmt: off
__all__ = [
    "Callback", "Event", "FitResult", "Fold", "Fork", "GANRecipe", "GANState", "NonFiniteError",
    "Overfit", "Player", "RangeCurve", "Stop", "Summary", "SweepBest", "SweepResult",
    "SweepTable", "check", "checkpointed_scan", "compile_cache", "exit_code", "fit", "fork",
    "halving", "keep_memory", "lr_find", "make_evaluate", "make_gan_init", "make_gan_step",
    "make_init", "make_run", "make_step", "microbatches", "overfit_one_batch", "predict",
    "private_gradient", "profile", "resume_command", "search", "silent", "summary", "sweep",
    "trained_params", "update_statistics",
]
# fmt: on

check_exports(__name__, leave=("recipe", "key", "data"))
