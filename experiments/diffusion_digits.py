"""Class-conditional digits from a small diffusion transformer, with classifier-free guidance.

    python experiments/diffusion_digits.py                   writes docs/diffusion_digits.png
    python experiments/diffusion_digits.py --guidance 3      other settings; --help lists them

1,797 images of 8 x 8 pixels (UCI, inside scikit-learn): 80 % train, 20 % validate. A DiT learns to
denoise, given the time and the label; a tenth of the labels is dropped, so that the same network is
also an unconditional model. Samples are a deterministic function of their initial noise (DDIM).

Two things are measured. The label of a sample is judged by its nearest training image, which is
right for 99.2 % of the validation images. And to detect memorization, the mean distance of a sample
to the nearest training image of its label is divided by that of a validation image: below 1,
samples are nearer to the training part than new digits are.

No --resume: the training is one compiled program, which stores nothing before its end.

Measured (2 cores of an Intel Xeon, JAX 0.10.2, shared with other work): without guidance 95.5 % of
1,000 samples have their label, with guidance 2 99.9 %; the distance is 1.21 and 1.05 times that of
a new digit; validation loss 0.248. One seed; 168,324 parameters; 4 minutes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments import shared
from experiments.shared import Count, NonNegative, Positive, Probability, Static
from fnn import models, optim, schedules, tree
from fnn.data import load, split
from fnn.keys import fold_name
from fnn.models.diffusion import DiffusionConfig
from fnn.models.dit import DiTConfig
from fnn.recipe import Recipe, RecipeFunction
from fnn.report.figure import INK, figure
from fnn.train import make_run, trained_params
from fnn.types import Batch, Data, Hyper, Params, PRNGKey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = Path(__file__).parents[1] / "docs" / "diffusion_digits.png"
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train a diffusion model on the digits of scikit-learn, and draw samples."""

    features: Count = 64  # width of the blocks
    num_layers: Count = 2  # number of blocks
    num_heads: Count = 4  # attention heads of a block
    patch: int = 2  # height and width of a token, in pixels
    lr: Positive = 2e-3  # peak of the learning rate
    steps: Count = 4000  # updates
    batch_size: Annotated[int, shared.between(1, 1437)] = 64  # examples per step
    no_label_rate: Probability = 0.1  # fraction of the labels that training drops
    guidance: Static[NonNegative] = 2.0  # scale of the guidance; 1 is the conditional model itself
    sampling_steps: Count = 50  # steps of DDIM
    samples: int = 100  # per label; the figure shows the first ten
    seed: int = 0  # of the split, the initial weights, the order of the data and the noise
    out: Path = FIGURE  # file of the figure

    def __post_init__(self) -> None:
        super().__post_init__()
        shared.expect(self, "patch", self.patch in (1, 2, 4, 8), "a divisor of 8")
        fine = self.features % self.num_heads == 0
        shared.expect(self, "features", fine, "a multiple of --num-heads")
        shared.expect(self, "samples", self.samples >= 10, "10 or more")


class Judgement(NamedTuple):
    """Images compared with their nearest training images."""

    right: float  # fraction whose nearest training image has their label
    distance: float  # mean, to the nearest training image of their label


def parts_of(config: Config) -> DiffusionConfig:
    """The network, which predicts v under the cosine schedule."""
    shape = DiTConfig(
        patch_size=config.patch,
        features=config.features,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_classes=CLASSES,
    )
    return DiffusionConfig(denoiser=models.dit.dit(shape), null_label=CLASSES)


