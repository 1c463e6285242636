"""Diffusion models: noise is added to examples, and a network learns to remove it.

        x_t = alpha_t x_0 + sigma_t e,   e ~ N(0, 1),   alpha_t^2 + sigma_t^2 = 1,   t in [0, 1]

x_0 is the example, x_1 nearly pure noise. B batch; examples of any shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn._arguments import check_exports
from fnn.dtypes import at_least_float32, indices
from fnn.expect import within
from fnn.keys import draw_normal, fold_name, key_of_noise
from fnn.layers.dropout import keep_mask
from fnn.losses import mean_squared_error
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar, Weighted
from fnn.xla import Dim

# fmt: off
__all__ = [
    "Denoising", "DiffusionConfig", "Prediction", "ancestral", "cosine_noise", "ddim",
    "denoise_with", "denoising_loss", "diffusion", "linear_noise", "low_discrepancy_times",
    "noise_prediction", "v_prediction",
]
# fmt: on

NoiseSchedule = Callable[[Any], Float[Array, "..."]]  # t -> alpha_t^2, decreasing from 1
Denoise = Callable[[Any, Any], Float[Array, "b ..."]]  # (x_t, t (B,)) -> estimate of x_0


def cosine_noise(t: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """alpha_t^2 = f(t) / f(0), f(t) = cos^2(pi/2 (t + s) / (1 + s)), s = 0.008; at least 1e-5.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17. Deviates: alpha^2 is clipped; the
      paper clips the noise of a step, which depends on the number of steps.

    >>> cosine_noise(jnp.float32(0.0)).item(), f"{cosine_noise(jnp.float32(1.0)):.0e}"
    (1.0, '1e-05')
    """
    s, quarter = 0.008, math.pi / 2
    ratio = jnp.cos(quarter * (t + s) / (1 + s)) / math.cos(quarter * s / (1 + s))
    return jnp.clip(jnp.square(ratio), 1e-5, 1)


def linear_noise(t: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """alpha_t^2 = exp(-(0.1 t + 9.95 t^2)): DDPM's schedule, with noise linear in t.

    Source: Ho et al. 2020, arXiv:2006.11239, section 4, in the limit of many steps (Song et al.
      2021, arXiv:2011.13456, equation 33).

    >>> f"{linear_noise(jnp.float32(1.0)):.1e}"
    '4.3e-05'
    """
    return jnp.exp(-(0.1 * t + 9.95 * jnp.square(t)))


class Prediction(NamedTuple):
    """A prediction target: `target(x_0, e, alpha, sigma)`, and the estimate of x_0 from it.

    The estimate is `clean(x_t, output, alpha, sigma)`.
    """

    target: Callable[[Any, Any, Any, Any], Array]
    clean: Callable[[Any, Any, Any, Any], Array]


# The noise: Ho et al. 2020, arXiv:2006.11239, equation 14.
noise_prediction = Prediction(
    target=lambda x, noise, alpha, sigma: noise,
    clean=lambda x, output, alpha, sigma: (x - sigma * output) / alpha,
)
# v = alpha e - sigma x_0: Salimans & Ho 2022, arXiv:2202.00512, appendix D. Unlike the noise, it
# determines x_0 for t near 1.
v_prediction = Prediction(
    target=lambda x, noise, alpha, sigma: alpha * noise - sigma * x,
    clean=lambda x, output, alpha, sigma: alpha * x - sigma * output,
)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Network, noise schedule and prediction target of a diffusion model."""

    denoiser: Model  # (x_t, t (B,)), or (x_t, t, labels (B,)), to outputs of the shape of x_t
    schedule: NoiseSchedule = cosine_noise
    prediction: Prediction = v_prediction
    null_label: int | None = None  # replaces dropped labels; None for a model without labels


class Denoising(NamedTuple):
    """The network's outputs for noisy examples, and their targets: for `denoising_loss`."""

    output: Float[Array, "b ..."]
    target: Float[Array, "b ..."]


