"""Digits on demand from a small diffusion transformer, with guidance.

    python experiments/diffusion_digits.py                   writes docs/diffusion_digits.png
    python experiments/diffusion_digits.py --guidance 3      other settings; --help lists them

1,797 pictures of 8 x 8 pixels (UCI, inside scikit-learn): 80 % train, 20 % validate. A DiT learns
to take noise away, told the time and the label; a tenth of the labels is left out, so that the same
network also knows digits in general. The samples begin as noise and are a function of it (DDIM).

Two things are measured. The label of a sample is told by the nearest training picture, a judge that
is right for 99.2 % of the validation pictures. And to tell whether pictures were learned by heart,
the mean distance of a sample to the nearest training picture of its label is divided by that of a
validation picture: below 1, samples are nearer than new digits are.

Measured (2 cores of an Intel Xeon, JAX 0.10.2, shared with other work): without guidance 95.5 % of
1,000 samples have their label, with guidance 2 99.9 %; the distance is 1.21 and 1.05 of a new
digit's; validation loss 0.248. One seed; 168,324 parameters; 4 minutes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int

from fnn import models, optim, schedules, tree
from fnn.data import load, split
from fnn.keys import fold_name
from fnn.models import DiffusionConfig, DiTConfig
from fnn.recipe import Recipe
from fnn.report.figure import INK, figure
from fnn.train import compile_cache, make_run, trained_params
from fnn.types import Batch, Data, Params, PRNGKey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = Path(__file__).parents[1] / "docs" / "diffusion_digits.png"
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train a diffusion model on the digits of scikit-learn, and draw what it makes."""

    features: int = 64
    num_layers: int = 2
    num_heads: int = 4
    patch: int = 2  # pixels of a token's side
    lr: float = 2e-3  # peak of the learning rate
    steps: int = 4000
    batch_size: int = 64
    no_label_rate: float = 0.1  # share of the labels that training leaves out
    guidance: float = 2.0  # 1 follows the labels, more exaggerates them
    sampling_steps: int = 50
    samples: int = 100  # of each label; the first ten are drawn
    seed: int = 0
    out: Path = PICTURE  # the picture to write

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "num_layers", "num_heads", "sampling_steps"):
            self._expect(name, 0 < getattr(self, name) < float("inf"), "a number above 0")
        self._expect("patch", self.patch in (1, 2, 4, 8), "a divisor of 8")
        fine = self.features > 0 and self.features % self.num_heads == 0
        self._expect("features", fine, "a multiple of --num-heads")
        self._expect(
            "batch_size", 0 < self.batch_size <= 1437, "from 1 to 80 % of the digits, 1437"
        )
        self._expect("no_label_rate", 0 <= self.no_label_rate <= 1, "a share in [0, 1]")
        self._expect("guidance", 0 <= self.guidance < float("inf"), "0 or more")
        self._expect("samples", self.samples >= 10, "10 or more")

    def _expect(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag}: expected {expected}, got {getattr(self, name)}")


class Judgement(NamedTuple):
    """What the nearest training pictures say of some pictures."""

    right: float  # share whose nearest training picture has their label
    distance: float  # mean, to the nearest training picture of their label


def parts_of(config: Config) -> DiffusionConfig:
    """The network, and what it is asked for: v, under the cosine schedule."""
    shape = DiTConfig(
        patch=config.patch,
        features=config.features,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        classes=CLASSES,
    )
    return DiffusionConfig(denoiser=models.dit(shape), no_label=CLASSES)


def make_recipe(config: Config) -> Callable[[Any], Recipe]:
    """Model, loss, optimizer and schedule as a function of what may be traced."""

    def recipe(hyper):
        return Recipe(
            model=models.diffusion(parts_of(config), rate=hyper["no_label_rate"]),
            loss=models.denoising_loss,
            optimizer=optim.ema(optim.adam(b2=0.99), decay=0.998),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=config.steps // 20, total_steps=config.steps
            ),
        )

    return recipe


def digits(seed: int) -> Data:
    """80 % of the pictures for training and 20 % for validation, in [-1, 1], with their labels."""
    x, y = load("digits").train
    x, y = jnp.asarray(x, jnp.float32).reshape(-1, 8, 8, 1) / 8 - 1, jnp.asarray(y, jnp.int32)
    train, valid = split(jax.random.key(seed), len(y), shares=(0.8, 0.2))
    return Data(
        train=Batch((x[train], y[train]), y[train]), valid=Batch((x[valid], y[valid]), y[valid])
    )


def make_sample(config: Config) -> Callable[[Params, Any, Any, PRNGKey], Array]:
    """`sample(params, labels, guidance, key)`: a digit for each label."""
    parts = parts_of(config)

    def sample(params, labels, guidance, key):
        denoise = models.denoise_with(
            parts,
            params,
            labels=labels,
            guidance=guidance,
            clean=partial(jnp.clip, min=-1, max=1),
        )
        noise = jax.random.normal(key, (len(labels), 8, 8, 1))
        return models.ddim(denoise, noise, schedule=parts.schedule, steps=config.sampling_steps)

    return sample


def judge(x: Float[Array, "n 8 8 1"], y: Int[Array, " n"], train: tuple[Array, Array]) -> Judgement:
    """What the nearest training pictures say of pictures x with labels y."""
    squares = np.square(np.asarray(x)[:, None] - np.asarray(train[0])[None]).sum(axis=(2, 3, 4))
    same = np.asarray(y)[:, None] == np.asarray(train[1])[None]
    right = np.take_along_axis(same, squares.argmin(axis=1)[:, None], axis=1).mean()
    own = np.sqrt(np.where(same, squares, np.inf).min(axis=1))
    return Judgement(float(right), float(own.mean()))


def draw(real: Any, samples: Any, guidance: float) -> "Figure":
    """Ten digits of each label: real ones on the left, samples on the right."""
    whole = figure(9.0, 4.6)
    titles = ("training pictures", f"samples by their label, guidance {guidance:g}")
    for axes, pictures, title in zip(whole.subplots(1, 2), (real, samples), titles, strict=True):
        tiles = np.pad(pictures.reshape(10, 10, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)), "minimum")
        axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(100, 100), cmap="gray_r", vmin=-1, vmax=1)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        axes.set_axis_off()
    return whole


def main(config: Config) -> None:
    """Train, sample with and without guidance, judge, and draw."""
    start = time.monotonic()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    recipe, data, key = make_recipe(config), digits(config.seed), jax.random.key(config.seed)
    hyper = {"lr": config.lr, "no_label_rate": config.no_label_rate}
    state, history = jax.jit(make_run(recipe, steps=config.steps, batch_size=config.batch_size))(
        key, hyper, data
    )
    params = trained_params(recipe, state, hyper)
    print(f"{tree.count(params):,} parameters, {time.monotonic() - start:.0f} s")
    print(f"validation loss {float(history.valid['loss'][-1]):.4f} (v, pixels in [-1, 1])")

    (x, y), (new_x, new_y) = data.train[0], data.valid[0]
    fresh = judge(new_x, new_y, (x, y))
    print(f"validation pictures: {100 * fresh.right:.1f} % nearest to their label")
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
    print(f"picture: {config.out} ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    compile_cache()
    main(tyro.cli(Config))
