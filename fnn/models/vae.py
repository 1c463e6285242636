"""The variational autoencoder. B batch, I inputs, L latent features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.keys import draw_normal, fold_name, key_of_noise
from fnn.losses import binary_cross_entropy
from fnn.models._common import stochastic
from fnn.models.autoencoder import AutoencoderConfig, decode, encode, init_params
from fnn.types import Model, Params, PRNGKey, Scalar, Weighted

# fmt: off
__all__ = [
    "VAEConfig", "VAEOutput", "gaussian_kl", "negative_elbo", "reparameterize",
    "unit_gaussian_nll", "vae", "vae_decode", "vae_encode", "vae_sample",
]
# fmt: on

# nll(reconstruction, targets) -> nats, of the shape of the targets or summed over any axes but the
# first: binary_cross_entropy, unit_gaussian_nll
Likelihood = Callable[[Any, Any], Float[Array, "..."] | Weighted]


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Shapes and layers of a VAE."""

    widths: tuple[int, ...] = (256,)  # of the encoder's hidden layers; the decoder's, reversed
    latent_features: int  # L
    activation: nn.Layer = relu

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """The encoder to 2 L features and the decoder from L."""
        return AutoencoderConfig(
            widths=self.widths, code_features=2 * self.latent_features, activation=self.activation
        )


class VAEOutput(NamedTuple):
    """The output of a VAE; its loss is `negative_elbo`."""

    reconstruction: Float[Array, "b inputs"]  # parameters of the likelihood, such as logits
    mean: Float[Array, "b latent"]  # of the posterior
    log_var: Float[Array, "b latent"]  # log-variance of the posterior


def vae(config: VAEConfig) -> Model:
    """An encoder to a normal distribution, a sample from it, and a decoder.

        q(z | x) = N(m, diag(s^2)),  (m, log s^2) = encoder(x)
        z = m + s e,  e ~ N(0, 1),   reconstruction = decoder(z)

    With train=True, z is sampled by reparameterization; otherwise it is the mean. An estimate of
    the ELBO needs samples: apply the model with train=True for it.

    Args:
      config: shapes and layers.

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

    def init(key: PRNGKey, x: Any) -> Params:
        latent = config.latent_features
        return init_params(config.autoencoder, key, x, 2 * latent, latent)

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> VAEOutput:
        mean, log_var = vae_encode(config, params, x)
        noise = key_of_noise("vae", 1.0, key, train)
        z = mean if noise is None else reparameterize(fold_name(noise, "latent"), mean, log_var)
        return VAEOutput(vae_decode(config, params, z), mean, log_var)

    return stochastic(init, forward)


def vae_encode(
    config: VAEConfig, params: Params, x: Float[Array, "b inputs"]
) -> tuple[Float[Array, "b latent"], Float[Array, "b latent"]]:
    """Mean and log-variance (B, L) of the posterior of x (B, I).

    >>> config = VAEConfig(widths=(8,), latent_features=2)
    >>> params, _ = vae(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> vae_encode(config, params, jnp.ones((3, 6)))[0].shape
    (3, 2)
    """
    mean, log_var = jnp.split(encode(config.autoencoder, params, x), 2, axis=-1)
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
    return decode(config.autoencoder, params, z)


def vae_sample(
    config: VAEConfig, params: Params, key: PRNGKey, samples: int
) -> Float[Array, "samples inputs"]:
    """The likelihood's parameters (samples, I) for latents drawn from the prior N(0, 1).

    >>> config = VAEConfig(widths=(8,), latent_features=2)
    >>> params, _ = vae(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> vae_sample(config, params, jax.random.key(1), 5).shape
    (5, 6)
    """
    dtype = jax.tree.leaves(params)[0].dtype
    return vae_decode(config, params, draw_normal(key, (samples, config.latent_features), dtype))


def reparameterize(
    key: PRNGKey, mean: Float[Array, "*b"], log_var: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """A differentiable sample from N(mean, exp(log_var)): mean + exp(log_var / 2) e.

    >>> reparameterize(jax.random.key(0), jnp.array([2.0]), jnp.array([-jnp.inf])).tolist()
    [2.0]
    """
    wide = at_least_float32(mean)
    std = jnp.exp(0.5 * log_var.astype(wide))
    return (mean.astype(wide) + std * jax.random.normal(key, mean.shape, wide)).astype(mean.dtype)


def gaussian_kl(
    mean: Float[Array, "*batch latent"], log_var: Float[Array, "*batch latent"]
) -> Float[Array, "*batch"]:
    """KL divergence of N(mean, diag(exp(log_var))) from the prior N(0, 1).

        KL = sum_i (m_i^2 + s_i^2 - 1 - log s_i^2) / 2

    Returns: float of shape (*batch,), in nats, at least 0; in at least float32.
    Source: Kingma & Welling 2014, arXiv:1312.6114, appendix B.

    >>> gaussian_kl(jnp.array([[2.0, 0.0]]), jnp.zeros((1, 2))).tolist()
    [2.0]
    """
    m, s = (part.astype(at_least_float32(part)) for part in (mean, log_var))
    # Unlike exp(s) - 1 - s, expm1(s) - s is at least 0 after rounding too.
    return 0.5 * (jnp.square(m) + (jnp.expm1(s) - s)).sum(axis=-1)


def unit_gaussian_nll(
    means: Float[Array, "b *features"], targets: Float[Array, "..."]
) -> Float[Array, "b *features"]:
    """Negative log-likelihood of each feature under N(mean, 1), with its constant.

    >>> f"{unit_gaussian_nll(jnp.zeros((1, 1)), jnp.zeros((1, 1))).item():.4f}"  # log(2 pi) / 2
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
      beta: weight of the KL divergence; 1 for the ELBO. May be traced.
      nll: negative log-likelihood of x by feature; the default is for pixels in [0, 1] and logits.

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
