"""Rows of the wrappers over an optimizer, and of the optimizers that are free of tuning."""

import jax

from fnn import optim
from tests.registry.rows import OptimizerRow

# Larger than the defaults, so that finite differences see them.
_EPS = 1e-3


def _adam():
    return optim.adam(eps=_EPS)


OPTIMIZERS = [
    OptimizerRow(
        name="proximal_l1",
        make=lambda l1: optim.proximal_l1(optim.sgd(momentum=0.5), l1),
        scalars={"l1": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="lookahead",
        make=lambda slow_step: optim.lookahead(optim.sgd(), period=3, slow_step=slow_step),
        scalars={"slow_step": 0.6},
    ),
    OptimizerRow(
        name="sam",
        make=lambda rho: optim.sam(optim.sgd(), rho=rho),
        scalars={"rho": 0.1},
        leafwise=False,
        decays=True,  # the second gradient of the law is 0 up to a rounding
    ),
    OptimizerRow(
        name="asam",
        make=lambda rho, eta: optim.asam(optim.sgd(), rho=rho, eta=eta),
        scalars={"rho": 0.1, "eta": 0.1},
        leafwise=False,
        decays=True,
    ),
    OptimizerRow(
        name="cautious",
        make=lambda momentum: optim.cautious(optim.sgd(momentum=momentum)),
        scalars={"momentum": 0.8},
    ),
    OptimizerRow(name="ema", make=lambda: optim.ema(optim.sgd())),
    OptimizerRow(name="swa", make=lambda: optim.swa(optim.sgd(), start=3, period=2)),
    OptimizerRow(name="accumulate", make=lambda: optim.accumulate(_adam(), steps=2)),
    OptimizerRow(name="skip_not_finite", make=lambda: optim.skip_not_finite(_adam())),
    OptimizerRow(
        name="offload",
        make=lambda: optim.offload(_adam()),
        skip={"scalars_have_gradients": "JAX transposes no copy to the host's memory"},
    ),
    OptimizerRow(
        name="skip_spikes",
        make=lambda: optim.skip_spikes(_adam(), warmup_steps=2),
        leafwise=False,
    ),
    OptimizerRow(name="dynamic_loss_scale", make=lambda: optim.dynamic_loss_scale(_adam())),
    OptimizerRow(name="master_weights", make=lambda: optim.master_weights(_adam())),
    OptimizerRow(
        name="stochastic_rounding",
        make=lambda: optim.stochastic_rounding(_adam(), jax.random.key(0)),
    ),
    OptimizerRow(
        name="schedule_free_sgd",
        linear_in_lr=False,
        make=optim.schedule_free_sgd,
        scalars={"beta": 0.8, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="schedule_free_adamw",
        make=optim.schedule_free_adamw,
        scalars={"beta": 0.8, "b2": 0.99, "eps": _EPS},
    ),
    # At b2 = 0.99 the result bends so much that the central difference itself is off by 3e-6.
    OptimizerRow(
        name="prodigy",
        make=optim.contrib.prodigy,
        scalars={"b1": 0.8, "b2": 0.95, "eps": _EPS, "d0": 0.05},
        lr=0.5,
        leafwise=False,
    ),
    OptimizerRow(
        name="dadapt_adam",
        linear_in_lr=False,
        make=optim.contrib.dadapt_adam,
        scalars={"b1": 0.8, "b2": 0.95, "eps": _EPS, "d0": 0.05},
        lr=0.5,
        leafwise=False,
    ),
]
