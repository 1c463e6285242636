"""Rows of the optimizers that see a leaf as a whole: its norm, its matrix, the loss around it."""

import jax

from fnn import optim
from tests.registry.rows import OptimizerRow

# Larger than the defaults, so that finite differences see them.
_EPS = 1e-3

OPTIMIZERS = [
    OptimizerRow(
        name="lamb",
        make=optim.lamb,
        scalars={"weight_decay": 0.1, "b1": 0.9, "b2": 0.99, "eps": _EPS},
        decays=True,
    ),
    OptimizerRow(
        name="lars",
        make=optim.lars,
        scalars={"momentum": 0.9, "weight_decay": 0.01, "trust": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="muon",
        make=lambda **given: optim.muon(companion=optim.adam(eps=_EPS), **given),
        scalars={"momentum": 0.9, "companion_lr": 0.5, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="adafactor",
        make=lambda **given: optim.adafactor(min_factored=2, **given),
        scalars={"decay_power": 0.8, "max_rms": 0.8, "min_scale": 1.0, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="shampoo",
        make=lambda **given: optim.contrib.shampoo(every_steps=3, **given),
        scalars={"b1": 0.9, "b2": 0.99, "weight_decay": 0.1, "eps": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="shampoo in blocks",
        make=lambda **given: optim.contrib.shampoo(every_steps=3, block_size=2, **given),
        scalars={"b1": 0.9, "b2": 0.99, "weight_decay": 0.1, "eps": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="soap",
        make=lambda **given: optim.contrib.soap(every_steps=3, **given),
        scalars={"b1": 0.9, "b2": 0.99, "b3": 0.9, "weight_decay": 0.1, "eps": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="sophia",
        make=lambda **given: optim.contrib.sophia(key=jax.random.key(0), every_steps=3, **given),
        scalars={"b1": 0.9, "b2": 0.9, "scale": 2.0, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="kron",
        make=lambda **given: optim.contrib.kron(key=jax.random.key(0), max_size=3, **given),
        scalars={"b1": 0.9, "factor_lr": 0.1, "max_rms": 0.8, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="lbfgs", slow=True, make=lambda: optim.lbfgs(memory=3), lr=1.0, leafwise=False
    ),
]

HELPERS = [
    "optim.line_search.backtracking",
    "optim.line_search.full_step",
    "optim.line_search.wolfe",
    "optim.adafactor.adafactor_absolute",
    "optim.adafactor.relative_step",
    "optim.muon.adamw_scale",
    "optim.muon.matrices",
    "optim.muon.width_scale",
    "optim.muon.newton_schulz",
]
