"""Optimizers and gradient transforms as pure state transitions."""

from fnn.arguments import check_exports
from fnn.optim import contrib as contrib
from fnn.optim.accumulate import accumulate as accumulate
from fnn.optim.adafactor import adafactor as adafactor
from fnn.optim.adafactor import adafactor_absolute as adafactor_absolute
from fnn.optim.adafactor import relative_step as relative_step
from fnn.optim.adagrad import adadelta as adadelta
from fnn.optim.adagrad import adagrad as adagrad
from fnn.optim.adam import adam as adam
from fnn.optim.adam import adamw as adamw
from fnn.optim.adan import adan as adan
from fnn.optim.ademamix import ademamix as ademamix
from fnn.optim.adopt import adopt as adopt
from fnn.optim.algoperf import algoperf_nadamw as algoperf_nadamw
from fnn.optim.algoperf import algoperf_schedule_free_adamw as algoperf_schedule_free_adamw
from fnn.optim.averaging import ema as ema
from fnn.optim.averaging import swa as swa
from fnn.optim.base import elementwise as elementwise
from fnn.optim.base import from_direction as from_direction
from fnn.optim.cautious import cautious as cautious
from fnn.optim.centre import centralise as centralise
from fnn.optim.chain import chain as chain
from fnn.optim.clips import adaptive_clip as adaptive_clip
from fnn.optim.clips import clip_by_global_norm as clip_by_global_norm
from fnn.optim.clips import clip_by_leaf_norm as clip_by_leaf_norm
from fnn.optim.clips import clip_by_value as clip_by_value
from fnn.optim.clips import zero_not_finite as zero_not_finite
from fnn.optim.decay import add_l2 as add_l2
from fnn.optim.decay import decoupled_decay as decoupled_decay
from fnn.optim.depth import depth_by_number as depth_by_number
from fnn.optim.depth import layerwise_lr_decay as layerwise_lr_decay
from fnn.optim.first_order import momentum as momentum
from fnn.optim.first_order import nesterov as nesterov
from fnn.optim.first_order import sgd as sgd
from fnn.optim.groups import freeze as freeze
from fnn.optim.groups import frozen as frozen
from fnn.optim.groups import groups as groups
from fnn.optim.groups import groups_table as groups_table
from fnn.optim.groups import partition as partition
from fnn.optim.kron import kron as kron
from fnn.optim.lamb import lamb as lamb
from fnn.optim.lars import lars as lars
from fnn.optim.lbfgs import lbfgs as lbfgs
from fnn.optim.line_search import backtracking as backtracking
from fnn.optim.line_search import full_step as full_step
from fnn.optim.line_search import wolfe as wolfe
from fnn.optim.lookahead import lookahead as lookahead
from fnn.optim.loss_scale import dynamic_loss_scale as dynamic_loss_scale
from fnn.optim.muon import adamw_scale as adamw_scale
from fnn.optim.muon import matrices as matrices
from fnn.optim.muon import muon as muon
from fnn.optim.muon import width_scale as width_scale
from fnn.optim.nadam import nadam as nadam
from fnn.optim.nadam import nadamw as nadamw
from fnn.optim.newton_schulz import newton_schulz as newton_schulz
from fnn.optim.noise import add_noise as add_noise
from fnn.optim.plateau import reduce_on_plateau as reduce_on_plateau
from fnn.optim.precision import master_weights as master_weights
from fnn.optim.precision import stochastic_rounding as stochastic_rounding
from fnn.optim.prodigy import dadapt_adam as dadapt_adam
from fnn.optim.prodigy import prodigy as prodigy
from fnn.optim.proximal import proximal_l1 as proximal_l1
from fnn.optim.radam import radam as radam
from fnn.optim.rmsprop import rmsprop as rmsprop
from fnn.optim.rprop import rprop as rprop
from fnn.optim.schedule_free import schedule_free_adamw as schedule_free_adamw
from fnn.optim.schedule_free import schedule_free_sgd as schedule_free_sgd
from fnn.optim.scheduled import scheduled as scheduled
from fnn.optim.second_moment import adabelief as adabelief
from fnn.optim.second_moment import adamax as adamax
from fnn.optim.second_moment import amsgrad as amsgrad
from fnn.optim.second_moment import yogi as yogi
from fnn.optim.shampoo import shampoo as shampoo
from fnn.optim.sharpness import asam as asam
from fnn.optim.sharpness import sam as sam
from fnn.optim.sign import lion as lion
from fnn.optim.sign import sign_sgd as sign_sgd
from fnn.optim.sign import signum as signum
from fnn.optim.skip import skip_not_finite as skip_not_finite
from fnn.optim.skip import skip_spikes as skip_spikes
from fnn.optim.soap import soap as soap
from fnn.optim.sophia import sophia as sophia
from fnn.optim.width import scaled_for_width as scaled_for_width

# fmt: off
__all__ = [
    "accumulate", "adabelief", "adadelta", "adafactor", "adafactor_absolute", "adagrad", "adam",
    "adamax", "adamw", "adamw_scale", "adan", "adaptive_clip", "add_l2", "add_noise",
    "ademamix", "adopt", "algoperf_nadamw", "algoperf_schedule_free_adamw", "amsgrad", "asam",
    "backtracking", "cautious", "centralise", "chain", "clip_by_global_norm",
    "clip_by_leaf_norm", "clip_by_value", "contrib", "dadapt_adam", "decoupled_decay",
    "depth_by_number", "dynamic_loss_scale", "elementwise", "ema", "freeze", "from_direction",
    "frozen", "full_step", "groups", "groups_table", "kron", "lamb", "lars",
    "layerwise_lr_decay", "lbfgs", "lion", "lookahead", "master_weights", "matrices",
    "momentum", "muon", "nadam", "nadamw", "nesterov", "newton_schulz", "partition", "prodigy",
    "proximal_l1", "radam", "reduce_on_plateau", "relative_step", "rmsprop", "rprop", "sam",
    "scaled_for_width", "schedule_free_adamw", "schedule_free_sgd", "scheduled", "sgd",
    "shampoo", "sign_sgd", "signum", "skip_not_finite", "skip_spikes", "soap", "sophia",
    "stochastic_rounding", "swa", "width_scale", "wolfe", "yogi", "zero_not_finite",
]
# fmt: on

check_exports(__name__)
