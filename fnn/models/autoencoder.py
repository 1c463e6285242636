"""The autoencoder: an MLP to a code and an MLP back. B batch, I inputs, C code features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from fnn import nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.expect import in_layer, within
from fnn.keys import fold_name_or_none
from fnn.models._common import expect_features, stochastic
from fnn.models.mlp import MLPConfig, mlp
from fnn.nn._children import init_child
from fnn.types import Model, Params, PRNGKey, Scalar

__all__ = ["AutoencoderConfig", "autoencoder", "decode", "encode"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Shapes and layers of an autoencoder."""

    widths: tuple[int, ...] = (128,)  # of the encoder's hidden layers; the decoder's, reversed
    code_features: int  # C
    activation: nn.Layer = relu
    norm: Callable[[], Model] | None = None  # without running statistics, such as layer_norm


@within(rate="[0, 1]")
def autoencoder(config: AutoencoderConfig, *, rate: Scalar = 0.0) -> Model:
    """An encoder and a decoder, trained to reconstruct x.

        code = encoder(x),   y = decoder(code)

    Args:
      config: shapes and layers.
      rate: dropout rate after each activation; may be traced.

    Apply takes x (B, I) and returns (B, I); the targets are x. Parameters: {'encoder', 'decoder'},
    each those of an `mlp`; see `encode` and `decode`.
    Raises: ValueError in init for x of another shape.
    Source: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks.
      Deviates: trained end to end, without layer-wise pretraining.

    >>> model = autoencoder(AutoencoderConfig(widths=(8,), code_features=2))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> model.apply(params, state, jnp.ones((3, 6)))[0].shape
    (3, 6)
    """

    def init(key: PRNGKey, x: Any) -> Params:
        return init_params(config, key, x, config.code_features, config.code_features)

    def forward(params: Params, x: Any, key: PRNGKey | None, train: bool) -> Array:
        keys = (fold_name_or_none(key, name) for name in ("encoder", "decoder"))
        code = encode(config, params, x, rate=rate, key=next(keys), train=train)
        return decode(config, params, code, rate=rate, key=next(keys), train=train)

    return stochastic(init, forward)


@within(rate="[0, 1]")
def encode(
    config: AutoencoderConfig,
    params: Params,
    x: Float[Array, "b inputs"],
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b code"]:
    """The codes (B, C) of x (B, I), with the parameters of an `autoencoder`.

    >>> config = AutoencoderConfig(widths=(8,), code_features=2)
    >>> params, _ = autoencoder(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> encode(config, params, jnp.ones((3, 6))).shape
    (3, 2)
    """
    return _apply(config, "encoder", params, x, rate, key, train)


@within(rate="[0, 1]")
def decode(
    config: AutoencoderConfig,
    params: Params,
    code: Float[Array, "b code"],
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b inputs"]:
    """The reconstructions (B, I) of codes (B, C), with the parameters of an `autoencoder`.

    >>> config = AutoencoderConfig(widths=(8,), code_features=2)
    >>> params, _ = autoencoder(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> decode(config, params, jnp.ones((3, 2))).shape
    (3, 6)
    """
    return _apply(config, "decoder", params, code, rate, key, train)


def init_params(
    config: AutoencoderConfig, key: PRNGKey, x: Any, out_features: int, code_features: int
) -> Params:
    """Parameters of an encoder from x to `out_features`, and of a decoder from a code back."""
    expect_features("autoencoder", x)
    code = jax.ShapeDtypeStruct((x.shape[0], code_features), x.dtype)
    sizes = {"encoder": (x, out_features), "decoder": (code, x.shape[1])}
    return {
        name: init_child(_mlp(config, name, features), (name,), key, given)[0]
        for name, (given, features) in sizes.items()
    }


def _mlp(config: AutoencoderConfig, name: str, out_features: int, rate: Scalar = 0.0) -> Model:
    shape = MLPConfig(
        widths=config.widths if name == "encoder" else config.widths[::-1],
        out_features=out_features,
        activation=config.activation,
        norm=config.norm,
    )
    return mlp(shape, rate=rate)


def _apply(
    config: AutoencoderConfig,
    name: str,
    params: Params,
    x: Array,
    rate: Scalar,
    key: PRNGKey | None,
    train: bool,
) -> Array:
    model = _mlp(config, name, len(params[name]["head"]["bias"]), rate)
    with in_layer((name,), x):
        return model.apply(params[name], (), x, key=key, train=train)[0]


check_exports(__name__)
