"""Training as pure functions: a step, a run, and a loop on the host around the same step."""

from fnn._arguments import check_exports
from fnn.train._scan import checkpointed_scan
from fnn.train.callbacks import Callback, Event, Fold
from fnn.train.check import check
from fnn.train.dp_sgd import private_gradient
from fnn.train.evaluate import make_evaluate
from fnn.train.fit import FitResult, NonFiniteError, Stop, fit
from fnn.train.gan import GANRecipe, GANState, Player, make_gan_init, make_gan_step
from fnn.train.gradient import microbatches
from fnn.train.predict import predict
from fnn.train.process import compile_cache, exit_code, keep_memory, resume_command
from fnn.train.progress import silent
from fnn.train.run import make_run
from fnn.train.state import make_init, trained_params
from fnn.train.statistics import update_statistics
from fnn.train.step import make_step
from fnn.train.sweeps import SweepBest, SweepResult, SweepTable, halving, search, sweep

# fmt: off
__all__ = [
    "Callback", "Event", "FitResult", "Fold", "GANRecipe", "GANState", "NonFiniteError",
    "Player", "Stop", "SweepBest", "SweepResult", "SweepTable", "check", "checkpointed_scan",
    "compile_cache", "exit_code", "fit", "halving", "keep_memory", "make_evaluate",
    "make_gan_init", "make_gan_step", "make_init", "make_run", "make_step", "microbatches",
    "predict", "private_gradient", "resume_command", "search", "silent", "sweep",
    "trained_params", "update_statistics",
]
# fmt: on

check_exports(__name__, leave=("recipe", "key", "data"))
