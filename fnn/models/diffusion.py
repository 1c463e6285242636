"""Diffusion: noise is added to examples, and a model learns to take it away again.

        x_t = alpha_t x_0 + sigma_t e,   e ~ N(0, 1),   alpha_t^2 + sigma_t^2 = 1,   t in [0, 1]

At t = 0 it is the example, at t = 1 nearly noise alone. B batch; any shape of an example.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.arguments import check_exports
from fnn.dtypes import at_least_float32, indices
from fnn.expect import within
from fnn.keys import draw_normal, fold_name
from fnn.layers.dropout import keep_mask
from fnn.losses import mean_squared_error
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar, Weighted
from fnn.xla import Dim

# fmt: off
__all__ = [
    "Denoising", "DiffusionConfig", "Prediction", "ancestral", "cosine_noise", "ddim",
    "denoise_with", "denoising_loss", "diffusion", "linear_noise", "noise_prediction",
    "spread_times", "v_prediction",
]
# fmt: on

NoiseSchedule = Callable[[Any], Float[Array, "..."]]  # t -> alpha_t^2, falling from 1
Denoise = Callable[[Any, Any], Float[Array, "b ..."]]  # (x_t, t (B,)) -> estimate of x_0


def cosine_noise(t: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """alpha_t^2 = f(t) / f(0), f(t) = cos^2(pi/2 (t + s) / (1 + s)), s = 0.008; at least 1e-5.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17. Deviates: a floor of alpha^2 in
      the place of a ceiling on the noise of a step, which depends on their number.

    >>> cosine_noise(jnp.float32(0.0)).item(), f"{cosine_noise(jnp.float32(1.0)):.0e}"
    (1.0, '1e-05')
    """
    s, quarter = 0.008, math.pi / 2
    share = jnp.cos(quarter * (t + s) / (1 + s)) / math.cos(quarter * s / (1 + s))
    return jnp.clip(jnp.square(share), 1e-5, 1)


def linear_noise(t: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """alpha_t^2 = exp(-(0.1 t + 9.95 t^2)): DDPM's, whose noise of a step grows linearly with t.

    Source: Ho et al. 2020, arXiv:2006.11239, section 4, in the limit of many steps, Song et al.
      2021, arXiv:2011.13456, equation 33.

    >>> f"{linear_noise(jnp.float32(1.0)):.1e}"
    '4.3e-05'
    """
    return jnp.exp(-(0.1 * t + 9.95 * jnp.square(t)))


class Prediction(NamedTuple):
    """What the network is asked for, and how an estimate of x_0 follows from it.

    `target(x_0, e, alpha, sigma)` and `clean(x_t, output, alpha, sigma) -> x_0`.
    """

    target: Callable[[Any, Any, Any, Any], Array]
    clean: Callable[[Any, Any, Any, Any], Array]


# The noise: Ho et al. 2020, arXiv:2006.11239, equation 14.
noise_prediction = Prediction(
    target=lambda x, noise, alpha, sigma: noise,
    clean=lambda x, output, alpha, sigma: (x - sigma * output) / alpha,
)
# v = alpha e - sigma x_0: Salimans & Ho 2022, arXiv:2202.00512, appendix D. At t near 1 the noise
# says nothing of x_0, and v does.
v_prediction = Prediction(
    target=lambda x, noise, alpha, sigma: alpha * noise - sigma * x,
    clean=lambda x, output, alpha, sigma: alpha * x - sigma * output,
)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What fixes the parts of a diffusion model."""

    denoiser: Model  # of (x_t, t (B,)), or of (x_t, t, labels (B,)); its output is like x_t
    schedule: NoiseSchedule = cosine_noise
    prediction: Prediction = v_prediction
    no_label: int | None = None  # stands in for a label that is left out; None without labels


class Denoising(NamedTuple):
    """What the network says of noisy examples and what would be right; `denoising_loss`."""

    output: Float[Array, "b ..."]
    target: Float[Array, "b ..."]


