"""Rows of the elementwise adaptive optimizers and those that step by signs."""

from fnn import optim
from tests.registry.rows import OptimizerRow

# Larger than the defaults, so that finite differences see them; shorter memories likewise.
_EPS = 1e-3
_MOMENTS = {"b1": 0.9, "b2": 0.99, "eps": _EPS}

OPTIMIZERS = [
    OptimizerRow(name="sign_sgd", make=optim.sign_sgd, lr=0.01),
    OptimizerRow(name="signum", make=optim.signum, scalars={"momentum": 0.9}, lr=0.01),
    OptimizerRow(
        name="rprop",
        make=optim.rprop,
        # The limits are where the steps come to them.
        scalars={"shrink": 0.5, "grow": 1.2, "min_scale": 0.27, "max_scale": 1.35},
    ),
    OptimizerRow(name="adagrad", make=optim.adagrad, scalars={"start": 0.1, "eps": _EPS}, lr=0.2),
    OptimizerRow(name="adadelta", make=optim.adadelta, scalars={"decay": 0.9, "eps": _EPS}, lr=1.0),
    OptimizerRow(name="nadam", make=optim.nadam, scalars=_MOMENTS),
    OptimizerRow(
        name="nadamw", make=optim.nadamw, scalars={"weight_decay": 0.1, **_MOMENTS}, decays=True
    ),
    OptimizerRow(name="radam", make=optim.radam, scalars=_MOMENTS),
    OptimizerRow(name="adamax", make=optim.adamax, scalars=_MOMENTS),
    OptimizerRow(
        name="adamax with decay",
        make=optim.adamax,
        scalars={"weight_decay": 0.1, **_MOMENTS},
        decays=True,
    ),
    OptimizerRow(name="amsgrad", make=optim.amsgrad, scalars=_MOMENTS),
    OptimizerRow(name="adabelief", make=optim.adabelief, scalars=_MOMENTS),
    OptimizerRow(name="yogi", make=optim.yogi, scalars={**_MOMENTS, "start": 0.01}),
    OptimizerRow(
        name="adan",
        make=optim.contrib.adan,
        scalars={"b1": 0.9, "b2": 0.8, "b3": 0.99, "eps": _EPS, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="ademamix",
        make=optim.contrib.ademamix,
        scalars={
            "b1": 0.8,
            "b2": 0.99,
            "b3": 0.95,
            "alpha": 1.0,
            "warmup_steps": 6.5,  # between two steps, since there is a kink
            "eps": _EPS,
            "weight_decay": 0.1,
        },
        decays=True,
    ),
    OptimizerRow(
        name="adopt", make=optim.contrib.adopt, scalars={"b1": 0.9, "b2": 0.99, "eps": 0.5}
    ),
]

# Settings are all there is to them: the laws are those of nadamw and schedule_free_adamw.
HELPERS = ["optim.contrib.algoperf_nadamw", "optim.contrib.algoperf_schedule_free_adamw"]
