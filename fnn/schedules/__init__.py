"""Learning-rate schedules: `schedule(step) -> lr`, a float32 scalar; step counts from 0.

Every argument may be traced, so step counts and learning rates can be swept and differentiated;
float64 arguments give float64. Schedules of other hyperparameters: `optim.scheduled`.
"""

from fnn._arguments import check_exports
from fnn.schedules.cooldowns import warmup_stable_decay, warmup_stable_sqrt_decay
from fnn.schedules.cosines import cosine, cosine_restarts
from fnn.schedules.cycles import (
    cyclic,
    cyclic_exponential,
    cyclic_halving,
    one_cycle,
    one_cycle_momentum,
)
from fnn.schedules.decays import exponential_decay, inverse_sqrt, multi_step, step_decay
from fnn.schedules.piecewise import join, piecewise_constant, piecewise_cosine, piecewise_linear
from fnn.schedules.plateau import Plateau, PlateauState, reduce_on_plateau
from fnn.schedules.polynomial import constant, linear, polynomial
from fnn.schedules.warmups import warmup_cosine, warmup_linear, with_warmup

# fmt: off
__all__ = [
    "Plateau", "PlateauState", "constant", "cosine", "cosine_restarts", "cyclic",
    "cyclic_exponential", "cyclic_halving", "exponential_decay", "inverse_sqrt", "join",
    "linear", "multi_step", "one_cycle", "one_cycle_momentum", "piecewise_constant",
    "piecewise_cosine", "piecewise_linear", "polynomial", "reduce_on_plateau", "step_decay",
    "warmup_cosine", "warmup_linear", "warmup_stable_decay", "warmup_stable_sqrt_decay",
    "with_warmup",
]
# fmt: on

check_exports(__name__)
