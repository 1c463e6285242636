"""Normalisation. Every variance is two-pass: exact also where the mean is large."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.tree import at_least_float32
from fnn.types import ModelState, Params, Scalar


def layer_norm_init(features: int) -> Params:
    """Parameters of `layer_norm`: {'scale': ones, 'bias': zeros}, each (features,) float32.

    >>> layer_norm_init(2)['scale'].tolist()
    [1.0, 1.0]
    """
    return {"scale": jnp.ones(features), "bias": jnp.zeros(features)}


def layer_norm(
    params: Params, x: Float[Array, "*batch features"], *, eps: Scalar = 1e-6
) -> Float[Array, "*batch features"]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each row.

    Args:
      x: (..., features); normalised over the last axis, in at least float32.
      eps: added to the variance, in the unit of x squared.

    Returns: the shape and dtype of x. A constant row gives the bias.
    Raises: ValueError if the last axis of x does not fit the parameters.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450.

    >>> layer_norm(layer_norm_init(2), jnp.array([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """
    _expect_features("layer_norm", params["scale"], x)
    wide = x.astype(at_least_float32(x))
    normalised = _normalise(wide, jnp.asarray(eps, wide.dtype))
    return _scale_and_shift(params, normalised).astype(x.dtype)


@jax.custom_vjp
def _normalise(x: Array, eps: Array) -> Array:
    return _normalise_forward(x, eps)[0]


def _normalise_forward(x: Array, eps: Array) -> tuple[Array, tuple[Array, Array]]:
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + eps)
    normalised = centred * rstd
    return normalised, (normalised, rstd)


def _normalise_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    # Written by hand to save the normalised input instead of every step of the two-pass variance:
    # on a CPU, XLA recomputes those in each consumer, at half of a small GPT's step.
    normalised, rstd = saved
    along = (g * normalised).mean(axis=-1, keepdims=True)
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - normalised * along)
    deps = -0.5 * (g * normalised * jnp.square(rstd)).sum()
    return dx, deps


_normalise.defvjp(_normalise_forward, _normalise_backward)


def batch_norm_init(features: int) -> tuple[Params, ModelState]:
    """Parameters {'scale', 'bias'} and running statistics {'mean', 'var'} of `batch_norm`.

    >>> params, state = batch_norm_init(2)
    >>> state['var'].tolist()
    [1.0, 1.0]
    """
    params = {"scale": jnp.ones(features), "bias": jnp.zeros(features)}
    return params, {"mean": jnp.zeros(features), "var": jnp.ones(features)}


def batch_norm(
    params: Params,
    state: ModelState,
    x: Float[Array, "batch *window features"],
    *,
    train: bool,
    decay: Scalar = 0.99,
    eps: Scalar = 1e-5,
) -> tuple[Float[Array, "batch *window features"], ModelState]:
    """(x - mean) / sqrt(var + eps) * scale + bias, with the statistics of each feature.

    Args:
      x: (batch, ..., features); the statistics are over all axes but the last.
      train: True uses the batch's statistics and moves the running ones; False uses the running.
      decay: share of the running statistics that a step keeps, in [0, 1].
      eps: added to the variance, in the unit of x squared.

    Returns: y of the shape and dtype of x, and the state {'mean', 'var'}, each (features,) in at
      least float32: decay * old + (1 - decay) * batch.
    Raises: ValueError if the last axis of x does not fit the parameters.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167. Deviates: the running variance is the biased
      one (as in Flax and Keras), so that training on one repeated batch and evaluating agree;
      PyTorch keeps the unbiased one, and counts decay as 1 - momentum.

    >>> params, state = batch_norm_init(1)
    >>> y, state = batch_norm(params, state, jnp.array([[1.0], [3.0]]), train=True, decay=0.5)
    >>> y.round(3).tolist(), state['mean'].tolist()
    ([[-1.0], [1.0]], [1.0])
    """
    _expect_features("batch_norm", params["scale"], x)
    wide = x.astype(at_least_float32(x))
    mean, var = state["mean"], state["var"]
    if train:
        mean, var = _moments(wide)
        state = jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new, state, {"mean": mean, "var": var}
        )
    per_feature = tuple(range(x.ndim - 1))
    gain = lax.rsqrt(var + eps)
    normalised = (wide - jnp.expand_dims(mean, per_feature)) * jnp.expand_dims(gain, per_feature)
    return _scale_and_shift(params, normalised).astype(x.dtype), state


def _moments(x: Array) -> tuple[Array, Array]:
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes)
    return mean, jnp.square(x - jnp.expand_dims(mean, axes)).mean(axis=axes)


def _scale_and_shift(params: Params, normalised: Array) -> Array:
    axes = tuple(range(normalised.ndim - 1))
    scale = params["scale"].astype(normalised.dtype)
    bias = params["bias"].astype(normalised.dtype)
    return normalised * jnp.expand_dims(scale, axes) + jnp.expand_dims(bias, axes)


def _expect_features(where: str, scale: Array, x: Array) -> None:
    if x.ndim < 2 or x.shape[-1] != scale.shape[0]:
        raise ValueError(
            f"{where}: expected x of shape (batch, ..., {scale.shape[0]}), got {x.shape}; "
            "give it the features that its parameters were made for"
        )