@within(rate="[0, 1]")
def diffusion(config: DiffusionConfig, *, rate: Scalar = 0.0) -> Model:
    """The denoiser on examples with noise at random times.

    With train=True, times, noise and dropped labels are drawn from the key. Otherwise they are
    drawn from a fixed key, so that evaluations are deterministic; an example's noise depends on its
    index in the batch.

    Args:
      config: the denoiser, such as `dit(DiTConfig(...))`, the schedule and the prediction target.
      rate: fraction of the labels dropped in training, for guidance; may be traced.

    Apply takes x (B, ...), or the pair (x, labels (B,)) if the config has a `null_label`, and
    returns a Denoising. To sample, see `denoise_with`.
    Parameters: the denoiser's.
    Raises: ValueError for train=True without a key, and for labels without `null_label`.
    Source: Ho et al. 2020, arXiv:2006.11239, Algorithm 1. Deviates: times are in [0, 1], and of low
      discrepancy within a batch (Kingma et al. 2021, arXiv:2107.00630, appendix I.1), which reduces
      the variance of the loss.

    >>> from fnn.nn import lift
    >>> model = diffusion(DiffusionConfig(denoiser=lift(lambda inputs: inputs[0])))
    >>> x = jnp.ones((4, 2, 2, 1))
    >>> output, _ = model.apply({}, (), x, key=jax.random.key(0), train=True)
    >>> output.target.shape
    (4, 2, 2, 1)
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        x, labels = _split(config, x)
        times = jax.ShapeDtypeStruct(x.shape[:1], x.dtype)
        return config.denoiser.init(key, _inputs(x, times, labels))

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Denoising, ModelState]:
        x, labels = _split(config, x)
        noise_key = key_of_noise("diffusion", 1.0, key, train)
        draws = jax.random.key(0) if noise_key is None else noise_key
        t = low_discrepancy_times(fold_name(draws, "times"), x.shape[0], at_least_float32(x))
        noise = draw_normal(fold_name(draws, "noise"), x.shape, x.dtype)
        if config.null_label is not None and train:
            fraction = jnp.asarray(rate, jnp.float32)
            dropped = keep_mask(fold_name(draws, "labels"), fraction, labels.shape)
            labels = jnp.where(dropped, config.null_label, indices(labels))
        alpha, sigma = _alpha_sigma(config.schedule, t, x)
        inputs = _inputs(alpha * x + sigma * noise, t.astype(x.dtype), labels)
        output, model_state = config.denoiser.apply(
            params, model_state, inputs, key=key, train=train
        )
        return Denoising(output, config.prediction.target(x, noise, alpha, sigma)), model_state

    return Model(init=init, apply=apply)


def denoising_loss(predictions: Denoising, targets: Any) -> Float[Array, " b"]:
    """The loss of a `diffusion`: mean squared error of the network's outputs.

    Args:
      predictions: of the model, with their own targets.
      targets: of the data; ignored.

    Returns: (B,), at least 0; about 1 for outputs of 0 and examples of mean 0 and variance 1.
    Source: Ho et al. 2020, arXiv:2006.11239, equation 14.

    >>> denoising_loss(Denoising(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]])), None).tolist()
    [5.0]
    """
    losses = mean_squared_error(predictions.output, predictions.target)
    assert not isinstance(losses, Weighted)  # only with a mask
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
    """A trained model's estimate of x_0, with classifier-free guidance: for the samplers.

        x_0 = u + guidance (c - u),   c and u the estimates with labels and with null labels

    Args:
      labels: (B,); None for a model without labels, or to sample unconditionally.
      guidance: 1 for none, more for samples closer to their labels; may be traced. A plain 1 skips
        the second estimate.
      clean: applied to the estimate, such as `partial(jnp.clip, min=-1, max=1)` for pixels.

    Returns: `(x_t, t (B,)) -> x_0`.
    Source: Ho & Salimans 2022, arXiv:2207.12598, section 3.2, with guidance = 1 + w. Theirs is of
      the noise, of which the estimate of x_0 is a linear function.

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
        if config.null_label is None:
            return clean(estimate(x, t, None))
        null = jnp.full(x.shape[0], config.null_label, jnp.int32)
        given = null if labels is None else jnp.asarray(labels, jnp.int32)
        if labels is None or (isinstance(guidance, (int, float)) and guidance == 1):
            return clean(estimate(x, t, given))
        twice = (jnp.concatenate(pair) for pair in ((x, x), (t, t), (given, null)))
        conditional, unconditional = jnp.split(estimate(*twice), 2)
        scale = jnp.asarray(guidance, x.dtype)
        return clean(unconditional + scale * (conditional - unconditional))

    return denoise


def ddim(
    denoise: Denoise, x: Float[Array, "b ..."], *, schedule: NoiseSchedule, steps: int
) -> Float[Array, "b ..."]:
    """DDIM: samples that are deterministic functions of their initial noise.

        e = (x_t - alpha_t x_0) / sigma_t,   x_s = alpha_s x_0 + sigma_s e,   x_0 = denoise(x_t, t)

    from t = 1 to 0 in equal steps.

    Args:
      denoise: such as `denoise_with(config, params)`.
      x: the initial standard normal noise, of the shape of the samples.
      schedule: that of the training.
      steps: at least 1; 20 to 100 are usual.

    Returns: of the shape of x.
    Raises: ValueError for steps below 1.
    Source: Song et al. 2021, arXiv:2010.02502, equation 12 with sigma = 0.

    >>> three = lambda x, t: jnp.full_like(x, 3)
    >>> ddim(three, jnp.ones((1, 2)), schedule=cosine_noise, steps=4).tolist()
    [[3.0, 3.0]]
    """

    def step(x: Array, times: tuple[Array, Array]) -> tuple[Array, None]:
        (alpha, sigma), (alpha_s, sigma_s) = (_alpha_sigma(schedule, t, x) for t in times)
        clean = denoise(x, _per_example(times[0], x))
        return alpha_s * clean + sigma_s * (x - alpha * clean) / sigma, None

    return jax.lax.scan(step, x, _time_pairs("ddim", steps, x))[0]


