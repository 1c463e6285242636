"""Learning-rate schedules: `schedule(step) -> lr`, a float32 scalar; step counts from 0.

Every argument may be a tracer, so lengths and heights can be swept and differentiated; float64
arguments give float64. A schedule of anything else than the lr goes to `optim.scheduled`.
"""

from fnn.arguments import check_exports
from fnn.schedules.cooldowns import warmup_stable_decay as warmup_stable_decay
from fnn.schedules.cooldowns import warmup_stable_sqrt_decay as warmup_stable_sqrt_decay
from fnn.schedules.cosines import cosine as cosine
from fnn.schedules.cosines import cosine_restarts as cosine_restarts
from fnn.schedules.cycles import cyclic as cyclic
from fnn.schedules.cycles import cyclic_exponential as cyclic_exponential
from fnn.schedules.cycles import cyclic_halving as cyclic_halving
from fnn.schedules.cycles import one_cycle as one_cycle
from fnn.schedules.cycles import one_cycle_momentum as one_cycle_momentum
from fnn.schedules.decays import exponential_decay as exponential_decay
from fnn.schedules.decays import inverse_sqrt as inverse_sqrt
from fnn.schedules.decays import multi_step as multi_step
from fnn.schedules.decays import step_decay as step_decay
from fnn.schedules.lines import constant as constant
from fnn.schedules.lines import linear as linear
from fnn.schedules.lines import polynomial as polynomial
from fnn.schedules.pieces import join as join
from fnn.schedules.pieces import piecewise_constant as piecewise_constant
from fnn.schedules.pieces import piecewise_cosine as piecewise_cosine
from fnn.schedules.pieces import piecewise_linear as piecewise_linear
from fnn.schedules.plateau import Plateau as Plateau
from fnn.schedules.plateau import PlateauState as PlateauState
from fnn.schedules.plateau import reduce_on_plateau as reduce_on_plateau
from fnn.schedules.warmups import warmup_cosine as warmup_cosine
from fnn.schedules.warmups import warmup_linear as warmup_linear
from fnn.schedules.warmups import with_warmup as with_warmup

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
