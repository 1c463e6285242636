"""An MLP on a table of numbers and categories: who earns more than 50,000 dollars a year?

    python experiments/adult_mlp.py --root FOLDER      the folder that has adult/adult.data
    python experiments/adult_mlp.py                    FNN_DATA, the user's cache, or the network

UCI Adult (census of 1994): 32,561 rows to train on, of which a tenth is kept for validation, and
16,281 in a test file of its own. Categories are one-hot encoded, with a category of its own for
missing values; numbers are standardized, the two capital columns after a logarithm.

No --resume: all seeds train in one compiled program, which stores nothing before its end.

Measured: mean test accuracy 85.12 %, std 0.06 %, n = 5 (85.04 to 85.20); 12 s for the five
together on 2 cores of an Intel Xeon, compilation included, JAX 0.10.2.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np

from experiments import shared
from experiments.shared import Count, Fraction, NonNegative, Positive, Root
from fnn import activations, data, losses, metrics, models, nn, optim, schedules, tree
from fnn.data import Encoder, Table
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import make_evaluate, make_run
from fnn.types import Batch, Data, Hyper


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train an MLP on Adult, for several seeds in one program."""

    root: Root = None
    lr: Positive = 2e-3  # peak of the learning rate
    longest_warmup = 100  # of the default below
    warmup_steps: Annotated[int | None, shared.warmup(longest_warmup)] = None
    weight_decay: NonNegative = 0.1  # of kernels, per step and unit of lr
    dropout_rate: Fraction = 0.3  # fraction of the hidden units that a step sets to 0
    widths: shared.Widths = (128, 64)  # units of each hidden layer
    steps: Count = 2000  # updates of each run
    batch_size: Annotated[int, shared.between(1, 29_304)] = 256  # examples per step
    eval_every: Count = 500  # steps between evaluations on the validation part
    seeds: shared.SeveralSeeds = 5  # number of runs


def with_logarithms(table: Table) -> Table:
    """The capital columns, most of which are 0 and a few 99,999, as log(1 + x)."""
    columns = dict(table.columns)
    for name in ("capital-gain", "capital-loss"):
        columns[name] = np.log1p(columns[name])
    return Table(columns=columns).without("fnlwgt", "education")  # a weight; the same as -num


def load(root: str | None) -> tuple[Data, Batch, Encoder]:
    """Training and validation parts, the published test part, and the encoder of all three."""
    adult = data.load("adult", root)
    assert adult.test is not None
    train, valid = data.stratified_split(jax.random.key(0), adult.train.y, (0.9, 0.1))
    table, labels = with_logarithms(adult.train.x), adult.train.y
    encoder = data.fit_encoder(table.take(train))
    parts = (Batch(encoder.apply(table.take(part)), labels[part]) for part in (train, valid))
    test = Batch(encoder.apply(with_logarithms(adult.test.x)), adult.test.y)
    return Data(train=next(parts), valid=next(parts)), test, encoder


def make_recipe(config: Config) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of the hyperparameters."""
    shape = models.mlp.MLPConfig(
        widths=config.widths, out_features=2, activation=activations.gelu, norm=nn.batch_norm
    )

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=models.mlp.mlp(shape, rate=hyper["dropout_rate"]),
            loss=losses.cross_entropy,
            optimizer=optim.chain(
                optim.clip_by_global_norm(1.0),
                optim.adamw(weight_decay=hyper["weight_decay"], mask=tree.matching("*kernel")),
            ),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=hyper["warmup_steps"], total_steps=config.steps
            ),
            metrics={"accuracy": metrics.accuracy()},
        )

    return recipe


def main(config: Config) -> None:
    """Train all seeds, and print their accuracy on the test part."""
    with shared.ends_with_message(__file__):
        examples, test, encoder = load(config.root)
    recipe, hyper = make_recipe(config), config.hyper
    run = make_run(
        recipe, steps=config.steps, batch_size=config.batch_size, eval_every=config.eval_every
    )
    keys = jax.random.split(jax.random.key(1), config.seeds)
    states, history = jax.jit(jax.vmap(run, (0, None, None)))(keys, hyper, examples)
    evaluate = jax.jit(jax.vmap(make_evaluate(recipe), (0, None, None)))
    accuracy = 100 * np.asarray(evaluate(states, test, hyper)["accuracy"])
    valid = 100 * history.valid["accuracy"].mean(axis=0)
    print(
        f"{len(encoder.features)} features; validation accuracy by evaluation: {valid.round(2)} %"
    )
    print(
        f"test accuracy: mean {accuracy.mean():.2f} %, std {accuracy.std(ddof=1):.2f} %, "
        f"n = {config.seeds}: {np.sort(accuracy).round(2)}"
    )


if __name__ == "__main__":
    shared.command(main, Config)