def ancestral(
    denoise: Denoise,
    x: Float[Array, "b ..."],
    key: PRNGKey,
    *,
    schedule: NoiseSchedule,
    steps: int,
) -> Float[Array, "b ..."]:
    """Ancestral sampling (DDPM): each step samples from the posterior q(x_s | x_t, x_0).

        x_s ~ N((r sigma_s^2 x_t + alpha_s b x_0) / sigma_t^2,  b sigma_s^2 / sigma_t^2),
        r = alpha_t / alpha_s,   b = sigma_t^2 - r^2 sigma_s^2,   x_0 = denoise(x_t, t)

    from t = 1 to 0 in equal steps; the last adds no noise.

    Args:
      denoise, x, schedule: as for `ddim`.
      key: of the noise of the steps; not that of x.
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

    def step(x: Array, inputs: tuple[Array, tuple[Array, Array]]) -> tuple[Array, None]:
        i, times = inputs
        (alpha, sigma), (alpha_s, sigma_s) = (_alpha_sigma(schedule, t, x) for t in times)
        ratio = alpha / alpha_s
        # b = 1 - r^2, because alpha^2 + sigma^2 = 1 at both times: avoids cancellation.
        added = 1 - jnp.square(ratio)
        clean = denoise(x, _per_example(times[0], x))
        mean = (ratio * jnp.square(sigma_s) * x + alpha_s * added * clean) / jnp.square(sigma)
        noise = draw_normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        return mean + jnp.sqrt(added) * sigma_s / sigma * noise, None

    return jax.lax.scan(step, x, (jnp.arange(steps), _time_pairs("ancestral", steps, x)))[0]


def low_discrepancy_times(key: PRNGKey, batch: Dim, dtype: Any = jnp.float32) -> Float[Array, " b"]:
    """(u + i / batch) mod 1 for example i, with one u uniform in [0, 1).

    >>> jnp.diff(jnp.sort(low_discrepancy_times(jax.random.key(0), 4))).round(4).tolist()
    [0.25, 0.25, 0.25]
    """
    wide = at_least_float32(dtype)
    offsets = jnp.arange(batch, dtype=wide) / max(batch, 1)
    return ((jax.random.uniform(key, (), wide) + offsets) % 1).astype(dtype)


def _alpha_sigma(schedule: NoiseSchedule, t: Array, x: Array) -> tuple[Array, Array]:
    """Both of shape (B, 1, ...) for times (B,), or () for one time, in the dtype of x."""
    squared = schedule(t.astype(at_least_float32(t)))
    axes = tuple(range(squared.ndim, x.ndim if squared.ndim else 0))

    def root(part: Array) -> Array:
        return jnp.expand_dims(jnp.sqrt(part), axes).astype(x.dtype)

    return root(squared), root(1 - squared)


def _time_pairs(where: str, steps: int, x: Array) -> tuple[Array, Array]:
    """The times before and after each step."""
    if steps < 1:
        raise ValueError(f"{where}: expected steps of at least 1, got {steps}; 50 is usual")
    times = jnp.linspace(1, 0, steps + 1, dtype=at_least_float32(x))
    return times[:-1], times[1:]


def _per_example(t: Array, x: Array) -> Array:
    return jnp.broadcast_to(t.astype(x.dtype), x.shape[:1])


def _inputs(x: Any, t: Any, labels: Any) -> tuple[Any, ...]:
    return (x, t) if labels is None else (x, t, labels)


def _split(config: DiffusionConfig, x: Any) -> tuple[Any, Any]:
    """The examples, and their labels or None."""
    has_labels = isinstance(x, tuple | list)
    if has_labels != (config.null_label is not None) or (has_labels and len(x) != 2):
        wanted = "x alone" if config.null_label is None else "the pair (x, labels)"
        raise ValueError(
            f"diffusion: expected {wanted}, because null_label is {config.null_label}, got "
            f"{type(x).__name__}; with labels, set null_label to the number of classes"
        )
    return (x[0], x[1]) if has_labels else (x, None)


check_exports(__name__)