@within(rate="[0, 1]")
def diffusion(config: DiffusionConfig, *, rate: Scalar = 0.0) -> Model:
    """Noise of a random strength on each example, and what the denoiser says of it.

    With train=True, times, noise and the labels that are left out come from the key. Otherwise
    they come from a fixed one, so that an evaluation gives the same twice; which noise an example
    gets depends on its place in the batch.

    Args:
      config: the denoiser, such as `dit(DiTConfig(...))`, and the parts.
      rate: share of the labels that are left out in training, for guidance; may be traced.

    Apply takes x (B, ...), or the pair (x, labels (B,)) where the config has `no_label`, and
    returns a Denoising. To sample, see `denoise_with`.
    Parameters: the denoiser's.
    Raises: ValueError for train=True without a key, and for labels without `no_label`.
    Source: Ho et al. 2020, arXiv:2006.11239, Algorithm 1. Deviates: times are in [0, 1], and those
      of a batch are spread evenly from a random start (Kingma et al. 2021, arXiv:2107.00630,
      appendix I.1), which makes the loss less noisy.

    >>> from fnn.nn import lift
    >>> model = diffusion(DiffusionConfig(denoiser=lift(lambda inputs: inputs[0])))
    >>> x = jnp.ones((4, 2, 2, 1))
    >>> output, _ = model.apply({}, (), x, key=jax.random.key(0), train=True)
    >>> output.target.shape
    (4, 2, 2, 1)
    """

    def init(key, x):
        x, labels = _split("diffusion", config, x)
        times = jax.ShapeDtypeStruct(x.shape[:1], x.dtype)
        return config.denoiser.init(key, _inputs(x, times, labels))

    def apply(params, model_state, x, *, key=None, train=False):
        x, labels = _split("diffusion", config, x)
        if train and key is None:
            raise ValueError(
                "diffusion: expected a key with train=True, got None; pass key= to the model's "
                "apply"
            )
        draws = key if train else jax.random.key(0)
        t = spread_times(fold_name(draws, "times"), x.shape[0], at_least_float32(x))
        noise = draw_normal(fold_name(draws, "noise"), x.shape, x.dtype)
        if config.no_label is not None and train:
            share = jnp.asarray(rate, jnp.float32)
            left_out = keep_mask(fold_name(draws, "labels"), share, labels.shape)
            labels = jnp.where(left_out, config.no_label, indices(labels))
        alpha, sigma = _alpha_sigma(config.schedule, t, x)
        inputs = _inputs(alpha * x + sigma * noise, t.astype(x.dtype), labels)
        output, model_state = config.denoiser.apply(
            params, model_state, inputs, key=key, train=train
        )
        return Denoising(output, config.prediction.target(x, noise, alpha, sigma)), model_state

    return Model(init=init, apply=apply)


def denoising_loss(predictions: Denoising, targets: Any) -> Float[Array, " b"]:
    """The loss of a `diffusion`: mean squared error of what the network is asked for.

    Args:
      predictions: of the model, which knows what would have been right.
      targets: not looked at; what the data has there, with the batch axis first.

    Returns: (B,), at least 0. 1 for a network that says 0 of examples of mean 0 and variance 1.
    Source: Ho et al. 2020, arXiv:2006.11239, equation 14.

    >>> denoising_loss(Denoising(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]])), None).tolist()
    [5.0]
    """
    losses = mean_squared_error(predictions.output, predictions.target)
    assert not isinstance(losses, Weighted)  # which is of masked losses alone
    return losses


