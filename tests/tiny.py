"""A problem small enough for every test of training: a curved boundary between two classes."""

import jax
import numpy as np

from fnn import losses, metrics, models, nn, optim, schedules, tree
from fnn.activations import tanh
from fnn.recipe import Recipe
from fnn.types import Batch, Data

KEY = jax.random.key(0)
HYPER = {"lr": 0.02, "weight_decay": 0.01, "warmup_steps": 5.0, "rate": 0.1}
STEPS, BATCH, EVERY = 22, 16, 5  # the last evaluation interval is a short one


def recipe(hyper):
    """Everything that a step can contain: norm with state, dropout, clip, decay, warm-up."""
    config = models.mlp.MLPConfig(widths=(8,), out_features=2, activation=tanh, norm=nn.batch_norm)
    return Recipe(
        model=models.mlp.mlp(config, rate=hyper["rate"]),
        loss=losses.cross_entropy,
        optimizer=optim.chain(
            optim.clip_by_global_norm(1.0),
            optim.adamw(weight_decay=hyper["weight_decay"], mask=tree.matching("*kernel")),
        ),
        schedule=schedules.warmup_cosine(
            hyper["lr"], warmup_steps=hyper["warmup_steps"], total_steps=STEPS
        ),
        metrics={"accuracy": metrics.accuracy()},
    )


def examples(n: int, seed: int) -> Batch:
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return Batch(x, (x[:, 0] * x[:, 1] > 0).astype(np.int32))


DATA = Data(train=examples(50, 0), valid=examples(21, 1))


def assert_same_bits(a, b):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=tree.path_of(path))
