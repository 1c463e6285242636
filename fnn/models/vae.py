"""The variational autoencoder. B batch, I inputs, L latent features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.activations import relu
from fnn.arguments import check_exports
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.keys import draw_normal, fold_name
from fnn.losses import binary_cross_entropy
from fnn.models.autoencoder import AutoencoderConfig, from_code, halves_init, to_code
from fnn.nn import Layer
from fnn.types import Model, Params, PRNGKey, Scalar, Weighted

# fmt: off
__all__ = [
    "VAEConfig", "VAEOutput", "gaussian_kl", "negative_elbo", "reparameterize",
    "unit_gaussian_nll", "vae", "vae_decode", "vae_encode", "vae_sample",
]
# fmt: on

# nll(reconstruction, targets) -> costs of the shape of the targets, or summed over any axes but the
# first; in nats: binary_cross_entropy, and unit_gaussian_nll
Likelihood = Callable[[Any, Any], Float[Array, "..."] | Weighted]


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """What fixes the shapes and the parts of a VAE."""

    widths: tuple[int, ...] = (256,)  # of the encoder's hidden layers; the decoder's, reversed
    latent_features: int  # L
    activation: Layer = relu

    @property
    def halves(self) -> AutoencoderConfig:
        """The encoder, which gives 2 L features, and the decoder, which takes L."""
        return AutoencoderConfig(
            widths=self.widths, code_features=2 * self.latent_features, activation=self.activation
        )


class VAEOutput(NamedTuple):
    """What a VAE says of a batch; its loss is `negative_elbo`."""

    reconstruction: Float[Array, "b inputs"]  # parameters of the likelihood, such as logits
    mean: Float[Array, "b latent"]  # of the posterior
    log_var: Float[Array, "b latent"]  # logarithm of the posterior's variance


def vae(config: VAEConfig) -> Model:
    """An encoder to a normal distribution, a draw from it, and a decoder.

        q(z | x) = N(m, diag(s^2)),  (m, log s^2) = encoder(x)
        z = m + s e,  e ~ N(0, 1),   reconstruction = decoder(z)

    With train=True z is drawn from the key, which the gradient passes through; otherwise it is the
    mean, and the reconstruction that of the likeliest code: for an estimate of the bound, which
    needs draws, apply the model with train=True.

    Args:
      config: shapes and parts.

    Apply takes x (B, I) and returns a VAEOutput. Parameters: {'encoder', 'decoder'}, each those of
    an `mlp`.
    Raises: ValueError for x of another shape, and for train=True without a key.
    Source: Kingma & Welling 2014, arXiv:1312.6114, sections 2.3 and 3.

    >>> model = vae(VAEConfig(widths=(8,), latent_features=2))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> output, _ = model.apply(params, state, jnp.ones((3, 6)), key=jax.random.key(1), train=True)
    >>> output.reconstruction.shape, output.mean.shape
    ((3, 6), (3, 2))
    """

    def init(key, x):
        latent = config.latent_features
        return halves_init(config.halves, key, x, 2 * latent, latent), ()

    def apply(params, model_state, x, *, key=None, train=False):
        mean, log_var = vae_encode(config, params, x)
        z = mean
        if train:
            if key is None:
                raise ValueError(
                    "vae: expected a key with train=True, got None; pass key= to the model's apply"
                )
            z = reparameterize(fold_name(key, "latent"), mean, log_var)
        return VAEOutput(vae_decode(config, params, z), mean, log_var), model_state

    return Model(init=init, apply=apply)


def vae_encode(
    config: VAEConfig, params: Params, x: Float[Array, "b inputs"]
) -> tuple[Float[Array, "b latent"], Float[Array, "b latent"]]:
    """Mean and log-variance (B, L) of the posterior of x (B, I).

    >>> config = VAEConfig(widths=(8,), latent_features=2)
    >>> params, _ = vae(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> vae_encode(config, params, jnp.ones((3, 6)))[0].shape
    (3, 2)
    """
    mean, log_var = jnp.split(to_code(config.halves, params, x), 2, axis=-1)
    return mean, log_var


def vae_decode(
    config: VAEConfig, params: Params, z: Float[Array, "b latent"]
) -> Float[Array, "b inputs"]:
    """The likelihood's parameters (B, I) for latents z (B, L).

    >>> config = VAEConfig(widths=(8,), latent_features=2)
    >>> params, _ = vae(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> vae_decode(config, params, jnp.ones((3, 2))).shape
    (3, 6)
    """
    return from_code(config.halves, params, z)


def vae_sample(
    config: VAEConfig, params: Params, key: PRNGKey, samples: int
) -> Float[Array, "samples inputs"]:
    """The likelihood's parameters (samples, I) for latents drawn from the prior, N(0, 1).

    >>> config = VAEConfig(widths=(8,), latent_features=2)
    >>> params, _ = vae(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> vae_sample(config, params, jax.random.key(1), 5).shape
    (5, 6)
    """
    dtype = jax.tree.leaves(params)[0].dtype
    z = draw_normal(key, (samples, config.latent_features), dtype)
    return vae_decode(config, params, z)


def reparameterize(
    key: PRNGKey, mean: Float[Array, "*b"], log_var: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """A draw from N(mean, exp(log_var)) with a gradient by both: mean + exp(log_var / 2) e.

    >>> reparameterize(jax.random.key(0), jnp.array([2.0]), jnp.array([-jnp.inf])).tolist()
    [2.0]
    """
    wide = at_least_float32(mean)
    std = jnp.exp(0.5 * log_var.astype(wide))
    return (mean.astype(wide) + std * jax.random.normal(key, mean.shape, wide)).astype(mean.dtype)


def gaussian_kl(
    mean: Float[Array, "*batch latent"], log_var: Float[Array, "*batch latent"]
) -> Float[Array, "*batch"]:
    """Divergence of N(mean, diag(exp(log_var))) from the prior N(0, 1).

        KL = sum_i (m_i^2 + s_i^2 - 1 - log s_i^2) / 2

    Returns: float of shape (*batch,), in nats, at least 0; in at least float32.
    Source: Kingma & Welling 2014, arXiv:1312.6114, appendix B.

    >>> gaussian_kl(jnp.array([[2.0, 0.0]]), jnp.zeros((1, 2))).tolist()
    [2.0]
    """
    m, s = (part.astype(at_least_float32(part)) for part in (mean, log_var))
    # expm1(s) - s is at least 0, also after rounding, where exp(s) - 1 - s is not.
    return 0.5 * (jnp.square(m) + (jnp.expm1(s) - s)).sum(axis=-1)


def unit_gaussian_nll(
    means: Float[Array, "b *features"], targets: Float[Array, "..."]
) -> Float[Array, "b *features"]:
    """Negative log-likelihood of each feature under N(mean, 1), with its constant.

    >>> f"{unit_gaussian_nll(jnp.zeros((1, 1)), jnp.zeros((1, 1))).item():.4f}"   # log(2 pi) / 2
    '0.9189'
    """
    wide = at_least_float32(means)
    half_log_two_pi = jnp.asarray(0.9189385332046727, wide)
    return 0.5 * jnp.square(means.astype(wide) - targets.astype(wide)) + half_log_two_pi


@within(beta="[0, inf)")
def negative_elbo(
    predictions: VAEOutput,
    targets: Any,
    *,
    beta: Scalar = 1.0,
    nll: Likelihood = binary_cross_entropy,
) -> Float[Array, " b"]:
    """The loss of a `vae`: an upper bound of -log p(x), in expectation over z.

        l = nll(x | z) + beta KL(q(z | x) || N(0, 1))

    Args:
      predictions: of the model, with train=True.
      targets: x, (B, I).
      beta: weight of the divergence; 1 is the bound itself. May be traced.
      nll: of x, feature by feature; for pixels in [0, 1] from logits, the default.

    Returns: (B,), in nats: sums over the features, not means.
    Source: Kingma & Welling 2014, arXiv:1312.6114, equation 10; Higgins et al. 2017 (beta).

    >>> output = VAEOutput(jnp.zeros((1, 2)), jnp.ones((1, 1)), jnp.zeros((1, 1)))
    >>> f"{negative_elbo(output, jnp.ones((1, 2)))[0]:.4f}"   # 2 log 2 + 1/2
    '1.8863'
    """
    kl = gaussian_kl(predictions.mean, predictions.log_var)
    costs = nll(predictions.reconstruction, targets)
    if isinstance(costs, Weighted):
        costs = costs.weights * costs.values
    return costs.sum(axis=tuple(range(1, costs.ndim))) + jnp.asarray(beta, kl.dtype) * kl


check_exports(__name__)
