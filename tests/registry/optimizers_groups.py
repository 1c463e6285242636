"""Rows of parameter groups, of the transforms of gradients, and of wrappers by schedule."""

from functools import partial

import jax

from fnn import optim, schedules, tree
from tests.registry.rows import OptimizerRow, TransformRow

# Larger than the default, so that finite differences see it.
_EPS = 1e-3

OPTIMIZERS = [
    OptimizerRow(
        name="partition of momentum and adam",
        make=lambda momentum, b1: optim.partition(
            {"vectors": optim.sgd(momentum=momentum), "rest": optim.adam(b1=b1, eps=_EPS)},
            lambda path, leaf: "vectors" if leaf.ndim == 1 else "rest",
        ),
        scalars={"momentum": 0.9, "b1": 0.8},
    ),
    OptimizerRow(
        name="groups of adamw with a mask and lion",
        make=lambda weight_decay, b1: optim.groups(
            {
                "*kernel": optim.adamw(
                    weight_decay=weight_decay, mask=tree.matching("*kernel"), eps=_EPS
                ),
                "*": optim.lion(b1=b1),
            }
        ),
        scalars={"weight_decay": 0.1, "b1": 0.9},
        decays=True,
    ),
    OptimizerRow(
        name="freeze a vector and train the rest",
        make=lambda momentum: optim.freeze(optim.sgd(momentum=momentum), "bias"),
        scalars={"momentum": 0.9},
    ),
    OptimizerRow(
        name="layerwise_lr_decay of nesterov",
        make=lambda decay: optim.layerwise_lr_decay(
            optim.sgd(momentum=0.9, nesterov=True),
            decay,
            lambda path: None if path == "bias" else 3,
        ),
        scalars={"decay": 0.7},
    ),
    OptimizerRow(
        name="decoupled_decay of momentum",
        make=lambda weight_decay: optim.decoupled_decay(
            optim.sgd(momentum=0.9), weight_decay, mask=tree.matching("*kernel")
        ),
        scalars={"weight_decay": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="add_l2 in front of adam",
        make=lambda l2: optim.chain(optim.add_l2(l2), optim.adam(eps=_EPS)),
        scalars={"l2": 0.1},
        decays=True,
    ),
    OptimizerRow(
        name="reduce_on_plateau of momentum",
        make=lambda factor: optim.reduce_on_plateau(
            optim.sgd(momentum=0.5), every_steps=2, factor=factor, patience=0, rtol=0.5
        ),
        scalars={"factor": 0.9},
        leafwise=False,
    ),
    OptimizerRow(
        name="scheduled nesterov",
        make=lambda high, low: optim.scheduled(
            partial(optim.sgd, nesterov=True),
            momentum=schedules.one_cycle_momentum(high, total_steps=20, low=low),
        ),
        scalars={"high": 0.95, "low": 0.85},
    ),
]

TRANSFORMS = [
    TransformRow(name="clip_by_leaf_norm", make=optim.clip_by_leaf_norm, scalars={"max_norm": 0.5}),
    TransformRow(
        name="adaptive_clip", make=optim.adaptive_clip, scalars={"clipping": 0.3, "eps": 2.0}
    ),
    TransformRow(
        name="centralize in front of a clip",
        make=lambda max_value: optim.chain(optim.centralize(), optim.clip_by_value(max_value)),
        scalars={"max_value": 0.3},
    ),
    TransformRow(name="zero_not_finite", make=optim.zero_not_finite),
    TransformRow(
        name="add_noise",
        make=partial(optim.add_noise, jax.random.key(0)),
        scalars={"eta": 0.01, "gamma": 0.55},
        leafwise=True,
        draws=True,
    ),
]

HELPERS = [
    "optim.lr_scaling.depth_by_number",
    "optim.groups.frozen",  # trains nothing
    "optim.groups.groups_table",
]
