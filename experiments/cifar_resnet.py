"""CIFAR-10 by a residual network, on images that are shifted, flipped and cut out at random.

    python experiments/cifar_resnet.py gpu               ResNet-18 on all images, 30 epochs
    python experiments/cifar_resnet.py cpu               a narrow one of 8 layers, 300 steps
    python experiments/cifar_resnet.py gpu --help        lists all settings
    python experiments/cifar_resnet.py cpu --resume RUN  resumes an interrupted run

The data lie in --root, FNN_DATA or the user's cache, or are fetched. One of fifty images of the
training part validates. The test part is evaluated once, with the weights of the last step: the
probabilities of an image are the mean over the image and its mirror image.

Measured (2 cores of an Intel Xeon, shared with other work, JAX 0.10.2): `cpu`, 300 steps of 64
images: test accuracy 49.8 %, n = 1, in 223 s; chance is 10 %. `gpu` is configured for 94 % or more,
which this recipe is known to reach elsewhere, and has not been run yet.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from experiments import shared
from experiments.shared import Count, Fraction, NonNegative, Positive, Root, RunOptions, Widths
from fnn import data, losses, metrics, models, nn, optim, schedules, tree
from fnn.checkpoint import RunDir
from fnn.data import augment
from fnn.keys import fold_name
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import FitResult, fit
from fnn.types import Batch, Data, Hyper, Model


@dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Train a residual network on CIFAR-10, and write a report about it."""

    root: Root = None
    lr: Positive = 0.1  # peak of the learning rate
    warmup_fraction: shared.OpenFraction = 0.2  # fraction of the steps up to the peak of lr
    momentum: Fraction = 0.9  # fraction of the velocity kept in a step
    l2: NonNegative = 5e-4  # L2 penalty of the kernels
    label_smoothing: Fraction = 0.1  # fraction of a target that is spread over all classes
    norm_decay: Fraction = 0.9  # fraction of the running statistics kept in a step
    cutout: NonNegative = 0.0  # side of the square that is cut out of an image, in pixels

    depths: Widths = (1, 1, 1)  # residual blocks of each stage
    widths: Widths = (16, 32, 64)  # channels of each stage, and of the stem as the first
    padding: shared.CountOrZero = 4  # largest shift of an image, in pixels
    half: bool = False  # compute in bfloat16, with parameters in float32
    examples: Annotated[int, shared.between(500, 50_000)] = 50_000  # of the training part, to use
    steps: Count = 300  # updates
    batch_size: int = 64  # examples per step
    eval_every: Count = 100  # steps between evaluations on the validation part
    seeds: Count = 1  # number of runs, with this seed and the following ones

    def __post_init__(self) -> None:
        super().__post_init__()
        alike = len(self.depths) == len(self.widths)
        shared.expect(self, "depths", alike, "one for each of --widths, each above 0")
        fine = 0 < self.batch_size <= self.examples * 49 // 50
        shared.expect(self, "batch_size", fine, "from 1 to 98 % of --examples")


CPU = Config()
GPU = Config(
    lr=0.4,
    cutout=8.0,
    depths=(2, 2, 2, 2),
    widths=(64, 128, 256, 512),
    half=True,
    steps=2870,  # 30 epochs
    batch_size=512,
    eval_every=287,
)


def divide(config: Config, cifar: data.Dataset) -> tuple[Data, Batch]:
    """Training and validation data from the training part, and the test part; all as bytes."""
    assert cifar.test is not None
    key, (x, y) = jax.random.key(config.seed), cifar.train
    x, y = x[: config.examples], y[: config.examples]
    parts = data.stratified_split(fold_name(key, "split"), y, (0.98, 0.02))
    train, valid = (Batch(jnp.asarray(x[part]), jnp.asarray(y[part])) for part in parts)
    return Data(train=train, valid=valid), cifar.test


def make_model(config: Config, norm_decay: Any) -> Model:
    """A residual network from bytes (B, 32, 32, 3) to logits (B, 10)."""
    shape = replace(
        models.resnet.resnet18(10, stem=models.resnet.cifar_stem),
        depths=config.depths,
        widths=config.widths,
        stem_features=config.widths[0],
        norm=partial(nn.batch_norm, decay=norm_decay),
    )
    net = models.resnet.resnet(shape)
    net = nn.cast(net, jnp.bfloat16) if config.half else net
    return nn.sequential(numbers=shared.cifar_normalize, net=net)


def make_recipe(config: Config) -> RecipeFunction:
    """Model, loss, optimizer, schedule and augmentation as a function of the hyperparameters."""

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=make_model(config, hyper["norm_decay"]),
            loss=partial(losses.cross_entropy, label_smoothing=hyper["label_smoothing"]),
            optimizer=optim.chain(
                optim.add_l2(hyper["l2"], mask=tree.matching("*kernel")),
                optim.sgd(momentum=hyper["momentum"], nesterov=True),
            ),
            schedule=schedules.one_cycle(
                hyper["lr"], total_steps=config.steps, warmup_fraction=hyper["warmup_fraction"]
            ),
            metrics={"accuracy": metrics.accuracy()},
            augment=augment.per_example(
                augment.flip(),
                augment.crop(config.padding, reflect=True),
                augment.cutout(hyper["cutout"], fill=120.0),  # the mean of all bytes
            ),
        )

    return recipe


def train(
    config: Config, recipe: RecipeFunction, run: RunDir, cifar: data.Dataset
) -> tuple[float, FitResult]:
    """One seed, from its key to its report: the test accuracy, and the result of `fit`."""
    start = time.monotonic()
    examples, test = divide(config, cifar)
    result = fit(
        recipe,
        examples,
        key=jax.random.key(config.seed),
        hyper=config.hyper,
        steps=config.steps,
        batch_size=config.batch_size,
        eval_every=config.eval_every,
        store=run,
        resume=config.resume is not None,
    )
    found = shared.mirrored(recipe, result.state, test.x, config.hyper)
    accuracy = shared.report_test(
        config, run, result, test, found, title="CIFAR-10", start=start, class_names=cifar.classes
    )
    return accuracy, result


def main(config: Config) -> int:
    """Train once for each seed; returns the exit code."""
    with shared.ends_with_message(__file__):
        cifar = data.load("cifar10", config.root)
        runs = shared.open_runs(config, "cifar_resnet")
    recipe = make_recipe(config)  # the same function for all seeds: it is compiled once
    return shared.over_seeds(config, runs, lambda one, run: train(one, recipe, run, cifar))


if __name__ == "__main__":
    settings = {
        "cpu": ("A narrow network of 8 layers.", CPU),
        "gpu": ("ResNet-18, 30 epochs.", GPU),
    }
    shared.command(main, settings, resumes=True)
