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
    """flax Dense, DenseGeneral and Linear: kernel lecun normal.

    >>> sorted(linear())
    ['bias_init', 'kernel_init']
    """
    return {"kernel_init": lecun_normal(), "bias_init": zeros}


def conv() -> Arguments:
    """flax Conv: kernel lecun normal.

    >>> sorted(conv())
    ['bias_init', 'kernel_init']
    """
    return linear()


def conv_transpose() -> Arguments:
    """flax ConvTranspose: kernel (*window, in, out) lecun normal, by the inputs.

    >>> sorted(conv_transpose())
    ['bias_init', 'kernel_init']
    """
    return linear()


def embedding() -> Arguments:
    """flax Embed: normal with variance 1 / features.

    >>> embedding()['table_init'](jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return {"table_init": _by_features}


def _by_features(key: PRNGKey, shape: Shape, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    # Rounded before the root, as Flax does: the same bits.
    return normal(jnp.sqrt(jnp.asarray(1 / max(shape[-1], 1), at_least_float32(dtype))))(
        key, shape, dtype
    )


def rnn() -> Arguments:
    """flax SimpleCell: kernel lecun normal, recurrent kernel orthogonal.

    >>> sorted(rnn())
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return {**linear(), "recurrent_init": blockwise(orthogonal())}


def lstm() -> Arguments:
    """flax LSTMCell and OptimizedLSTMCell: as `rnn`, each gate's recurrent kernel by itself.

    Nothing is added to the forget gate.

    >>> lstm()['forget_bias']
    0.0
    """
    return {**rnn(), "forget_bias": 0.0}


def gru() -> Arguments:
    """flax GRUCell: as `rnn`, each gate's recurrent kernel by itself.

    >>> sorted(gru())
    ['bias_init', 'kernel_init', 'recurrent_init']
    """
    return rnn()


def attention() -> Arguments:
    """flax MultiHeadDotProductAttention: all kernels lecun normal, drawn as matrices.

    >>> sorted(attention())
    ['bias_init', 'kernel_init', 'out_kernel_init']
    """
    return {**linear(), "out_kernel_init": lecun_normal()}


def layer_norm() -> Arguments:
    """flax LayerNorm.

    >>> layer_norm()
    {'eps': 1e-06}
    """
    return {"eps": 1e-6}


def batch_norm() -> Arguments:
    """flax BatchNorm, whose momentum is the share of the old.

    >>> batch_norm()
    {'eps': 1e-05, 'decay': 0.99}
    """
    return {"eps": 1e-5, "decay": 0.99}


def group_norm() -> Arguments:
    """flax GroupNorm.

    >>> group_norm()
    {'groups': 32, 'eps': 1e-06}
    """
    return {"groups": 32, "eps": 1e-6}


def instance_norm() -> Arguments:
    """flax InstanceNorm: with scale and bias.

    >>> instance_norm()
    {'eps': 1e-06}
    """
    return {"eps": 1e-6}


def rms_norm() -> Arguments:
    """flax RMSNorm.

    >>> rms_norm()
    {'eps': 1e-06}
    """
    return {"eps": 1e-6}
