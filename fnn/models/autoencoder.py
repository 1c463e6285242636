"""The autoencoder: a narrow code between two MLPs. B batch, I inputs, C code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from fnn.activations import relu
from fnn.arguments import check_exports
from fnn.expect import in_layer, within
from fnn.keys import fold_name_or_none
from fnn.models.mlp import MLPConfig, mlp
from fnn.nn import Layer
from fnn.nn._children import init_child
from fnn.types import Model, Params, PRNGKey, Scalar

__all__ = ["AutoencoderConfig", "autoencoder", "from_code", "to_code"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What fixes the shapes and the parts of an autoencoder."""

    widths: tuple[int, ...] = (128,)  # of the encoder's hidden layers; the decoder's, reversed
    code_features: int  # C
    activation: Layer = relu
    norm: Callable[[], Model] | None = None  # without running statistics, such as layer_norm


@within(rate="[0, 1]")
def autoencoder(config: AutoencoderConfig, *, rate: Scalar = 0.0) -> Model:
    """An encoder to a code and a decoder back, trained to give x again.

        code = encoder(x),   y = decoder(code)

    Args:
      config: shapes and parts.
      rate: drop probability after each activation; may be traced.

    Apply takes x (B, I) and returns (B, I); the targets are x. `to_code` and `from_code` are its
    halves. Parameters: {'encoder', 'decoder'}, each those of an `mlp`.
    Raises: ValueError for x of another shape.
    Source: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks.
      Deviates: trained as one, without layers that are trained one by one before.

    >>> model = autoencoder(AutoencoderConfig(widths=(8,), code_features=2))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> model.apply(params, state, jnp.ones((3, 6)))[0].shape
    (3, 6)
    """

    def init(key, x):
        return halves_init(config, key, x, config.code_features, config.code_features), ()

    def apply(params, model_state, x, *, key=None, train=False):
        forward = {"rate": rate, "train": train}
        code = to_code(config, params, x, key=fold_name_or_none(key, "encoder"), **forward)
        return from_code(
            config, params, code, key=fold_name_or_none(key, "decoder"), **forward
        ), model_state

    return Model(init=init, apply=apply)


@within(rate="[0, 1]")
def to_code(
    config: AutoencoderConfig,
    params: Params,
    x: Float[Array, "b inputs"],
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b code"]:
    """The codes (B, C) of x (B, I); of an `autoencoder`'s parameters.

    >>> config = AutoencoderConfig(widths=(8,), code_features=2)
    >>> params, _ = autoencoder(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> to_code(config, params, jnp.ones((3, 6))).shape
    (3, 2)
    """
    with in_layer(("encoder",), x):
        return _half(config.widths, config, params["encoder"], x, rate, key, train)


@within(rate="[0, 1]")
def from_code(
    config: AutoencoderConfig,
    params: Params,
    code: Float[Array, "b code"],
    *,
    rate: Scalar = 0.0,
    key: PRNGKey | None = None,
    train: bool = False,
) -> Float[Array, "b inputs"]:
    """What the codes (B, C) stand for, (B, I); of an `autoencoder`'s parameters.

    >>> config = AutoencoderConfig(widths=(8,), code_features=2)
    >>> params, _ = autoencoder(config).init(jax.random.key(0), jnp.zeros((1, 6)))
    >>> from_code(config, params, jnp.ones((3, 2))).shape
    (3, 6)
    """
    with in_layer(("decoder",), code):
        return _half(config.widths[::-1], config, params["decoder"], code, rate, key, train)


def halves_init(
    config: AutoencoderConfig, key: PRNGKey, x: Any, out_features: int, code_features: int
) -> Params:
    """Parameters {'encoder', 'decoder'}: from x to `out_features`, from a code to what x has.

    >>> config = AutoencoderConfig(widths=(8,), code_features=2)
    >>> params = halves_init(config, jax.random.key(0), jnp.zeros((1, 6)), 4, 2)
    >>> params['encoder']['head']['bias'].shape, params['decoder']['head']['bias'].shape
    ((4,), (6,))
    """
    if len(x.shape) != 2:
        raise ValueError(
            f"autoencoder: expected x of shape (batch, features), got {x.shape}; lay each example "
            "out in one axis"
        )
    encoder = _mlp(config, config.widths, out_features)
    code = jax.ShapeDtypeStruct((x.shape[0], code_features), x.dtype)
    decoder = _mlp(config, config.widths[::-1], x.shape[1])
    return {
        "encoder": init_child(encoder, ("encoder",), key, x)[0],
        "decoder": init_child(decoder, ("decoder",), key, code)[0],
    }


def _mlp(
    config: AutoencoderConfig, widths: tuple[int, ...], out_features: int, rate: Scalar = 0.0
) -> Model:
    shape = MLPConfig(
        widths=widths, out_features=out_features, activation=config.activation, norm=config.norm
    )
    return mlp(shape, rate=rate)


def _half(
    widths: tuple[int, ...],
    config: AutoencoderConfig,
    params: Params,
    x: Array,
    rate: Scalar,
    key: PRNGKey | None,
    train: bool,
) -> Array:
    model = _mlp(config, widths, params["head"]["bias"].shape[0], rate)
    return model.apply(params, (), x, key=key, train=train)[0]


check_exports(__name__)
