"""Rows of the first optimizers and the transforms in front of them."""

from functools import partial

from fnn import optim, tree
from tests.registry.rows import OptimizerRow, TransformRow

# Larger than the defaults, so that finite differences see them.
_EPS = 1e-3

OPTIMIZERS = [
    OptimizerRow(name="sgd", make=optim.sgd),
    OptimizerRow(name="sgd with momentum", make=optim.sgd, scalars={"momentum": 0.9}),
    OptimizerRow(
        name="sgd with nesterov",
        make=partial(optim.sgd, nesterov=True),
        scalars={"momentum": 0.8},
    ),
    OptimizerRow(name="rmsprop", make=optim.rmsprop, scalars={"decay": 0.9, "eps": _EPS}),
    OptimizerRow(name="adam", make=optim.adam, scalars={"b1": 0.9, "b2": 0.99, "eps": _EPS}),
    OptimizerRow(
        name="adamw",
        make=optim.adamw,
        scalars={"weight_decay": 0.1, "b1": 0.9, "b2": 0.99, "eps": _EPS},
        decays=True,
    ),
    OptimizerRow(
        name="adamw on some leaves",
        make=lambda weight_decay: optim.adamw(
            weight_decay=weight_decay, mask=tree.matching("*kernel")
        ),
        scalars={"weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(name="lion", make=optim.lion, scalars={"b1": 0.9, "b2": 0.99}, lr=0.01),
    OptimizerRow(
        name="lion with decay",
        make=optim.lion,
        scalars={"b1": 0.9, "b2": 0.99, "weight_decay": 0.3},
        lr=0.01,
        decays=True,
    ),
    OptimizerRow(
        name="chain of a clip by norm and momentum",
        make=lambda max_norm, momentum: optim.chain(
            optim.clip_by_global_norm(max_norm), optim.sgd(momentum=momentum)
        ),
        scalars={"max_norm": 0.5, "momentum": 0.9},
        leafwise=False,
    ),
    OptimizerRow(
        name="chain of a clip by value and adam",
        make=lambda max_value: optim.chain(optim.clip_by_value(max_value), optim.adam(eps=_EPS)),
        scalars={"max_value": 0.3},
    ),
]

TRANSFORMS = [
    TransformRow(
        name="clip_by_global_norm", make=optim.clip_by_global_norm, scalars={"max_norm": 0.5}
    ),
    TransformRow(name="clip_by_value", make=optim.clip_by_value, scalars={"max_value": 0.3}),
    TransformRow(
        name="chain of two clips",
        make=lambda max_value, max_norm: optim.chain(
            optim.clip_by_value(max_value), optim.clip_by_global_norm(max_norm)
        ),
        scalars={"max_value": 0.5, "max_norm": 1.0},
    ),
]

HELPERS = ["optim._base.elementwise", "optim._base.from_direction"]  # of the rows above
