"""CIFAR-10 by a residual network, on images that are shifted, flipped and cut out at random.

    python experiments/cifar_resnet.py gpu               ResNet-18 on all images, 30 epochs
    python experiments/cifar_resnet.py cpu               a narrow one of 8 layers, 300 steps
    python experiments/cifar_resnet.py gpu --help        lists all settings
    python experiments/cifar_resnet.py cpu --resume RUN  goes on with an interrupted run

The data lie in --root, FNN_DATA or the user's cache, or are fetched. One of fifty images of the
training part validates. The test part is evaluated once, with the weights of the last step: the
probabilities of an image are the mean of its own and those of its mirror image.

Measured (2 cores of an Intel Xeon, shared with other work, JAX 0.10.2): `cpu`, 300 steps of 64
images: test accuracy 49.8 %, n = 1, in 223 s; chance is 10 %. `gpu` is configured for 94 % or more,
which this recipe is known to reach elsewhere, and has not been run yet.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Num

from experiments import shared
from experiments.shared import Resume, Root, expect, over_seeds, unset
from fnn import activations, data, losses, metrics, models, nn, optim, report, schedules, tree
from fnn.checkpoint import RunDir
from fnn.data import augment
from fnn.keys import fold_name
from fnn.nn import cast, sequential
from fnn.recipe import Recipe
from fnn.train import FitResult, compile_cache, fit, trained_params
from fnn.types import Batch, Data, Model, Params

RecipeFunction = Callable[[dict[str, float]], Recipe]

# Of each channel, in the training part.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Arguments of the compiled program: other values need no new compilation."""

    lr: float = 0.1  # peak of the learning rate
    warmup_fraction: float = 0.2  # fraction of the steps up to the peak of the learning rate
    momentum: float = 0.9  # fraction of the velocity kept in a step
    l2: float = 5e-4  # L2 penalty of the kernels
    label_smoothing: float = 0.1  # fraction of a target that is spread over all classes
    norm_decay: float = 0.9  # fraction of batch norm's running statistics kept in a step
    cutout: float = 0.0  # side of the square that is cut out of an image, in pixels


@dataclass(frozen=True, kw_only=True)
class Config(Hyper):
    """Train a residual network on CIFAR-10, and write a report about it."""

    root: Root = None
    depths: tuple[int, ...] = (1, 1, 1)  # residual blocks of each stage
    widths: tuple[int, ...] = (16, 32, 64)  # channels of each stage, and of the stem as the first
    padding: int = 4  # largest shift of an image, in pixels
    half: bool = False  # compute in bfloat16, with parameters in float32
    examples: int = 50_000  # examples to use, from the beginning of the training part
    steps: int = 300  # updates
    batch_size: int = 64  # examples per step
    eval_every: int = 100  # steps between evaluations on the validation part

    seed: int = 0  # of the split, the initial weights, the order of the data and the noise
    seeds: int = 1  # number of runs, with this seed and the following ones
    out: Annotated[Path | None, unset("a new directory", "runs/cifar_resnet/<time>", Path)] = None
    resume: Resume = None

    @property
    def hyper(self) -> dict[str, float]:
        """The part that may be traced, as the recipe takes it."""
        return {field.name: getattr(self, field.name) for field in fields(Hyper)}

    def __post_init__(self) -> None:
        shared.expect_above_0(self, "lr", "steps", "eval_every", "seeds")
        shared.expect_fraction(self, "momentum", "label_smoothing", "norm_decay")
        shared.expect_0_or_more(self, "l2", "padding", "cutout")
        expect(self, "warmup_fraction", 0 < self.warmup_fraction < 1, "a fraction in (0, 1)")
        expect(self, "widths", min(self.widths, default=0) > 0, "one or more, each above 0")
        fine = len(self.depths) == len(self.widths) and min(self.depths) > 0
        expect(self, "depths", fine, "one for each of --widths, each above 0")
        expect(self, "examples", 500 <= self.examples <= 50_000, "a number from 500 to 50000")
        fine = 0 < self.batch_size <= self.examples * 49 // 50
        expect(self, "batch_size", fine, "from 1 to 98 % of --examples")
        shared.expect_seeds(self)


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


def make_model(config: Config, norm_decay: Any) -> Model:
    """Bytes (B, 32, 32, 3) to logits (B, 10)."""
    shape = replace(
        models.resnet.resnet18(10, stem=models.resnet.cifar_stem),
        depths=config.depths,
        widths=config.widths,
        stem_features=config.widths[0],
        norm=partial(nn.batch_norm, decay=norm_decay),
    )
    net = models.resnet.resnet(shape)
    return sequential(numbers=normalized, net=cast(net, jnp.bfloat16) if config.half else net)


def normalized(x: Num[Array, "n height width 3"]) -> Float[Array, "n height width 3"]:
    """Bytes to float32 of mean 0 and standard deviation 1 in each channel."""
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (MEAN, STD))
    return (x.astype(jnp.float32) / 255 - mean) / std


