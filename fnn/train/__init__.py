"""Training as pure functions: a step, a run, and the host's loop around the same step."""

from fnn.train.check import check as check
from fnn.train.evaluate import make_evaluate as make_evaluate
from fnn.train.fit import FitResult as FitResult
from fnn.train.fit import NonFiniteError as NonFiniteError
from fnn.train.fit import Stop as Stop
from fnn.train.fit import fit as fit
from fnn.train.progress import silent as silent
from fnn.train.run import make_run as make_run
from fnn.train.state import make_init as make_init
from fnn.train.state import optimizer_state as optimizer_state
from fnn.train.state import trained_params as trained_params
from fnn.train.step import make_step as make_step
