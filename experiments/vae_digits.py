"""A variational autoencoder of digits, with a bound on their exact likelihood.

    python experiments/vae_digits.py                  writes docs/vae_digits.png
    python experiments/vae_digits.py --latent 2       other settings; --help lists them

1,797 images of 8 x 8 pixels (UCI, inside scikit-learn). A pixel counts the black ones among the 16
of a 4 x 4 block of the scan, from 0 to 16: a binomial likelihood, so that the bound is one on
log p(x), in nats per image. 80 % train, 20 % validate. The validation loss of training uses the
mean of the posterior; the reported bound draws from it, and the bound of more draws is tighter
(Burda et al. 2016, arXiv:1509.00519, equation 8).

No --resume: the training is one compiled program, which stores nothing before its end.

Measured (2 cores of an Intel Xeon, JAX 0.10.2, shared with other work): log p(x) of a validation
image is at least -93.1 nats with one draw and -86.9 with 500, mean of n = 359 (training: -76.0
and -73.6), one seed; 100 s, of which 29 s of the processor's time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import shared
from experiments.shared import Count, NonNegative, Positive
from fnn import activations, losses, models, optim, schedules
from fnn.data import load, split
from fnn.keys import fold_name
from fnn.models.vae import VAEConfig
from fnn.recipe import Recipe, RecipeFunction
from fnn.report.figure import INK, figure
from fnn.train import make_run, trained_params
from fnn.types import Batch, Data, Hyper, Params, PRNGKey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = Path(__file__).parents[1] / "docs" / "vae_digits.png"
LEVELS = 16  # of a pixel, and 0


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train a VAE on the digits of scikit-learn, and draw samples."""

    widths: shared.Widths = (256, 256)  # units of the encoder's layers; reversed in the decoder
    latent: Count = 12  # dimensions of the latent space
    beta: NonNegative = 1.0  # weight of the KL divergence; 1 gives the bound
    lr: Positive = 1e-3  # peak of the learning rate
    weight_decay: NonNegative = 0.1  # of all parameters, per step and unit of lr
    steps: Count = 6000  # updates
    batch_size: Annotated[int, shared.between(1, 1437)] = 128  # examples per step
    draws: Count = 500  # samples of the posterior per image, for the tighter bound
    seed: int = 0  # of the split, the initial weights, the order of the data and the draws
    out: Path = FIGURE  # file of the figure


def binomial_nll(logits: Float[Array, "b i"], x: Float[Array, "b i"]) -> Float[Array, "b i"]:
    """Negative log-likelihood of 16 x black pixels among 16, in nats."""
    k, n = LEVELS * x, jnp.float32(LEVELS)
    ways = jax.lax.lgamma(n + 1) - jax.lax.lgamma(k + 1) - jax.lax.lgamma(n - k + 1)
    return n * losses.binary_cross_entropy(logits, x) - ways


def make_recipe(config: Config) -> RecipeFunction:
    """Model, loss, optimizer and schedule as a function of the hyperparameters."""

    def recipe(hyper: Hyper) -> Recipe:
        return Recipe(
            model=models.vae.vae(shape_of(config)),
            loss=partial(models.vae.negative_elbo, beta=hyper["beta"], nll=binomial_nll),
            optimizer=optim.ema(optim.adamw(weight_decay=hyper["weight_decay"]), decay=0.995),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=config.steps // 20, total_steps=config.steps
            ),
        )

    return recipe


def shape_of(config: Config) -> VAEConfig:
    """The shapes and parts of the network."""
    return VAEConfig(
        widths=config.widths, latent_features=config.latent, activation=activations.gelu
    )


def digits(seed: int) -> Data:
    """80 % of the images for training and 20 % for validation, as fractions of black."""
    x = jnp.asarray(load("digits").train.x, jnp.float32).reshape(-1, 64) / LEVELS
    train, valid = split(jax.random.key(seed), len(x), fractions=(0.8, 0.2))
    return Data(train=Batch(x[train], x[train]), valid=Batch(x[valid], x[valid]))