def denoise_with(
    config: DiffusionConfig,
    params: Params,
    model_state: ModelState = (),
    *,
    labels: Any = None,
    guidance: Scalar = 1.0,
    clean: Callable[[Any], Any] = lambda x: x,
) -> Denoise:
    """The estimate of x_0 that a trained model makes, for the samplers.

        x_0 = no + guidance (with - no),   the estimates with the labels and without

    Args:
      labels: (B,); None for a model without, or to sample without.
      guidance: 1 follows the labels, more exaggerates them; may be traced. A plain 1 asks once.
      clean: applied to the estimate, such as `partial(jnp.clip, min=-1, max=1)` for pixels.

    Returns: `(x_t, t (B,)) -> x_0`.
    Source: Ho & Salimans 2022, arXiv:2207.12598, section 3.2, with guidance = 1 + w. Guiding the
      estimates of x_0 is guiding the noise: each is linear in the other.

    >>> from fnn.nn import lift
    >>> config = DiffusionConfig(denoiser=lift(lambda inputs: 0 * inputs[0]))
    >>> denoise_with(config, {})(jnp.ones((1, 2)), jnp.zeros(1)).tolist()
    [[1.0, 1.0]]
    """

    def estimate(x: Array, t: Array, labels: Any) -> Array:
        alpha, sigma = _alpha_sigma(config.schedule, t, x)
        output, _ = config.denoiser.apply(params, model_state, _inputs(x, t, labels))
        return config.prediction.clean(x, output, alpha, sigma)

    def denoise(x: Array, t: Array) -> Array:
        if config.no_label is None:
            return clean(estimate(x, t, None))
        nothing = jnp.full(x.shape[0], config.no_label, jnp.int32)
        if labels is None:
            return clean(estimate(x, t, nothing))
        known = jnp.asarray(labels, jnp.int32)
        if isinstance(guidance, (int, float)) and guidance == 1:
            return clean(estimate(x, t, known))
        twice = (jnp.concatenate(pair) for pair in ((x, x), (t, t), (known, nothing)))
        with_label, without = jnp.split(estimate(*twice), 2)
        return clean(without + jnp.asarray(guidance, x.dtype) * (with_label - without))

    return denoise


def ddim(
    denoise: Denoise, x: Float[Array, "b ..."], *, schedule: NoiseSchedule, steps: int
) -> Float[Array, "b ..."]:
    """Samples without noise on the way: each is a function of the noise that it begins with.

        e = (x_t - alpha_t x_0) / sigma_t,   x_s = alpha_s x_0 + sigma_s e,   x_0 = denoise(x_t, t)

    from t = 1 to 0 in even steps.

    Args:
      denoise: such as `denoise_with(config, params)`.
      x: the noise to begin with, normal, of the shape of the samples.
      schedule: the one that the model was trained with.
      steps: at least 1; 20 to 100 are usual.

    Returns: of the shape of x.
    Raises: ValueError for steps below 1.
    Source: Song et al. 2021, arXiv:2010.02502, equation 12 with sigma = 0.

    >>> three = lambda x, t: jnp.full_like(x, 3)
    >>> ddim(three, jnp.ones((1, 2)), schedule=cosine_noise, steps=4).tolist()
    [[3.0, 3.0]]
    """

    def move(x: Array, times: tuple[Array, Array]) -> tuple[Array, None]:
        (alpha, sigma), (alpha_s, sigma_s) = (_alpha_sigma(schedule, t, x) for t in times)
        clean = denoise(x, _everywhere(times[0], x))
        return alpha_s * clean + sigma_s * (x - alpha * clean) / sigma, None

    return jax.lax.scan(move, x, _legs("ddim", steps, x))[0]


