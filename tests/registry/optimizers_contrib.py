"""Rows of the optimizers of `fnn.optim.contrib`."""

from functools import partial

import jax

from fnn import optim, tree
from fnn.optim import contrib
from tests.registry.rows import OptimizerRow

# Larger than the defaults, so that finite differences see them; shorter memories likewise.
_EPS = 1e-3
_MOMENTS = {"b1": 0.9, "b2": 0.99, "eps": _EPS}

OPTIMIZERS = [
    OptimizerRow(
        name="acprop",
        make=contrib.acprop,
        scalars={**_MOMENTS, "eps": 0.1, "weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="cocob",
        linear_in_lr=False,
        make=contrib.cocob,
        scalars={"alpha": 10.0, "eps": 0.5},
        lr=1.0,
    ),
    OptimizerRow(
        name="dog",
        make=contrib.dog,
        scalars={"relative_distance": 0.01, "eps": 0.1},
        lr=1.0,
        leafwise=False,
    ),
    OptimizerRow(
        name="dowg",
        make=contrib.dowg,
        scalars={"first_distance": 0.1, "eps": 0.1},
        lr=1.0,
        leafwise=False,
    ),
    OptimizerRow(
        name="fromage",
        linear_in_lr=False,
        make=contrib.fromage,
        scalars={"min_norm": 1.0},
        decays=True,
    ),
    OptimizerRow(
        name="galore",
        make=lambda b1, scale: contrib.galore(
            optim.adam(b1=b1, eps=_EPS), rank=2, every_steps=20, scale=scale
        ),
        scalars={"b1": 0.9, "scale": 0.5},
    ),
    OptimizerRow(
        name="madgrad",
        linear_in_lr=False,
        make=contrib.madgrad,
        scalars={"momentum": 0.9, "eps": 0.1},
        lr=0.1,
    ),
    OptimizerRow(
        name="mechanize",
        linear_in_lr=False,
        make=lambda momentum, **given: contrib.mechanize(
            optim.sgd(momentum=momentum), num_betas=3, **given
        ),
        scalars={"momentum": 0.5, "first_scale": 0.01, "weight_decay": 0.1, "eps": 0.1},
        lr=1.0,
        leafwise=False,
    ),
    OptimizerRow(
        name="momo",
        linear_in_lr=False,
        make=contrib.momo,
        scalars={"beta": 0.8, "lower_bound": 0.1, "weight_decay": 0.1},
        lr=0.5,
        leafwise=False,
        decays=True,
    ),
    OptimizerRow(
        name="momo with a bound that adapts",
        linear_in_lr=False,
        make=partial(contrib.momo, adapt_bound=True),
        scalars={"beta": 0.8, "lower_bound": 0.1},
        lr=0.2,
        leafwise=False,
    ),
    OptimizerRow(
        name="momo_adam",
        linear_in_lr=False,
        make=contrib.momo_adam,
        scalars={**_MOMENTS, "lower_bound": 0.1, "weight_decay": 0.1},
        lr=0.5,
        leafwise=False,
        decays=True,
    ),
    OptimizerRow(
        name="momo_adam with a bound that adapts",
        linear_in_lr=False,
        make=partial(contrib.momo_adam, adapt_bound=True),
        scalars=_MOMENTS,
        lr=0.2,
        leafwise=False,
    ),
    OptimizerRow(
        name="noisy_sgd",
        make=partial(contrib.noisy_sgd, jax.random.key(0)),
        scalars={"eta": 0.01, "gamma": 0.55},
        draws=True,
    ),
    OptimizerRow(
        name="novograd",
        make=contrib.novograd,
        scalars={"b1": 0.9, "b2": 0.25, "eps": 0.1, "weight_decay": 0.1},
        lr=0.01,
        decays=True,
    ),
    OptimizerRow(
        name="optimistic_adam",
        make=contrib.optimistic_adam,
        scalars={**_MOMENTS, "alpha": 0.9, "beta": 0.7},
    ),
    OptimizerRow(
        name="optimistic_gradient_descent",
        make=contrib.optimistic_gradient_descent,
        scalars={"alpha": 0.9, "beta": 0.7},
    ),
    OptimizerRow(
        name="polyak_sgd",
        make=contrib.polyak_sgd,
        scalars={"lower_bound": 0.1, "scale": 0.9, "eps": 0.1},
        lr=0.15,  # between the steps of the noisy updates, so that both sides of the min count
        leafwise=False,
    ),
    OptimizerRow(
        name="simplified_ademamix on some leaves",
        make=partial(contrib.simplified_ademamix, mask=tree.matching("*kernel")),
        scalars={**_MOMENTS, "alpha": 1.0, "weight_decay": 0.1},
        lr=0.01,
        decays=True,
    ),
    OptimizerRow(name="sm3", make=contrib.sm3, scalars={"momentum": 0.9, "eps": 0.1}, lr=0.2),
]
