"""Optimizers and gradient transforms as pure state transitions."""

from fnn._arguments import check_exports
from fnn.optim import contrib
from fnn.optim._base import elementwise, from_direction
from fnn.optim.accumulate import accumulate
from fnn.optim.adafactor import adafactor, adafactor_absolute, relative_step
from fnn.optim.adagrad import adadelta, adagrad
from fnn.optim.adam import adam, adamw
from fnn.optim.adam_variants import adabelief, adamax, amsgrad, nadam, nadamw, radam, yogi
from fnn.optim.averaging import ema, lookahead, swa
from fnn.optim.clipping import (
    adaptive_clip,
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_value,
    zero_not_finite,
)
from fnn.optim.groups import freeze, frozen, groups, groups_table, partition
from fnn.optim.lars import lamb, lars
from fnn.optim.lbfgs import lbfgs
from fnn.optim.line_search import backtracking, full_step, wolfe
from fnn.optim.lion import lion, sign_sgd, signum
from fnn.optim.lr_scaling import depth_by_number, layerwise_lr_decay, scaled_for_width
from fnn.optim.mixed_precision import dynamic_loss_scale, master_weights, stochastic_rounding
from fnn.optim.muon import adamw_scale, matrices, muon, newton_schulz, width_scale
from fnn.optim.offload import offload
from fnn.optim.rmsprop import rmsprop, rprop
from fnn.optim.sam import asam, sam
from fnn.optim.schedule_free import schedule_free_adamw, schedule_free_sgd
from fnn.optim.scheduled import reduce_on_plateau, scheduled
from fnn.optim.sgd import sgd
from fnn.optim.skip import skip_not_finite, skip_spikes
from fnn.optim.transforms import add_noise, cautious, centralize, chain
from fnn.optim.weight_decay import add_l2, decoupled_decay, proximal_l1

# fmt: off
__all__ = [
    "accumulate", "adabelief", "adadelta", "adafactor", "adafactor_absolute", "adagrad", "adam",
    "adamax", "adamw", "adamw_scale", "adaptive_clip", "add_l2", "add_noise", "amsgrad", "asam",
    "backtracking", "cautious", "centralize", "chain", "clip_by_global_norm", "clip_by_leaf_norm",
    "clip_by_value", "contrib", "decoupled_decay", "depth_by_number", "dynamic_loss_scale",
    "elementwise", "ema", "freeze", "from_direction", "frozen", "full_step", "groups",
    "groups_table", "lamb", "lars", "layerwise_lr_decay", "lbfgs", "lion", "lookahead",
    "master_weights", "matrices", "muon", "nadam", "nadamw", "newton_schulz", "offload",
    "partition", "proximal_l1", "radam", "reduce_on_plateau", "relative_step", "rmsprop", "rprop",
    "sam", "scaled_for_width", "schedule_free_adamw", "schedule_free_sgd", "scheduled", "sgd",
    "sign_sgd", "signum", "skip_not_finite", "skip_spikes", "stochastic_rounding", "swa",
    "width_scale", "wolfe", "yogi", "zero_not_finite",
]
# fmt: on

check_exports(__name__)
