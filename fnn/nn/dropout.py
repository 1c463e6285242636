"""Dropout and noise: active for train=True only, where they need a key.

A rate (or standard deviation) may be traced; a plain 0 leaves the noise out.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from fnn import layers
from fnn.expect import within
from fnn.keys import key_of_noise
from fnn.nn._base import Layer
from fnn.nn.sequential import residual, sequential
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar

Noise = Callable[[PRNGKey, Float[Array, "..."], Scalar], Float[Array, "..."]]


@within(rate="[0, 1]")
def dropout(rate: Scalar) -> Model:
    """Dropout while training; see `layers.dropout`.

    Args:
      rate: drop probability in [0, 1]; may be traced.

    Raises: ValueError for train=True without a key.

    >>> dropout(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    return _training_only("dropout", layers.dropout, rate)


@within(rate="[0, 1]")
def spatial_dropout(rate: Scalar) -> Model:
    """Dropout of whole feature maps while training; see `layers.spatial_dropout`.

    Args:
      rate: drop probability in [0, 1]; may be traced.

    >>> spatial_dropout(0.5).apply({}, (), jnp.ones((1, 1, 2)))[0].tolist()
    [[[1.0, 1.0]]]
    """
    return _training_only("spatial_dropout", layers.spatial_dropout, rate)


@within(rate="[0, 1]")
def alpha_dropout(rate: Scalar) -> Model:
    """Dropout between selu layers while training; see `layers.alpha_dropout`.

    Args:
      rate: drop probability in [0, 1]; may be traced.

    >>> alpha_dropout(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    return _training_only("alpha_dropout", layers.alpha_dropout, rate)


@within(rate="[0, 1]")
def gaussian_dropout(rate: Scalar) -> Model:
    """Multiplicative Gaussian noise while training; see `layers.gaussian_dropout`.

    Args:
      rate: the equivalent drop probability in [0, 1]; may be traced.

    >>> gaussian_dropout(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    return _training_only("gaussian_dropout", layers.gaussian_dropout, rate)


@within(std="[0, inf)")
def gaussian_noise(std: Scalar) -> Model:
    """Additive Gaussian noise while training; see `layers.gaussian_noise`.

    Args:
      std: standard deviation in the unit of x, at least 0; may be traced.

    >>> gaussian_noise(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    return _training_only("gaussian_noise", layers.gaussian_noise, std)


@within(rate="[0, 1]")
def drop_path(rate: Scalar) -> Model:
    """Dropout of whole examples while training, for the end of a branch; see `layers.drop_path`.

    Args:
      rate: drop probability in [0, 1]; may be traced.

    >>> drop_path(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    return _training_only("drop_path", layers.drop_path, rate)


@within(rate="[0, 1]")
def stochastic_depth(layer: Layer, rate: Scalar) -> Model:
    """x + drop_path(layer(x)): a residual branch that some examples skip while training.

    Args:
      layer: the branch, which keeps the shape; its parameters and state are named 'branch'.
      rate: fraction of the examples that skip it, in [0, 1]; may be traced.

    Raises: ValueError if the layer changes the shape, and for train=True without a key.
    Source: Huang et al. 2016, arXiv:1603.09382; the deviations are those of `layers.drop_path`.

    >>> model = stochastic_depth(jnp.cos, 1.0)
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    >>> model.apply(params, state, jnp.zeros((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    >>> model.apply(params, state, jnp.zeros((1, 2)), key=jax.random.key(1), train=True)[0].tolist()
    [[0.0, 0.0]]
    """
    return residual(sequential(branch=layer, drop_path=drop_path(rate)))


def _training_only(name: str, noise: Noise, amount: Scalar) -> Model:
    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        noise_key = key_of_noise(name, amount, key, train)
        return x if noise_key is None else noise(noise_key, x, amount), model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)
