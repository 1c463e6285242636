"""The defaults of Flax (0.12, Linen and NNX): lecun normal kernels, and biases of 0."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.initializers.base import Shape
from fnn.initializers.constant import zeros
from fnn.initializers.distributions import normal
from fnn.initializers.orthogonal import blockwise, orthogonal
from fnn.initializers.variance_scaling import lecun_normal
from fnn.types import PRNGKey

Arguments = dict[str, Any]


def linear() -> Arguments:
    """flax Dense, DenseGeneral, Linear, Conv and ConvTranspose: kernel lecun normal.

    >>> sorted(linear())
    ['bias_init', 'kernel_init']
    """
    return {"kernel_init": lecun_normal(), "bias_init": zeros}


conv = conv_transpose = linear


def embedding() -> Arguments:
    """flax Embed: normal with variance 1 / features.

    >>> embedding()['table_init'](jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return {"table_init": _by_features}


def _by_features(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    # Rounded before the root, for the bits of Flax.
    variance = jnp.asarray(1 / max(shape[-1], 1), at_least_float32(dtype))
    return normal(jnp.sqrt(variance))(key, shape, dtype)


def rnn() -> Arguments:
    """flax SimpleCell and GRUCell: kernel lecun normal, recurrent kernel orthogonal per gate.

    >>> sorted(rnn())
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return {**linear(), "recurrent_init": blockwise(orthogonal())}


gru = rnn


def lstm() -> Arguments:
    """flax LSTMCell and OptimizedLSTMCell: as `rnn`, without a bias of the forget gate.

    >>> lstm()['forget_bias']
    0.0
    """
    return {**rnn(), "forget_bias": 0.0}


def attention() -> Arguments:
    """flax MultiHeadDotProductAttention: all kernels lecun normal, drawn as matrices.

    >>> sorted(attention())
    ['bias_init', 'kernel_init', 'out_kernel_init']
    """
    return {**linear(), "out_kernel_init": lecun_normal()}


def layer_norm() -> Arguments:
    """flax LayerNorm, RMSNorm, and InstanceNorm with scale and bias.

    >>> layer_norm()
    {'eps': 1e-06}
    """
    return {"eps": 1e-6}


instance_norm = rms_norm = layer_norm


def batch_norm() -> Arguments:
    """flax BatchNorm, whose momentum is the decay.

    >>> batch_norm()
    {'eps': 1e-05, 'decay': 0.99}
    """
    return {"eps": 1e-5, "decay": 0.99}


def group_norm() -> Arguments:
    """flax GroupNorm.

    >>> group_norm()
    {'num_groups': 32, 'eps': 1e-06}
    """
    return {"num_groups": 32, "eps": 1e-6}