def ancestral(
    denoise: Denoise,
    x: Float[Array, "b ..."],
    key: PRNGKey,
    *,
    schedule: NoiseSchedule,
    steps: int,
) -> Float[Array, "b ..."]:
    """DDPM's samples: each step draws from the posterior q(x_s | x_t, x_0).

        x_s ~ N((r sigma_s^2 x_t + alpha_s b x_0) / sigma_t^2,  b sigma_s^2 / sigma_t^2),
        r = alpha_t / alpha_s,   b = sigma_t^2 - r^2 sigma_s^2,   x_0 = denoise(x_t, t)

    from t = 1 to 0 in even steps; the last adds no noise.

    Args:
      denoise, x, schedule: as for `ddim`.
      key: of the noise on the way; not that of x.
      steps: at least 1; 250 to 1,000 are usual.

    Returns: of the shape of x.
    Raises: ValueError for steps below 1.
    Source: Ho et al. 2020, arXiv:2006.11239, equation 7 and Algorithm 2 with the smaller of its
      two variances; for any times Kingma et al. 2021, arXiv:2107.00630, equation 5.

    >>> three = lambda x, t: jnp.full_like(x, 3)
    >>> ancestral(three, jnp.ones((1, 2)), jax.random.key(0), schedule=cosine_noise,
    ...           steps=4).tolist()
    [[3.0, 3.0]]
    """
    legs = _legs("ancestral", steps, x)

    def move(x: Array, leg: tuple[Array, tuple[Array, Array]]) -> tuple[Array, None]:
        i, times = leg
        (alpha, sigma), (alpha_s, sigma_s) = (_alpha_sigma(schedule, t, x) for t in times)
        ratio = alpha / alpha_s
        # b = 1 - r^2, because alpha^2 + sigma^2 = 1 at both times: no difference of near numbers.
        added = 1 - jnp.square(ratio)
        clean = denoise(x, _everywhere(times[0], x))
        mean = (ratio * jnp.square(sigma_s) * x + alpha_s * added * clean) / jnp.square(sigma)
        noise = draw_normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        return mean + jnp.sqrt(added) * sigma_s / sigma * noise, None

    return jax.lax.scan(move, x, (jnp.arange(steps), legs))[0]


def spread_times(key: PRNGKey, batch: Dim, dtype: Any = jnp.float32) -> Float[Array, " b"]:
    """(u + i / batch) mod 1 for example i, with one u in [0, 1): each uniform, together even.

    >>> jnp.diff(jnp.sort(spread_times(jax.random.key(0), 4))).round(4).tolist()
    [0.25, 0.25, 0.25]
    """
    wide = at_least_float32(dtype)
    even = jnp.arange(batch, dtype=wide) / max(batch, 1)
    return ((jax.random.uniform(key, (), wide) + even) % 1).astype(dtype)


def _alpha_sigma(schedule: NoiseSchedule, t: Array, x: Array) -> tuple[Array, Array]:
    """Both of shape (B, 1, ...) for times (B,), or of no axes for one time, in the dtype of x."""
    squared = schedule(t.astype(at_least_float32(t)))
    axes = tuple(range(squared.ndim, x.ndim if squared.ndim else 0))
    fit = lambda part: jnp.expand_dims(jnp.sqrt(part), axes).astype(x.dtype)  # noqa: E731
    return fit(squared), fit(1 - squared)


def _legs(where: str, steps: int, x: Array) -> tuple[Array, Array]:
    if steps < 1:
        raise ValueError(f"{where}: expected steps of at least 1, got {steps}; 50 is usual")
    times = jnp.linspace(1, 0, steps + 1, dtype=at_least_float32(x))
    return times[:-1], times[1:]


def _everywhere(t: Array, x: Array) -> Array:
    return jnp.broadcast_to(t.astype(x.dtype), x.shape[:1])


def _inputs(x: Any, t: Any, labels: Any) -> tuple[Any, ...]:
    return (x, t) if labels is None else (x, t, labels)


def _split(where: str, config: DiffusionConfig, x: Any) -> tuple[Any, Any]:
    """The examples, and their labels or None."""
    has_labels = isinstance(x, tuple | list)
    if has_labels != (config.no_label is not None) or (has_labels and len(x) != 2):
        wanted = "x alone" if config.no_label is None else "the pair (x, labels)"
        raise ValueError(
            f"{where}: expected {wanted}, because no_label is {config.no_label}, got "
            f"{type(x).__name__}; set no_label to the number of classes where there are labels"
        )
    return (x[0], x[1]) if has_labels else (x, None)


check_exports(__name__)