def make_recipe(config: Config) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of the hyperparameters."""

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=models.diffusion.diffusion(parts_of(config), rate=hyper["no_label_rate"]),
            loss=models.diffusion.denoising_loss,
            optimizer=optim.ema(optim.adam(b2=0.99), decay=0.998),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=config.steps // 20, total_steps=config.steps
            ),
        )

    return recipe


def digits(seed: int) -> Data:
    """80 % of the images for training and 20 % for validation, in [-1, 1], with their labels."""
    x, y = load("digits").train
    x, y = jnp.asarray(x, jnp.float32).reshape(-1, 8, 8, 1) / 8 - 1, jnp.asarray(y, jnp.int32)
    train, valid = split(jax.random.key(seed), len(y), fractions=(0.8, 0.2))
    return Data(
        train=Batch((x[train], y[train]), y[train]), valid=Batch((x[valid], y[valid]), y[valid])
    )


def make_sample(config: Config) -> Callable[[Params, Any, Any, PRNGKey], Array]:
    """`sample(params, labels, guidance, key)`: a digit for each label."""
    parts = parts_of(config)

    def sample(params: Params, labels: Array, guidance: Array, key: PRNGKey) -> Array:
        denoise = models.diffusion.denoise_with(
            parts,
            params,
            labels=labels,
            guidance=guidance,
            clean=partial(jnp.clip, min=-1, max=1),
        )
        noise = jax.random.normal(key, (len(labels), 8, 8, 1))
        return models.diffusion.ddim(
            denoise, noise, schedule=parts.schedule, steps=config.sampling_steps
        )

    return sample


def judge(x: Float[Array, "n 8 8 1"], y: Int[Array, " n"], train: tuple[Array, Array]) -> Judgement:
    """Images x with labels y, compared with their nearest training images."""
    squares = np.square(np.asarray(x)[:, None] - np.asarray(train[0])[None]).sum(axis=(2, 3, 4))
    same = np.asarray(y)[:, None] == np.asarray(train[1])[None]
    right = np.take_along_axis(same, squares.argmin(axis=1)[:, None], axis=1).mean()
    own = np.sqrt(np.where(same, squares, np.inf).min(axis=1))
    return Judgement(float(right), float(own.mean()))


def draw(real: Any, samples: Any, guidance: float) -> "Figure":
    """Ten digits of each label: real ones on the left, samples on the right."""
    whole = figure(9.0, 4.6)
    titles = ("training images", f"samples by their label, guidance {guidance:g}")
    for axes, images, title in zip(whole.subplots(1, 2), (real, samples), titles, strict=True):
        tiles = np.pad(images.reshape(10, 10, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)), "minimum")
        axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(100, 100), cmap="gray_r", vmin=-1, vmax=1)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        axes.set_axis_off()
    return whole


def main(config: Config) -> None:
    """Train, sample with and without guidance, judge, and draw."""
    start = time.monotonic()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    recipe, data, key = make_recipe(config), digits(config.seed), jax.random.key(config.seed)
    hyper = config.hyper
    state, history = jax.jit(make_run(recipe, steps=config.steps, batch_size=config.batch_size))(
        key, hyper, data
    )
    params = trained_params(recipe, state, hyper)
    print(f"{tree.count(params):,} parameters, {time.monotonic() - start:.0f} s")
    print(f"validation loss {float(history.valid['loss'][-1]):.4f} (v, pixels in [-1, 1])")

    (x, y), (new_x, new_y) = data.train[0], data.valid[0]
    fresh = judge(new_x, new_y, (x, y))
    print(f"validation images: {100 * fresh.right:.1f} % nearest to their label")
    labels = jnp.repeat(jnp.arange(CLASSES, dtype=jnp.int32), config.samples)
    sample = jax.jit(make_sample(config))
    for guidance in sorted({1.0, config.guidance}):
        made = sample(params, labels, jnp.float32(guidance), fold_name(key, "sample"))
        said = judge(made, labels, (x, y))
        print(
            f"{len(made):,} samples, guidance {guidance:g}: {100 * said.right:.1f} % nearest to "
            f"their label, distance {said.distance / fresh.distance:.2f} of a new digit's"
        )
    grid = np.asarray(made).reshape(CLASSES, config.samples, 64)[:, :10]
    real = np.stack([np.asarray(x)[np.asarray(y) == label][:10] for label in range(CLASSES)])
    draw(real, grid, config.guidance).savefig(config.out, dpi=110)
    print(f"figure: {config.out} ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    shared.command(main, Config)