def make_bounds(config: Config) -> Callable[[Params, PRNGKey, Any], tuple[Array, Array]]:
    """`bounds(params, key, x)`: lower bounds of log p(x) in nats, from 1 draw and from many."""
    model = models.vae.vae(shape_of(config))

    def log_weights(params: Params, x: Array, key: PRNGKey) -> Float[Array, " b"]:
        """log p(x, z) - log q(z | x) for one z of each x."""
        mean, log_var = models.vae.vae_encode(shape_of(config), params, x)
        z = models.vae.reparameterize(key, mean, log_var)
        e2 = jnp.square(z - mean) * jnp.exp(-log_var)
        prior_less_posterior = 0.5 * (e2 + log_var - jnp.square(z)).sum(axis=1)
        likelihood = binomial_nll(models.vae.vae_decode(shape_of(config), params, z), x).sum(axis=1)
        return prior_less_posterior - likelihood

    def bounds(params: Params, key: PRNGKey, x: Array) -> tuple[Array, Array]:
        keys = jax.random.split(fold_name(key, "draws"), config.draws)
        output, _ = model.apply(params, (), x, key=fold_name(key, "one"), train=True)
        one = -models.vae.negative_elbo(output, x, nll=binomial_nll)
        many = jax.lax.map(partial(log_weights, params, x), keys)  # (draws, B)
        return one, jax.nn.logsumexp(many, axis=0) - jnp.log(jnp.float32(config.draws))

    return bounds


def draw(originals: Any, again: Any, samples: Any) -> "Figure":
    """Images and their reconstructions on the left, samples on the right."""
    whole = figure(9.0, 5.4)
    left, right = whole.subplots(1, 2)
    pairs = np.concatenate([rows(originals), rows(again)], axis=1)  # (n, 20, 100)
    apart = np.pad(pairs, ((0, 0), (2, 2), (0, 0)))
    show(
        left,
        apart.reshape(-1, 100),
        f"{len(originals)} validation digits and their reconstructions",
    )
    show(right, rows(samples).reshape(-1, 100), f"{len(samples)} drawn from the prior")
    return whole


def rows(images: Any) -> Float[np.ndarray, "rows 10 100"]:
    """Ten images in each row, with a gap of two pixels between them."""
    tiles = np.pad(images.reshape(-1, 10, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    return tiles.transpose(0, 2, 1, 3).reshape(-1, 10, 100)


def show(axes: Any, pixels: Any, title: str) -> None:
    """Shows fractions of black in shades of gray."""
    axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_axis_off()


def main(config: Config) -> None:
    """Train, bound the likelihood of both parts, and draw."""
    start = time.monotonic()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    recipe, data, key = make_recipe(config), digits(config.seed), jax.random.key(config.seed)
    hyper = config.hyper
    run = jax.jit(make_run(recipe, steps=config.steps, batch_size=config.batch_size))
    state, _ = run(key, hyper, data)
    params = trained_params(recipe, state, hyper)
    bounds = jax.jit(make_bounds(config))
    for name, (x, _) in (("train", data.train), ("valid", data.valid)):
        one, many = bounds(params, fold_name(key, name), x)
        print(
            f"{name}: log p(x) >= {one.mean():.2f} nats with 1 draw, {many.mean():.2f} with "
            f"{config.draws}, mean of {len(x):,} images"
        )
    shape, unseen = shape_of(config), data.valid[0][:50]
    again = models.vae.vae_decode(shape, params, models.vae.vae_encode(shape, params, unseen)[0])
    samples = models.vae.vae_sample(shape, params, fold_name(key, "sample"), 120)
    shown = (activations.sigmoid(logits) for logits in (again, samples))
    draw(np.asarray(unseen), *map(np.asarray, shown)).savefig(config.out, dpi=120)
    print(f"figure: {config.out} ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    shared.command(main, Config)