def make_recipe(config: Config) -> RecipeFunction:
    """Model, loss, optimizer, schedule and augmentation as a function of what may be traced."""

    def recipe(hyper):
        def loss(logits, targets):
            return losses.cross_entropy(logits, targets, label_smoothing=hyper["label_smoothing"])

        return Recipe(
            model=make_model(config, hyper["norm_decay"]),
            loss=loss,
            optimizer=optim.chain(
                optim.add_l2(hyper["l2"], mask=tree.matching("*kernel")),
                optim.nesterov(momentum=hyper["momentum"]),
            ),
            schedule=schedules.one_cycle(
                hyper["lr"], total_steps=config.steps, warmup_share=hyper["warmup_fraction"]
            ),
            metrics={"accuracy": metrics.accuracy()},
            augment=augment.per_example(
                augment.flip(),
                augment.crop(config.padding, reflect=True),
                augment.cutout(hyper["cutout"], fill=120.0),  # the mean of all bytes
            ),
        )

    return recipe


def divide(config: Config, cifar: data.Dataset) -> tuple[Data, Batch]:
    """Training and validation data from the training part, and the test part; all as bytes."""
    key, (x, y) = jax.random.key(config.seed), cifar.train
    x, y = x[: config.examples], y[: config.examples]
    parts = data.stratified_split(fold_name(key, "split"), y, (0.98, 0.02))
    train, valid = (Batch(jnp.asarray(x[part]), jnp.asarray(y[part])) for part in parts)
    assert cifar.test is not None
    return Data(train=train, valid=valid), cifar.test


def predict(
    model: Model, params: Params, model_state: Any, x: Num[np.ndarray, "n 32 32 3"]
) -> Float[Array, "n 10"]:
    """The probability of each class: the mean of the image's and of its mirror image's."""

    @jax.jit
    def of_some(x):
        both = jnp.concatenate([x, x[:, :, ::-1]])
        sure = activations.softmax(model.apply(params, model_state, both)[0])
        return sure.reshape(2, len(x), -1).mean(axis=0)

    return jnp.concatenate([of_some(jnp.asarray(x[i : i + 1000])) for i in range(0, len(x), 1000)])


def run(
    config: Config, recipe: RecipeFunction, store: RunDir, cifar: data.Dataset
) -> tuple[float, FitResult]:
    """One seed, from its key to its report.

    Returns: the fraction of the test part that is classified correctly, and the result of `fit`.
    """
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
        store=store,
        resume=config.resume is not None,
    )
    made = int(result.state.step)
    print(f"stopped at step {made} ({result.stop.value})")

    model, params = recipe(config.hyper).model, trained_params(recipe, result.state, config.hyper)
    probabilities = predict(model, params, result.state.model_state, test.x)
    wrong, total = int((np.asarray(probabilities).argmax(axis=1) != test.y).sum()), len(test.y)
    accuracy, seconds = 1 - wrong / total, time.monotonic() - start
    headline = {
        "Test accuracy": f"{100 * accuracy:.2f} %",
        "Mistakes": f"{wrong:,} in {total:,}",
        "Steps": f"{made:,}",
        "Parameters": f"{tree.count(params):,}",
        "Time": f"{seconds:.0f} s",
    }
    page = write_report(store.path, config, result, headline, test, probabilities, cifar.classes)
    mistakes = f"{wrong:,} mistake{'s' * (wrong != 1)} in {total:,}"
    print(f"test accuracy {100 * accuracy:.2f} % ({mistakes}), {seconds:.0f} s\nreport: {page}")
    return accuracy, result


def write_report(
    path: Path,
    config: Config,
    result: FitResult,
    headline: dict[str, str],
    test: Batch,
    probabilities: Float[Array, "n 10"],
    classes: tuple[str, ...],
) -> Path:
    """The curves as an image, and the report as one page, whose path is returned."""
    sure = np.asarray(probabilities)
    confusion = report.confusion.matrix(test.y, sure.argmax(axis=1), classes=10)
    report.curves.save(result.history, path / "curves.png")
    report.html.write(
        path / "report.html",
        title=f"CIFAR-10, seed {config.seed}",
        headline=headline,
        config=asdict(config),
        history=result.history,
        sections={
            "Confusion": report.confusion.table(confusion, classes),
            "Misread": report.misclassified.gallery(test.x, test.y, sure, class_names=classes),
        },
    )
    return path / "report.html"


def main(config: Config) -> int:
    """A run for each seed, and the mean of their accuracies; returns the exit code."""
    try:
        cifar = data.load("cifar10", config.root)
        stores = shared.open_runs(config, "cifar_resnet", config.out)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"cifar_resnet.py: {error}")
    recipe = make_recipe(config)  # the same function for all seeds: it is compiled once
    return over_seeds(config, stores, lambda one, store: run(one, recipe, store, cifar))


if __name__ == "__main__":
    compile_cache()
    settings = {
        "cpu": ("A narrow network of 8 layers.", Config()),
        "gpu": ("ResNet-18, 30 epochs.", GPU),
    }
    shared.start(lambda: main(tyro.extras.overridable_config_cli(settings)), resumes=True)
